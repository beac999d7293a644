//! Decoder layers and stacks against PyTorch's `TransformerDecoderLayer` and `TransformerDecoder`,
//! and their own promises.

use std::path::Path;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_decoder::Error;
use burn_decoder::attention::{MultiHeadAttentionConfig, Request, RotaryConfig};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayer, DecoderLayerConfig, FeedForwardConfig,
    LayerContext, Memory, NormConfig, NormPlacement, ResidualLayout,
};
use burn_decoder::import::LoadOptions;
use burn_decoder::import::pytorch::{self, StateDict};
use burn_decoder::mask::{Grid, LoweredMask, Mask, SequenceMaskConfig};

use crate::fixtures::{Fixtures, GRADIENT, OUTPUT, assert_close};
use crate::pytorch::{layer_gradients, norm_gradients};

/// The layer that a file of fixtures describes.
fn fixture_config(fixtures: &Fixtures) -> DecoderLayerConfig {
    let size = |key| fixtures.metadata(key).parse::<usize>().unwrap();
    let (d_model, heads) = (size("d_model"), size("nhead"));
    let attention = MultiHeadAttentionConfig::new(d_model, heads);
    let activation = match fixtures.metadata("activation") {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        other => panic!("unknown activation {other}"),
    };
    let placement = match fixtures.metadata("norm_first") {
        "True" => NormPlacement::Pre,
        _ => NormPlacement::Post,
    };
    DecoderLayerConfig::new(
        attention.clone(),
        FeedForwardConfig::new(d_model, size("dim_feedforward")).with_activation(activation),
    )
    .with_cross_attention(Some(attention))
    .with_norm_placement(placement)
}

/// The module with the parameters of a file of fixtures, which holds inputs and results beside them.
fn load_state_dict<M: StateDict>(module: M, file: &Path) -> M {
    pytorch::load(module, file, LoadOptions::new().with_ignored(["io.", "grad."])).unwrap()
}

/// The inputs and masks of a file of fixtures, on a device with gradients.
struct Io {
    tgt: Tensor<3>,
    memory: Tensor<3>,
    mask: LoweredMask,
    memory_mask: LoweredMask,
    /// The same for a stack.
    batch: Batch,
}

impl Io {
    fn new(fixtures: &Fixtures, device: &Device) -> Self {
        let tgt = fixtures.tensor::<3>("io.tgt", device).require_grad();
        let memory = fixtures.tensor::<3>("io.memory", device).require_grad();
        let [batch, queries, _] = tgt.dims();
        let [_, keys, _] = memory.dims();
        let padding = |name| Mask::from_hidden_keys(&fixtures.hidden::<2>(name, device));
        let causal = Mask::from_hidden(&fixtures.hidden::<2>("io.tgt_mask", device)).unwrap();
        let grid = Grid::square(batch, queries);
        assert!(Mask::look_ahead().equals(&causal, &grid).unwrap());
        let padded = padding("io.tgt_key_padding_mask");
        let memory_mask = padding("io.memory_key_padding_mask");
        Self {
            batch: Batch::new()
                .with_mask(padded.clone())
                .with_memory(memory.clone(), memory_mask.clone()),
            tgt,
            memory,
            mask: (Mask::look_ahead() & padded).lower(&grid).unwrap(),
            memory_mask: memory_mask.lower(&Grid::top_left(batch, queries, keys)).unwrap(),
        }
    }

    fn context(&self) -> LayerContext<'_> {
        let memory = Memory { states: &self.memory, mask: &self.memory_mask };
        LayerContext { memory: Some(memory), ..LayerContext::new(&self.mask) }
    }

    /// Compares the gradients of inputs and parameters with all of those in the file.
    fn assert_gradients(
        &self,
        fixtures: &Fixtures,
        output: Tensor<3>,
        device: &Device,
        parameters: impl Fn(&burn::tensor::Gradients) -> Vec<(String, TensorData)>,
    ) {
        let g = fixtures.tensor::<3>("io.g", device);
        let gradients = (output * g).sum().backward();
        let mut got = parameters(&gradients);
        got.push(("tgt".into(), self.tgt.grad(&gradients).unwrap().into_data()));
        got.push(("memory".into(), self.memory.grad(&gradients).unwrap().into_data()));
        let expected = fixtures.names().filter(|name| name.starts_with("grad.")).count();
        assert_eq!(got.len(), expected, "every gradient of the file is compared");
        for (name, data) in got {
            assert_close(&name, data, fixtures.data(&format!("grad.{name}")), GRADIENT.on(device));
        }
    }
}

