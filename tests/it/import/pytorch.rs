//! State dicts: packed projections, names by part, and back again. That the numbers are PyTorch's,
//! the tests of attention and layers say.

use std::path::Path;

use burn_decoder::Error;
use burn_decoder::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, NormPlacement,
};
use burn_decoder::import::pytorch::{self, StateDict};
use burn_decoder::import::{LoadOptions, WeightsMismatch};

use super::fixture;
use super::round_trip::tensors;
use crate::backends::any_device;

fn layer(placement: NormPlacement) -> DecoderLayerConfig {
    let attention = MultiHeadAttentionConfig::new(24, 4);
    DecoderLayerConfig::new(attention.clone(), FeedForwardConfig::new(24, 37))
        .with_cross_attention(Some(attention))
        .with_norm_placement(placement)
}

fn load<M: StateDict>(module: M, file: &str) -> M {
    let options = LoadOptions::new().with_ignored(["io.", "grad."]);
    pytorch::load(module, fixture(file), options).unwrap()
}

/// Saved, the module's file holds the tensors of the fixture that it was loaded from.
fn assert_exact(module: &impl StateDict, file: &str, is_parameter: impl Fn(&str) -> bool) {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("saved.safetensors");
    pytorch::save(module, &path).unwrap();
    let mut expected = tensors(&fixture(file));
    expected.retain(|name, _| is_parameter(name));
    assert!(tensors(&path) == expected, "{file}");
}

fn mismatch<M>(result: burn_decoder::Result<M>) -> WeightsMismatch {
    match result {
        Err(Error::Weights(mismatch)) => *mismatch,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it fits"),
    }
}

on_each_backend! {
    fn round_trips_are_exact(device: Device) {
        let no_dump = |name: &str| !name.starts_with("io.") && !name.starts_with("grad.");
        for norm in ["pre", "post"] {
            let file = format!("decoder_layer_{norm}_gelu.safetensors");
            let placement = if norm == "pre" { NormPlacement::Pre } else { NormPlacement::Post };
            assert_exact(&load(layer(placement).init(&device).unwrap(), &file), &file, no_dump);
        }
        let stack = || DecoderConfig::new(layer(NormPlacement::Pre), 3).init(&device).unwrap();
        for file in ["decoder_stack.safetensors", "decoder_stack.pt"] {
            assert_exact(&load(stack(), file), "decoder_stack.safetensors", no_dump);
        }
        let attention = MultiHeadAttentionConfig::new(24, 4).init(&device).unwrap();
        let cases = ["self_", "cross_"];
        let options = LoadOptions::new().with_ignored(cases);
        let attention = pytorch::load(attention, fixture("mha.safetensors"), options).unwrap();
        let is_parameter = |name: &str| !cases.iter().any(|case| name.starts_with(case));
        assert_exact(&attention, "mha.safetensors", is_parameter);
    }

    /// A memory of another width has weights of its own, and one packed bias.
    fn three_inputs_of_different_widths(device: Device) {
        let config = MultiHeadAttentionConfig::new(12, 3).with_memory_dim(Some(7));
        let attention = config.init(&device).unwrap();
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("attention.safetensors");
        pytorch::save(&attention, &path).unwrap();
        let saved = tensors(&path);
        let shapes: Vec<_> = saved.iter().map(|(name, tensor)| (name.as_str(), &tensor.1)).collect();
        assert_eq!(shapes, [
            ("in_proj_bias", &vec![36]),
            ("k_proj_weight", &vec![12, 7]),
            ("out_proj.bias", &vec![12]),
            ("out_proj.weight", &vec![12, 12]),
            ("q_proj_weight", &vec![12, 12]),
            ("v_proj_weight", &vec![12, 7]),
        ]);
        let other = pytorch::load(config.init(&device).unwrap(), &path, LoadOptions::new()).unwrap();
        let parameters = |attention: MultiHeadAttention| {
            let linears = [attention.query, attention.key, attention.value, attention.output];
            linears.map(|linear| (linear.weight.val().into_data(), linear.bias.unwrap().val().into_data()))
        };
        assert_eq!(parameters(other), parameters(attention));
    }
}

