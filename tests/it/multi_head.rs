//! Multi-head attention: against PyTorch, and its configuration.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use burn_decoder::attention::{
    MultiHeadAttention, MultiHeadAttentionConfig, Request, Score, scaled_dot_product_attention,
};
use burn_decoder::import::{LoadOptions, pytorch};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

use crate::backends::cpus;
use crate::fixtures::{Fixtures, GRADIENT, OUTPUT, assert_close, to_f64};
use crate::naive::Array;

fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    Tensor::from_data(TensorData::new(Array::random([1, 1, 1, count], seed).values, shape), device)
}

/// The fixtures' layer.
fn layer(device: &Device) -> MultiHeadAttention {
    let layer = MultiHeadAttentionConfig::new(24, 4).with_dropout(0.0).init(device).unwrap();
    let options = LoadOptions::new().with_ignored(CASES.map(|case| format!("{case}.")));
    pytorch::load(layer, "tests/fixtures/mha.safetensors", options).unwrap()
}

/// The cases of the fixtures.
const CASES: [&str; 4] = ["self_causal_padding", "cross_padding", "self_plain", "self_dead_rows"];

/// The mask that the case's tensors say: causal or none, and padding.
fn mask(case: &str, fixtures: &Fixtures, grid: &Grid, device: &Device) -> LoweredMask {
    let mut mask = Mask::all_visible();
    if let Some(hidden) = fixtures.find(&format!("{case}.key_padding_mask")) {
        mask = mask & Mask::from_hidden_keys(&Tensor::from_data(hidden, device));
    }
    if fixtures.find(&format!("{case}.attn_mask")).is_some() {
        mask = mask & Mask::look_ahead();
    }
    mask.lower(grid).unwrap()
}

