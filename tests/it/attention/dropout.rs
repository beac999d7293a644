//! Dropout of attention weights.

use super::*;

/// Attention over values that are unit vectors: the output is the weights as they meet the values.
fn dropped_weights(device: &Device, score: &Score, request: &Request) -> (Array, Array) {
    let inputs = inputs([2, 3, 3], [17, 19], [4, 1], device, DType::F32);
    let Inputs { query, key, .. } = inputs;
    let identity = Tensor::<2>::eye(19, device).reshape([1, 1, 19, 19]).repeat(&[2, 3, 1, 1]);
    let [query, key, value] = [query, key, identity].map(|tensor| tensor.autodiff());
    let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 17, 19)).unwrap();
    let output = scaled_dot_product_attention(
        query.clone(),
        key.clone(),
        value.clone(),
        &mask,
        score,
        request,
    );
    let request = by(Kernel::Reference).with_weights(true);
    let weights =
        scaled_dot_product_attention(query, key, value, &mask, &Score::new(), &request).weights;
    (array(output.output), array(weights.unwrap()))
}

on_each_backend! {
    /// Each weight is gone or grown by 1 / (1 - p), and the share that is gone is about p.
    fn dropout_drops_weights(device: Device) {
        let probability = 0.3;
        for kernel in training_kernels(&device) {
            for seed in [Some(7), None] {
                let score = Score::new().with_dropout(probability).with_dropout_seed(seed);
                let (dropped, weights) = dropped_weights(&device, &score, &by(kernel));
                let (mut gone, mut visible) = (0.0, 0.0);
                for (dropped, weight) in dropped.values.iter().zip(&weights.values) {
                    let grown = weight / (1.0 - probability);
                    let close = (dropped - grown).abs() <= 1e-4 * grown;
                    assert!(
                        *dropped == 0.0 || close,
                        "{kernel:?}, seed {seed:?}: {weight} to {dropped}"
                    );
                    if *weight > 0.0 {
                        visible += 1.0;
                        gone += (*dropped == 0.0) as u8 as f64;
                    }
                }
                // Five standard deviations of that many tosses: for unseeded runs, one false alarm in
                // two million.
                let deviation = (probability * (1.0 - probability) / visible).sqrt();
                let share = gone / visible;
                assert!((share - probability).abs() < 5.0 * deviation, "{kernel:?}: {share} gone");
            }
        }
    }

    /// The same seed drops the same weights, forward and backward, whoever computes.
    fn a_seed_decides_dropout(device: Device) {
        let seeded = |seed| Score::new().with_dropout(0.4).with_dropout_seed(Some(seed));
        let (expected, _) =
            dropped_weights(&device, &seeded(3), &by(Kernel::Reference).with_weights(true));
        for kernel in training_kernels(&device) {
            let (got, _) = dropped_weights(&device, &seeded(3), &by(kernel));
            assert_arrays_close(&format!("{kernel:?}"), &got, &expected, OUTPUT.on(&device));
            let (other, _) = dropped_weights(&device, &seeded(4), &by(kernel));
            assert_ne!(other, got);
        }
    }

    /// What was dropped, read off one run, explains output and gradients of another.
    fn dropout_agrees_with_plain_loops(device: Device) {
        let (probability, grid) = (0.4, Grid::bottom_right(2, 17, 19));
        let inputs = inputs([2, 3, 3], [17, 19], [4, 5], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&grid).unwrap();
        for kernel in training_kernels(&device) {
            let score = Score::new().with_dropout(probability).with_dropout_seed(Some(11));
            let (dropped, _) = dropped_weights(&device, &score, &by(kernel));
            let results = train(&inputs, &mask, &score, &by(kernel));
            let expected = naive::attention(
                &naive::Problem {
                    query: &array(inputs.query.clone()),
                    key: &array(inputs.key.clone()),
                    value: &array(inputs.value.clone()),
                    scale: 0.5,
                    softcap: None,
                    bias: None,
                    sinks: None,
                    hidden: &|[_, _, q, k]| k > q + 2,
                    factor: &|cell| {
                        if dropped.at(cell) == 0.0 { 0.0 } else { 1.0 / (1.0 - probability) }
                    },
                },
                &array(inputs.upstream.clone()),
            );
            let close = |name: &str, got: &Array, expected: &Array| {
                assert_arrays_close(
                    &format!("{kernel:?}: {name}"),
                    got,
                    expected,
                    GRADIENT.on(&device),
                );
            };
            close("output", &results.output, &expected.output);
            close("d_query", &results.d_query, &expected.d_query);
            close("d_key", &results.d_key, &expected.d_key);
            close("d_value", &results.d_value, &expected.d_value);
        }
    }

    fn returned_weights_are_those_before_dropout(device: Device) {
        let request = Request::new().with_weights(true);
        let inputs = inputs([1, 2, 2], [5, 7], [3, 3], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 5, 7));
        let plain = train(&inputs, &mask, &Score::new(), &request);
        let dropping =
            train(&inputs, &mask, &Score::new().with_dropout(0.5).with_dropout_seed(1), &request);
        assert_eq!(dropping.weights, plain.weights);
        assert_ne!(dropping.output, plain.output);
    }

    /// Off an autodiff device there is nothing to train, and nothing is dropped.
    fn inference_drops_nothing(device: Device) {
        let inputs = inputs([1, 2, 2], [5, 7], [3, 3], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 5, 7));
        for kernel in inference_kernels(&device) {
            let run = |score: &Score| array(forward(&inputs, &mask, score, &by(kernel)).output);
            assert_eq!(run(&Score::new().with_dropout(0.9)), run(&Score::new()), "{kernel:?}");
        }
    }
}