on_each_backend! {
    fn layers_match_pytorch(device: Device) {
        let device = device.autodiff();
        for norm in ["pre", "post"] {
            for activation in ["relu", "gelu"] {
                let fixtures =
                    Fixtures::open(&format!("decoder_layer_{norm}_{activation}.safetensors"));
                let layer = fixture_config(&fixtures).init(&device).unwrap();
                let layer = load_state_dict(layer, fixtures.path());

                let io = Io::new(&fixtures, &device);
                let output = layer.forward(io.tgt.clone(), &io.context(), &weights());
                for (name, got) in [
                    ("io.out", output.output.to_data()),
                    ("io.self_weights", output.self_weights.unwrap().to_data()),
                    ("io.cross_weights", output.cross_weights.unwrap().to_data()),
                ] {
                    assert_close(name, got, fixtures.data(name), OUTPUT.on(&device));
                }
                io.assert_gradients(&fixtures, output.output, &device, |gradients| {
                    layer_gradients(&layer, gradients, "")
                });
            }
        }
    }

    fn a_stack_matches_pytorch(device: Device) {
        let device = device.autodiff();
        let fixtures = Fixtures::open("decoder_stack.safetensors");
        for file in ["decoder_stack.safetensors", "decoder_stack.pt"] {
            let layers = fixtures.metadata("num_layers").parse().unwrap();
            let decoder =
                DecoderConfig::new(fixture_config(&fixtures), layers).init(&device).unwrap();
            let decoder = load_state_dict(decoder, &fixtures.path().with_file_name(file));

            let io = Io::new(&fixtures, &device);
            let output = decoder.forward(io.tgt.clone(), &io.batch, &weights()).unwrap();
            assert_eq!([output.self_weights.len(), output.cross_weights.len()], [3, 3]);
            let expected = fixtures.data("io.out");
            assert_close("io.out", output.output.to_data(), expected, OUTPUT.on(&device));
            io.assert_gradients(&fixtures, output.output, &device, |gradients| {
                let mut found = Vec::new();
                for (index, layer) in decoder.layers.iter().enumerate() {
                    let prefix = format!("layers.{index}.");
                    found.extend(layer_gradients(layer, gradients, &prefix));
                }
                let norm = decoder.final_norm.as_ref().unwrap();
                for (name, data) in norm_gradients(norm, gradients) {
                    found.push((format!("norm.{name}"), data));
                }
                found
            });
        }
    }

    /// Without memory a layer has no cross-attention, and its weights are for the asking.
    fn a_layer_without_memory(device: Device) {
        let layer = small_config().init(&device).unwrap();
        let x = Tensor::<3>::random([2, 5, 12], Distribution::Default, &device);
        let mask = Mask::look_ahead().lower(&Grid::square(2, 5)).unwrap();
        let quiet = layer.forward(x.clone(), &LayerContext::new(&mask), &Request::new());
        assert!(quiet.self_weights.is_none() && quiet.cross_weights.is_none());
        let asked = layer.forward(x, &LayerContext::new(&mask), &weights());
        assert_eq!(asked.self_weights.unwrap().dims(), [2, 3, 5, 5]);
        assert!(asked.cross_weights.is_none());
        assert_close("output", quiet.output.to_data(), asked.output.to_data(), OUTPUT.on(&device));
    }

    /// The table of placements, each made by hand from the parts.
    fn placements_and_parallel(device: Device) {
        use ResidualLayout::*;
        use NormPlacement::*;
        let x = Tensor::<3>::random([2, 5, 12], Distribution::Default, &device);
        let mask = Mask::look_ahead().lower(&Grid::square(2, 5)).unwrap();
        let sequential = [Pre, Post, Output, Sandwich].map(|placement| (placement, Sequential));
        let parallel = [(Pre, Parallel), (Sandwich, Parallel), (Pre, ParallelSharedNorm)];
        for (placement, residual_layout) in sequential.into_iter().chain(parallel) {
            let config =
                small_config().with_norm_placement(placement).with_residual_layout(residual_layout);
            let layer = config.init(&device).unwrap();
            let attend = |x: Tensor<3>| {
                let request = Request::new();
                layer.self_attention.forward(x.clone(), x.clone(), x, &mask, &request).output
            };
            let feed = |x| layer.feed_forward.forward(x);
            let norm = |x| layer.self_attention_norm.forward(x);
            let norm_3 = |x| layer.feed_forward_norm.as_ref().unwrap().forward(x);
            let second = |x| layer.self_attention_output_norm.as_ref().unwrap().forward(x);
            let second_3 = |x| layer.feed_forward_output_norm.as_ref().unwrap().forward(x);
            let x0 = || x.clone();
            let expected = match (placement, residual_layout) {
                (Post, _) => {
                    let x1 = norm(x0() + attend(x0()));
                    norm_3(x1.clone() + feed(x1))
                }
                (Pre, Sequential) => {
                    let x1 = x0() + attend(norm(x0()));
                    x1.clone() + feed(norm_3(x1))
                }
                (Output, _) => {
                    let x1 = x0() + norm(attend(x0()));
                    x1.clone() + norm_3(feed(x1))
                }
                (Sandwich, Sequential) => {
                    let x1 = x0() + second(attend(norm(x0())));
                    x1.clone() + second_3(feed(norm_3(x1)))
                }
                (Pre, Parallel) => x0() + attend(norm(x0())) + feed(norm_3(x0())),
                (Pre, ParallelSharedNorm) => {
                    let normed = norm(x0());
                    x0() + attend(normed.clone()) + feed(normed)
                }
                (Sandwich, _) => x0() + second(attend(norm(x0()))) + second_3(feed(norm_3(x0()))),
            };
            let got = layer.forward(x0(), &LayerContext::new(&mask), &Request::new()).output;
            let what = format!("{placement:?}, {residual_layout:?}");
            assert_close(&what, got.into_data(), expected.into_data(), OUTPUT.on(&device));
            let decoder = DecoderConfig::new(config, 1).init(&device).unwrap();
            assert_eq!(decoder.final_norm.is_some(), placement != Post);
        }
    }

    /// Windows in turn hide what the mask of one such window hides, and nothing else.
    fn windows_in_turn(device: Device) {
        let config = DecoderConfig::new(small_config(), 3).with_windows(vec![Some(2), None]);
        let decoder = config.init(&device).unwrap();
        let x = Tensor::<3>::random([2, 5, 12], Distribution::Default, &device);
        let look_ahead = Mask::look_ahead() & Mask::lengths([5, 4]);
        let window = &look_ahead & Mask::window_keys(2).unwrap();
        let lower = |mask: &Mask| mask.lower(&Grid::square(2, 5)).unwrap();
        let (full, narrow) = (lower(&look_ahead), lower(&window));
        let batch = Batch::new().with_lengths([5, 4]);
        let output = decoder.forward(x, &batch, &weights()).unwrap();
        for (weights, mask) in output.self_weights.iter().zip([&narrow, &full, &narrow]) {
            let weights: Vec<f32> = weights.to_data().iter::<f32>().collect();
            for (at, weight) in weights.into_iter().enumerate() {
                let (row, head, query, key) = (at / 75, at / 25 % 3, at / 5 % 5, at % 5);
                assert_eq!(weight > 0.0, mask.is_visible(row, head, query, key));
            }
        }
    }

    /// The mask of a configuration, said by its fields or as a rule, and the window of each layer make
    /// what the layers see; a configuration with all of it survives a file.
    fn the_mask_of_a_configuration(device: Device) {
        let fields = SequenceMaskConfig::new().with_window_keys(Some(4)).with_sinks(1);
        let rule = (Mask::window_keys(4).unwrap() | Mask::sinks(1)) & Mask::look_ahead();
        for mask in [fields, rule.clone().into()] {
            let config = DecoderConfig::new(small_config(), 2)
                .with_mask(mask)
                .with_windows(vec![None, Some(2)]);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("config.json");
            config.save(&file).unwrap();
            let decoder = DecoderConfig::load(&file).unwrap().init(&device).unwrap();
            let x = Tensor::<3>::random([2, 7, 12], Distribution::Default, &device);
            let batch = Batch::new().with_pad_counts([0, 2]);
            let output = decoder.forward(x, &batch, &weights()).unwrap();
            let padded = rule.left_padded([0, 2]);
            let narrow = &padded & Mask::look_back(1);
            for (weights, mask) in output.self_weights.iter().zip([padded, narrow]) {
                let mask = mask.lower(&Grid::square(2, 7)).unwrap();
                for (at, weight) in weights.to_data().iter::<f32>().enumerate() {
                    let (row, query, key) = (at / 147, at / 7 % 7, at % 7);
                    assert_eq!(weight > 0.0, mask.is_visible(row, 0, query, key), "{mask:?}");
                }
            }
        }
    }

    /// What is saved is what is loaded, the gate of a SwiGLU and the scale of an RMSNorm included.
    fn every_parameter_survives_saving(device: Device) {
        let folder = tempfile::tempdir().unwrap();
        for activation in [Activation::SwiGlu, Activation::GeGlu, Activation::Gelu] {
            let mut config = small_config()
                .with_norm(NormConfig::rms_norm())
                .with_norm_placement(NormPlacement::Sandwich);
            config.feed_forward.activation = activation;
            let (json, record) = (folder.path().join("c.json"), folder.path().join("m.bpk"));
            let layer = config.init(&device).unwrap();
            config.save(&json).unwrap();
            layer.clone().save_file(&record).unwrap();

            let config = DecoderLayerConfig::load(&json).unwrap();
            let other = config.init(&device).unwrap();
            let expected = outputs(&layer, &device);
            assert_ne!(outputs(&other, &device), expected, "another start is another layer");
            assert_eq!(outputs(&other.load_file(&record), &device), expected);
        }
    }
}