on_each_backend! {
    fn agrees_with_pytorch(device: Device) {
        let fixtures = Fixtures::open("mha.safetensors");
        let training = device.clone().autodiff();
        let layer = layer(&training);
        for case in CASES {
            let input = |name: &str| {
                let name = format!("{case}.{name}");
                fixtures
                    .find(&name)
                    .map(|data| Tensor::<3>::from_data(data, &training).require_grad())
            };
            let query = input("query").unwrap();
            let key = input("key").unwrap_or_else(|| query.clone());
            let value = input("value").unwrap_or_else(|| query.clone());
            let [batch, queries, _] = query.dims();
            let grid = Grid::bottom_right(batch, queries, key.dims()[1]);
            let mask = mask(case, &fixtures, &grid, &device);

            for weights in [false, true] {
                let request = Request::new().with_weights(weights);
                let attended =
                    layer.forward(query.clone(), key.clone(), value.clone(), &mask, &request);
                let upstream = fixtures.tensor::<3>(&format!("{case}.g"), &training);
                let gradients = (attended.output.clone() * upstream).sum().backward();

                let close = |name: &str, got: TensorData, tolerance: crate::fixtures::Tolerance| {
                    let expected = fixtures.data(&format!("{case}.{name}"));
                    assert_close(&format!("{case}.{name}"), got, expected, tolerance.on(&device));
                };
                close("out", attended.output.into_data(), OUTPUT);
                assert_eq!(attended.weights.is_some(), weights);
                if let Some(weights) = attended.weights {
                    close("weights_per_head", weights.clone().into_data(), OUTPUT);
                    let mean = weights.mean_dim(1).squeeze_dim::<3>(1);
                    close("weights_avg", mean.into_data(), OUTPUT);
                }
                let of = |tensor: &Tensor<3>, gradients: &Gradients| {
                    tensor.grad(gradients).unwrap().into_data()
                };
                close("grad.query", of(&query, &gradients), GRADIENT);
                if case == "cross_padding" {
                    close("grad.key", of(&key, &gradients), GRADIENT);
                    close("grad.value", of(&value, &gradients), GRADIENT);
                }
                let weight =
                    |linear: &Linear| linear.weight.val().grad(&gradients).unwrap().transpose();
                let bias =
                    |linear: &Linear| linear.bias.as_ref().unwrap().val().grad(&gradients).unwrap();
                let packed = [&layer.query, &layer.key, &layer.value];
                let weights = Tensor::cat(packed.map(weight).to_vec(), 0);
                close("grad.in_proj_weight", weights.into_data(), GRADIENT);
                let biases = Tensor::cat(packed.map(bias).to_vec(), 0);
                close("grad.in_proj_bias", biases.into_data(), GRADIENT);
                close("grad.out_proj.weight", weight(&layer.output).into_data(), GRADIENT);
                close("grad.out_proj.bias", bias(&layer.output).into_data(), GRADIENT);
            }
        }
    }

    /// A query that sees nothing gets the output projection's bias and nothing else.
    fn a_dead_row_is_the_output_bias(device: Device) {
        let fixtures = Fixtures::open("mha.safetensors");
        let layer = layer(&device);
        let input = random([2, 3, 24], 1, &device);
        let mask = Mask::pad_counts([3, 0]).lower(&Grid::square(2, 3)).unwrap();
        let request = Request::new();
        let output = layer.forward(input.clone(), input.clone(), input, &mask, &request).output;
        let bias = to_f64(fixtures.data("out_proj.bias"));
        let output = to_f64(output.into_data());
        for row in 0..3 {
            assert_eq!(output[row * 24..(row + 1) * 24], bias);
        }
        assert_ne!(output[3 * 24..4 * 24], bias);
    }

    /// Grouped heads, a head_dim of its own, a memory of another width: shapes, and the same as the
    /// three pieces that a cache would stand between.
    fn pieces_make_the_whole(device: Device) {
        let config = MultiHeadAttentionConfig::new(10, 6)
            .with_kv_heads(Some(2))
            .with_head_dim(Some(7))
            .with_memory_dim(Some(11))
            .with_scale(Some(0.3))
            .with_softcap(Some(5.0))
            .with_key_bias(false);
        let layer = config.init(&device).unwrap();
        assert_eq!(layer.query.weight.dims(), [10, 42]);
        assert_eq!(layer.key.weight.dims(), [11, 14]);
        assert_eq!(layer.value.weight.dims(), [11, 14]);
        assert_eq!(layer.output.weight.dims(), [42, 10]);
        assert!(layer.key.bias.is_none() && layer.query.bias.is_some());

        let (input, memory) = (random([3, 5, 10], 1, &device), random([3, 8, 11], 2, &device));
        let mask = Mask::lengths([8, 3, 5]).lower(&Grid::bottom_right(3, 5, 8)).unwrap();
        let request = Request::new().with_weights(true);
        let whole = layer.forward(input.clone(), memory.clone(), memory.clone(), &mask, &request);
        assert_eq!(whole.output.dims(), [3, 5, 10]);
        assert_eq!(whole.weights.unwrap().dims(), [3, 6, 5, 8]);

        let query = layer.query.forward(input).reshape([3, 5, 6, 7]).swap_dims(1, 2); // [batch, heads, queries, head_dim]
        let [key, value] = [&layer.key, &layer.value].map(|projection| {
            projection.forward(memory.clone()).reshape([3, 8, 2, 7]).swap_dims(1, 2) // [batch, kv_heads, keys, head_dim]
        });
        // The layer's own scale and softcap reach the function.
        let score = Score::new().with_scale(0.3).with_softcap(5.0);
        let heads = scaled_dot_product_attention(query, key, value, &mask, &score, &request).output;
        let heads = heads.swap_dims(1, 2).reshape([3, 5, 42]); // [batch, queries, heads * head_dim]
        let pieces = layer.output.forward(heads);
        assert_close("pieces", pieces.into_data(), whole.output.into_data(), OUTPUT.on(&device));
    }

    /// Built on one backend, run on another: same numbers.
    fn a_record_moves_between_backends(device: Device) {
        let home = cpus().into_iter().next().unwrap_or_else(|| device.clone());
        let layer = layer(&home);
        let moved = MultiHeadAttentionConfig::new(24, 4)
            .init(&device)
            .unwrap()
            .load_record(layer.clone().into_record());
        let mask = Mask::look_ahead().lower(&Grid::square(2, 5)).unwrap();
        let run = |layer: &MultiHeadAttention, device: &Device| {
            let input = random([2, 5, 24], 3, device);
            let request = Request::new();
            layer.forward(input.clone(), input.clone(), input, &mask, &request).output.into_data()
        };
        assert_close("moved", run(&moved, &device), run(&layer, &home), OUTPUT.on(&device));
    }

    /// Dropout is the layer's: in training it drops, frozen or off the training device it does not.
    fn dropout_follows_training(device: Device) {
        let training = device.clone().autodiff();
        let layer = MultiHeadAttentionConfig::new(8, 2).with_dropout(0.5).init(&training).unwrap();
        let mask = LoweredMask::all_visible(Grid::square(2, 7));
        let run = |layer: &MultiHeadAttention, device: &Device| {
            let input = random([2, 7, 8], 5, device);
            let score = layer.score().with_dropout_seed(1);
            let [q, k, v] = [input.clone(), input.clone(), input];
            to_f64(layer.forward_scored(q, k, v, &mask, &score, &Request::new()).output.into_data())
        };
        let dropped = run(&layer, &training);
        let frozen = run(&layer.clone().freeze(), &training);
        let valid = run(&layer.valid(), &device);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(!close(&dropped, &frozen));
        assert!(close(&frozen, &valid));
    }
}

