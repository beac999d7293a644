//! burn-nn's decoder as this crate's: the same outputs from the same parameters.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::activation::ActivationConfig;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::{
    TransformerDecoder, TransformerDecoderConfig, TransformerDecoderInput,
};
use burn::tensor::{Device, Distribution, Tensor};
use burn_decoder::Error;
use burn_decoder::decoder::{Batch, Decoder, Request};
use burn_decoder::import::{LoadOptions, burn_nn};
use burn_decoder::mask::Mask;

use crate::backends::any_device;
use crate::fixtures::{OUTPUT, assert_close};

fn config(norm_first: bool, quiet: bool, activation: ActivationConfig) -> TransformerDecoderConfig {
    TransformerDecoderConfig::new(12, 29, 3, 2)
        .with_dropout(0.0)
        .with_norm_first(norm_first)
        .with_quiet_softmax(quiet)
        .with_activation(activation)
        .with_layer_norm_eps(1e-3)
}

/// Random parameters, those of the norms too: as they start, any norm could stand for another.
struct Randomize;

impl ModuleMapper for Randomize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let random = tensor.random_like(Distribution::Normal(0.0, 0.5));
        Param::from_mapped_value(id, random, mapper)
    }
}

fn random(config: &TransformerDecoderConfig, device: &Device) -> TransformerDecoder {
    config.init(device).map(&mut Randomize)
}

/// Both decoders on the same input, under a look-ahead mask and with a padded memory.
fn assert_same(theirs: &TransformerDecoder, ours: &Decoder, device: &Device, what: &str) {
    let tgt = Tensor::<3>::random([2, 5, 12], Distribution::Normal(0.0, 1.0), device);
    let memory = Tensor::<3>::random([2, 7, 12], Distribution::Normal(0.0, 1.0), device);
    let padding = Mask::lengths([7, 4]);
    let batch = Batch::new().with_memory(memory.clone(), padding);
    let got = ours.forward(tgt.clone(), &batch, &Request::new()).unwrap().output.into_data();

    let hidden = |row: usize, key: usize| row == 1 && key >= 4;
    let hidden: Vec<bool> = (0..2).flat_map(|b| (0..7).map(move |k| hidden(b, k))).collect();
    let hidden = burn::tensor::TensorData::new(hidden, [2, 7]);
    let input = TransformerDecoderInput::new(tgt, memory)
        .target_mask_attn(generate_autoregressive_mask(2, 5, device))
        .memory_mask_pad(Tensor::from_data(hidden, device));
    assert_close(what, got, theirs.forward(input).into_data(), OUTPUT.on(device));
}

on_each_backend! {
    fn outputs_match(device: Device) {
        for norm_first in [false, true] {
            for (quiet, activation) in [
                (false, ActivationConfig::Gelu),
                (true, ActivationConfig::Relu),
                (false, ActivationConfig::GeluApproximate),
            ] {
                let config = config(norm_first, quiet, activation);
                let theirs = random(&config, &device);
                let what = format!("norm_first {norm_first}, {:?}", config.activation);
                let ours = burn_nn::from_module(&theirs, &config, &device).unwrap();
                assert_same(&theirs, &ours, &device, &what);
            }
        }
    }

    fn records_are_read(device: Device) {
        let config = config(true, false, ActivationConfig::Gelu);
        let theirs = random(&config, &device);
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("decoder.bpk");
        theirs.clone().save_file(&path).unwrap();
        let ours = burn_nn::load(&path, &config, &device, LoadOptions::new()).unwrap();
        assert_same(&theirs, &ours, &device, "from a record");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = any_device();
    let small = config(true, false, ActivationConfig::Gelu);
    let module = random(&small, &device);
    let larger = small.clone().with_activation(ActivationConfig::Tanh);
    let error = burn_nn::decoder_config(&larger).unwrap_err();
    assert!(error.to_string().ends_with("Gelu, GeluApproximate or Relu, got Tanh"), "{error}");

    let mut larger = small.clone();
    larger.n_layers = 3;
    let error = burn_nn::from_module(&module, &larger, &device).unwrap_err();
    let Error::Weights(found) = error else { panic!("{error}") };
    assert_eq!(found.missing.len(), 26);

    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("broken.bpk");
    module.clone().save_file(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 10, whole.len() / 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = burn_nn::load(&path, &small, &device, LoadOptions::new()).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{length} bytes: {error}");
    }
}