fn weights() -> Request {
    Request::new().with_weights(true)
}

/// d_model 12, 3 heads, d_ff 19
fn small_config() -> DecoderLayerConfig {
    DecoderLayerConfig::new(MultiHeadAttentionConfig::new(12, 3), FeedForwardConfig::new(12, 19))
}

fn outputs(layer: &DecoderLayer, device: &Device) -> TensorData {
    let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::<3>::from_data(TensorData::new(x, [1, 5, 12]), device);
    let mask = Mask::look_ahead().lower(&Grid::square(1, 5)).unwrap();
    layer.forward(x, &LayerContext::new(&mask), &Request::new()).output.into_data()
}

/// The field, what was expected and what came.
fn refusal(config: DecoderLayerConfig) -> String {
    let device = crate::backends::any_device();
    match config.init(&device) {
        Err(error @ Error::Config { .. }) => error.to_string(),
        other => panic!("expected Error::Config, got {other:?}"),
    }
}

#[test]
fn bad_configurations_are_refused() {
    let attention = MultiHeadAttentionConfig::new;
    let feed_forward = FeedForwardConfig::new;
    let layer = DecoderLayerConfig::new;
    for (config, words) in [
        (layer(attention(12, 5), feed_forward(12, 19)), ["heads", "12", "5"]),
        (layer(attention(12, 0), feed_forward(12, 19)), ["heads", "at least 1", "0"]),
        (layer(attention(0, 3), feed_forward(0, 19)), ["d_model", "at least 1", "0"]),
        (layer(attention(12, 3), feed_forward(12, 0)), ["d_ff", "at least 1", "0"]),
        (layer(attention(12, 3), feed_forward(13, 19)), ["FeedForwardConfig::d_model", "12", "13"]),
        (
            small_config().with_cross_attention(Some(attention(15, 3))),
            ["cross_attention", "12", "15"],
        ),
        (small_config().with_dropout(1.0), ["DecoderLayerConfig::dropout", "[0, 1)", "1"]),
        (small_config().with_dropout(f64::NAN), ["DecoderLayerConfig::dropout", "[0, 1)", "NaN"]),
        (
            layer(attention(12, 3), feed_forward(12, 19).with_dropout(-0.1)),
            ["FeedForwardConfig::dropout", "[0, 1)", "-0.1"],
        ),
        (
            small_config()
                .with_residual_layout(ResidualLayout::Parallel)
                .with_norm_placement(NormPlacement::Post),
            ["residual_layout", "inside the residuals", "NormPlacement::Post"],
        ),
        (
            small_config()
                .with_residual_layout(ResidualLayout::ParallelSharedNorm)
                .with_norm_placement(NormPlacement::Sandwich),
            ["residual_layout", "NormPlacement::Pre", "NormPlacement::Sandwich"],
        ),
        (
            small_config().with_cross_attention(Some(
                attention(12, 3).with_rotary(Some(RotaryConfig::new())),
            )),
            ["cross_attention", "another sequence", "rotary"],
        ),
        (
            small_config().with_cross_attention(Some(attention(12, 3).with_alibi(true))),
            ["cross_attention", "another sequence", "ALiBi"],
        ),
        (
            small_config()
                .with_residual_layout(ResidualLayout::Parallel)
                .with_cross_attention(Some(attention(12, 3))),
            ["residual_layout", "no cross-attention", "got cross-attention"],
        ),
        (
            small_config().with_norm(NormConfig::rms_norm().with_epsilon(0.0)),
            ["epsilon", "positive", "0"],
        ),
    ] {
        let message = refusal(config);
        for word in words {
            assert!(message.contains(word), "{word:?} is missing in {message:?}");
        }
    }
    let device = crate::backends::any_device();
    let error = DecoderConfig::new(small_config(), 0).init(&device).unwrap_err();
    assert_eq!(error.to_string(), "DecoderConfig::layers: expected at least 1, got 0");
    let windows = DecoderConfig::new(small_config(), 2).with_windows(vec![None, Some(0)]);
    let error = windows.init(&device).unwrap_err();
    assert_eq!(error.to_string(), "DecoderConfig::windows: expected at least 1, got 0");
    let padding = SequenceMaskConfig::new().with_pad_id(Some(3));
    let error = DecoderConfig::new(small_config(), 2).with_mask(padding).init(&device).unwrap_err();
    assert!(error.to_string().contains("tell padding with each batch"), "{error}");
}

#[test]
#[should_panic(expected = "expected both or neither")]
fn cross_attention_without_memory_panics() {
    let device = crate::backends::any_device();
    let config = small_config().with_cross_attention(Some(MultiHeadAttentionConfig::new(12, 3)));
    outputs(&config.init(&device).unwrap(), &device);
}