/// One attention out of a whole stack.
#[test]
fn a_part_of_a_larger_checkpoint() {
    let device = any_device();
    let stack = DecoderConfig::new(layer(NormPlacement::Pre), 3).init(&device).unwrap();
    let stack = load(stack, "decoder_stack.pt");
    let attention = MultiHeadAttentionConfig::new(24, 4).init(&device).unwrap();
    let options = LoadOptions::new().with_prefix("layers.1.multihead_attn.");
    let attention = pytorch::load(attention, fixture("decoder_stack.pt"), options).unwrap();
    let expected = stack.layers[1].cross_attention.as_ref().unwrap();
    assert_eq!(attention.value.weight.val().to_data(), expected.value.weight.val().to_data());
}

#[test]
fn what_does_not_fit_is_named() {
    let device = any_device();
    let file = fixture("decoder_layer_pre_relu.safetensors");
    let module = || layer(NormPlacement::Pre).init(&device).unwrap();
    let found = mismatch(pytorch::load(module(), &file, LoadOptions::new()));
    assert!(found.unused.contains(&"io.tgt".to_string()) && found.missing.is_empty());

    // Without a final norm here, PyTorch's is unused; with one there too many, it is missing.
    let stack = || DecoderConfig::new(layer(NormPlacement::Post), 3).init(&device).unwrap();
    let found = mismatch(pytorch::load(stack(), fixture("decoder_stack.pt"), LoadOptions::new()));
    assert_eq!(found.unused, ["norm.bias", "norm.weight"]);

    let options = LoadOptions::new().with_ignored(["io.", "grad.", "self_attn.in_proj_weight"]);
    assert_eq!(
        mismatch(pytorch::load(module(), &file, options)).missing,
        ["self_attn.in_proj_weight"]
    );

    let mut config = layer(NormPlacement::Pre);
    config.feed_forward = config.feed_forward.with_activation(Activation::SwiGlu);
    let options = LoadOptions::new().with_ignored(["io.", "grad."]);
    let found = mismatch(pytorch::load(config.init(&device).unwrap(), &file, options));
    assert_eq!(found.nameless, ["feed_forward.gate.weight", "feed_forward.gate.bias"]);

    // A bias of the query alone has no place in a packed bias.
    let attention =
        MultiHeadAttentionConfig::new(24, 4).with_key_bias(false).init(&device).unwrap();
    let out = tempfile::tempdir().unwrap();
    let found = mismatch(pytorch::save(&attention, out.path().join("x.safetensors")));
    assert_eq!(found.missing, ["in_proj_bias, of which there is only a part"]);
}

#[test]
fn broken_files() {
    let device = any_device();
    let out = tempfile::tempdir().unwrap();
    let load = |path: &Path, options| {
        let decoder = DecoderConfig::new(layer(NormPlacement::Pre), 3).init(&device).unwrap();
        pytorch::load(decoder, path, options)
    };
    let whole = std::fs::read(fixture("decoder_stack.pt")).unwrap();
    let broken = out.path().join("broken.pt");
    for length in [0, 1, 4, 1000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&broken, &whole[..length]).unwrap();
        let error = load(&broken, LoadOptions::new()).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{length} bytes: {error}");
    }
    for at in (0..whole.len()).step_by(whole.len() / 199) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&broken, damaged).unwrap();
        if let Err(error) = load(&broken, LoadOptions::new()) {
            assert!(matches!(error, Error::File { .. } | Error::Weights(_)), "byte {at}: {error}");
        }
    }
    let error = load(&out.path().join("none.pt"), LoadOptions::new()).unwrap_err();
    assert!(error.to_string().contains("none.pt: expected a PyTorch state dict"), "{error}");
    let error = load(&out.path().join("stack.h5"), LoadOptions::new()).unwrap_err();
    assert!(error.to_string().contains("ends with .safetensors, .pt"), "{error}");
    let options = LoadOptions::new().with_top_level_key("state_dict");
    let error = load(&fixture("decoder_stack.pt"), options).unwrap_err();
    assert!(matches!(error, Error::File { .. } | Error::Weights(_)), "{error}");
}