on_each_backend! {
    /// Every wrong field is named, with what was expected and what came.
    fn wrong_configurations_are_told(device: Device) {
        let config = || MultiHeadAttentionConfig::new(24, 4);
        let cases = [
            (MultiHeadAttentionConfig::new(0, 4), "d_model: expected at least 1, got 0"),
            (MultiHeadAttentionConfig::new(24, 0), "heads: expected at least 1, got 0"),
            (
                MultiHeadAttentionConfig::new(24, 5),
                "heads: expected a number that divides d_model 24",
            ),
            (
                config().with_kv_heads(Some(3)),
                "kv_heads: expected a number that divides the 4 heads, got 3",
            ),
            (config().with_kv_heads(Some(0)), "kv_heads: expected at least 1, got 0"),
            (config().with_head_dim(Some(0)), "head_dim: expected at least 1, got 0"),
            (config().with_memory_dim(Some(0)), "memory_dim: expected at least 1, got 0"),
            (config().with_dropout(1.0), "dropout: expected a probability in [0, 1), got 1"),
            (config().with_dropout(f64::NAN), "dropout: expected a probability in [0, 1), got NaN"),
            (config().with_scale(Some(f64::INFINITY)), "scale: expected a number in the range of f32, got inf"),
            (
                config().with_softcap(Some(-1.0)),
                "softcap: expected a number above 0, in the range of f32, got -1",
            ),
        ];
        for (config, expected) in cases {
            let text = config.init(&device).unwrap_err().to_string();
            assert!(text.contains(expected), "expected {expected:?} in {text:?}");
        }
        // 5 heads of their own width need not divide d_model.
        assert!(MultiHeadAttentionConfig::new(24, 5).with_head_dim(Some(3)).init(&device).is_ok());
    }

    /// The layer's score is its own, and a caller may add to it.
    fn the_score_is_the_layers(device: Device) {
        let config = MultiHeadAttentionConfig::new(4, 2).with_scale(Some(0.3)).with_softcap(Some(5.0));
        let layer = config.init(&device).unwrap();
        assert_eq!((layer.heads(), layer.kv_heads(), layer.head_dim()), (2, 2, 2));
        let score = layer.score();
        assert_eq!((score.scale, score.softcap), (Some(0.3), Some(5.0)));
        let input = random([1, 3, 4], 1, &device);
        let mask = LoweredMask::all_visible(Grid::square(1, 3));
        let run = |score: &Score| {
            let [q, k, v] = [input.clone(), input.clone(), input.clone()];
            layer.forward_scored(q, k, v, &mask, score, &Request::new().with_weights(true))
        };
        // A bias on the first key draws all weight to it.
        let bias = Tensor::<4>::from_data([[[[1e4f32, 0.0, 0.0]]]], &device);
        let weights = to_f64(run(&score.with_bias(bias)).weights.unwrap().into_data());
        assert!(weights.chunks(3).all(|row| row[0] > 0.999), "{weights:?}");
    }
}

/// A configuration survives a file.
#[test]
fn a_configuration_is_saved_and_loaded() {
    use burn::config::Config;
    let config = MultiHeadAttentionConfig::new(24, 4)
        .with_kv_heads(Some(2))
        .with_biases(false)
        .with_softcap(Some(50.0));
    let file = tempfile::NamedTempFile::new().unwrap();
    config.save(file.path()).unwrap();
    assert_eq!(MultiHeadAttentionConfig::load(file.path()).unwrap(), config);
}
