//! Attention against the numbers that PyTorch gave.

use super::*;

/// The mask that a case's name describes, as a rule; `None` where only the dense tensor says it.
fn rule(case: &str, fixtures: &Fixtures, keys: usize, device: &Device) -> Option<Mask> {
    let lengths = || -> Vec<usize> {
        fixtures.data(&format!("{case}.lengths")).iter::<i64>().map(|n| n as usize).collect()
    };
    if case == "dead_rows" || case == "per_head_mask" {
        return None;
    }
    let mut rule = Mask::all_visible();
    if case.contains("causal") || case.contains("window3") || case == "all_together" {
        rule = rule & Mask::look_ahead();
    }
    if case.contains("window3") {
        rule = rule & Mask::window_keys(3).unwrap();
    }
    if case.contains("packed") {
        rule = rule & Mask::document_ids(&fixtures.ints(&format!("{case}.segments"), device));
    }
    if case.contains("padding_left") {
        rule = rule & Mask::pad_counts(lengths().into_iter().map(|length| keys - length));
    } else if fixtures.find(&format!("{case}.lengths")).is_some() {
        rule = rule & Mask::lengths(lengths());
    }
    Some(rule)
}

/// The masks of one case: from its rule, and from the dense tensor.
fn masks(
    case: &str,
    fixtures: &Fixtures,
    [batch, queries, keys]: [usize; 3],
    device: &Device,
) -> Vec<(&'static str, LoweredMask)> {
    let grid = if case.contains("top_left") {
        Grid::top_left(batch, queries, keys)
    } else {
        Grid::bottom_right(batch, queries, keys)
    };
    let mut masks = Vec::new();
    if let Some(rule) = rule(case, fixtures, keys, device) {
        masks.push(("rule", rule.lower(&grid).unwrap()));
    }
    if fixtures.find(&format!("{case}.hidden")).is_some() {
        let hidden = fixtures.hidden::<4>(&format!("{case}.hidden"), device);
        masks.push(("dense", Mask::from_hidden(&hidden).unwrap().lower(&grid).unwrap()));
    }
    masks
}

/// Runs `check(case, mask's name, inputs, mask, score)` on every case but the one that only the
/// fused kernel promises.
fn for_each_case(
    device: &Device,
    mut check: impl FnMut(&str, &Fixtures, &str, &Inputs, &LoweredMask, &Score),
) {
    let fixtures = Fixtures::open("sdpa.safetensors");
    for case in fixtures.cases().iter().filter(|case| *case != "extra_nan_hidden") {
        let of = |name: &str| fixtures.tensor::<4>(&format!("{case}.{name}"), device);
        let inputs = Inputs { query: of("q"), key: of("k"), value: of("v"), upstream: of("g") };
        let [batch, _, queries, _] = inputs.query.dims();
        let keys = inputs.key.dims()[2];
        let number = |name: &str| {
            let name = format!("{case}.{name}");
            fixtures.find(&name).map(|_| fixtures.scalar(&name))
        };
        let bias = fixtures.find(&format!("{case}.bias")).map(|_| of("bias"));
        let score = Score::new()
            .with_scale(number("scale"))
            .with_softcap(number("softcap"))
            .with_bias(bias);
        for (name, mask) in masks(case, &fixtures, [batch, queries, keys], device) {
            check(case, &fixtures, name, &inputs, &mask, &score);
        }
    }
}

on_each_backend! {
    fn agrees_with_pytorch_in_training(device: Device) {
        for_each_case(&device, |case, fixtures, mask_name, inputs, mask, score| {
            let expected =
                |name: &str| array::<4>(fixtures.tensor(&format!("{case}.{name}"), &device));
            let large = ["visible_below_minus_1e4", "hidden_above_1e4"].contains(&case);
            let gradient = if large { LARGE_SCORE_GRADIENT } else { GRADIENT }.on(&device);
            for kernel in training_kernels(&device) {
                let what = format!("{case}, mask from its {mask_name}, {kernel:?}");
                // Weights asked for or not: Kernel::Auto may choose differently.
                for weights in [false, true] {
                    if weights && kernel == Kernel::Fused {
                        continue;
                    }
                    let request = by(kernel).with_weights(weights);
                    let results = train(inputs, mask, score, &request);
                    let close = |name: &str, got: &Array, tolerance| {
                        assert_arrays_close(
                            &format!("{what}: {name}"),
                            got,
                            &expected(name),
                            tolerance,
                        );
                    };
                    close("out", &results.output, OUTPUT.on(&device));
                    close("dq", &results.d_query, gradient);
                    close("dk", &results.d_key, gradient);
                    close("dv", &results.d_value, gradient);
                    if let Some(d_bias) = &results.d_bias {
                        close("dbias", d_bias, gradient);
                    }
                    assert_eq!(results.weights.is_some(), weights);
                    if let Some(weights) = &results.weights {
                        close("weights", weights, OUTPUT.on(&device));
                    }
                    if fixtures.find(&format!("{case}.hidden")).is_some() {
                        let hidden = fixtures.data(&format!("{case}.hidden"));
                        let shape = hidden.shape().dims::<4>();
                        let flags = hidden.iter::<bool>().map(|flag| flag as u8 as f64).collect();
                        let hidden = Array::new(shape, flags);
                        assert_hidden_is_zero(&what, &results, &|cell| hidden.at(cell) == 1.0);
                    }
                }
            }
        });
    }

    fn agrees_with_pytorch_at_inference(device: Device) {
        for_each_case(&device, |case, fixtures, mask_name, inputs, mask, score| {
            let expected = array::<4>(fixtures.tensor(&format!("{case}.out"), &device));
            for kernel in inference_kernels(&device) {
                if kernel == Kernel::Backend
                    && (score.bias.is_some() || score.softcap.is_some())
                {
                    continue; // refused, see the tests of refusals
                }
                let attended = forward(inputs, mask, score, &by(kernel));
                let what = format!("{case}, mask from its {mask_name}, {kernel:?}: out");
                assert_arrays_close(&what, &array(attended.output), &expected, OUTPUT.on(&device));
            }
        });
    }

    /// ALiBi by slopes and positions, not by the bias that the fixtures also hold.
    fn alibi_agrees_with_pytorch(device: Device) {
        let fixtures = Fixtures::open("sdpa.safetensors");
        for case in ["alibi", "alibi_causal"] {
            let of = |name: &str| fixtures.tensor::<4>(&format!("{case}.{name}"), &device);
            let inputs = Inputs { query: of("q"), key: of("k"), value: of("v"), upstream: of("g") };
            let slopes = to_f64(fixtures.data(&format!("{case}.slopes")));
            let [batch, _, queries, _] = inputs.query.dims();
            let keys = inputs.key.dims()[2];
            let (_, mask) = &masks(case, &fixtures, [batch, queries, keys], &device)[0];
            for kernel in training_kernels(&device) {
                let score = Score::new().with_alibi(Alibi::with_slopes(slopes.clone()));
                let results = train(&inputs, mask, &score, &by(kernel));
                for (name, got, tolerance) in [
                    ("out", &results.output, OUTPUT),
                    ("dq", &results.d_query, GRADIENT),
                    ("dk", &results.d_key, GRADIENT),
                    ("dv", &results.d_value, GRADIENT),
                ] {
                    let what = format!("{case}, {kernel:?}: {name}");
                    assert_arrays_close(&what, got, &array(of(name)), tolerance.on(&device));
                }
            }
        }
    }
}
