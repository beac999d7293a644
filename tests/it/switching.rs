//! One model on every backend: built on a CPU, saved, loaded and run on the others.

use burn::module::Module;
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::{ModuleSnapshot, bridge};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig, NormPlacement, PositionEmbeddingConfig, Positions,
};
use burn_decoder::mask::Mask;

use crate::backends::any_device;
use crate::fixtures::{Tolerance, assert_close};

/// The same logits on every backend, wgpu included.
const LOGITS: Tolerance = Tolerance { absolute: 1e-4, relative: 0.0 };

/// The same parameters after one training step.
const PARAMETERS: Tolerance = Tolerance { absolute: 1e-3, relative: 0.0 };

/// Every module at least once: both norms and placements, a gate, grouped heads, cross-attention.
fn configs() -> [LanguageModelConfig; 2] {
    let attention = MultiHeadAttentionConfig::new(24, 6);
    let gated = FeedForwardConfig::new(24, 29).with_activation(Activation::SwiGlu);
    let modern = DecoderLayerConfig::new(attention.clone().with_kv_heads(Some(2)), gated)
        .with_norm(NormConfig::rms_norm());
    let classic = DecoderLayerConfig::new(attention.clone(), FeedForwardConfig::new(24, 29))
        .with_cross_attention(Some(attention))
        .with_norm_placement(NormPlacement::Post);
    [
        LanguageModelConfig::new(17, DecoderConfig::new(modern, 2))
            .with_tied_head(true)
            .with_positions(Some(PositionEmbeddingConfig::learned(7))),
        LanguageModelConfig::new(17, DecoderConfig::new(classic, 2)),
    ]
}

/// Logits of a batch of two rows, the second padded, on the model's own device.
fn logits(model: &LanguageModel, device: &Device) -> Tensor<3> {
    let ids = |ids: [[i64; 7]; 2]| Tensor::<2, Int>::from_data(TensorData::from(ids), device);
    let tokens = ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 0, 0, 0]]);
    let mut input = Batch::new().with_lengths([7, 4]);
    if model.decoder.layers[0].cross_attention.is_some() {
        let source = ids([[2, 7, 1, 8, 2, 8, 1], [16, 0, 11, 0, 0, 0, 0]]);
        let memory = model.embed(source, &Positions::Index).unwrap();
        input = input.with_memory(memory, Mask::lengths([7, 3]));
    }
    model.forward(tokens, input).unwrap().logits
}

/// All parameters after one step of gradient descent. Plain descent, since Adam's first step is the
/// sign of a gradient, and that of a gradient that is 0 but for rounding (the key bias) is chance.
fn trained(model: LanguageModel, device: &Device) -> Vec<(String, TensorData)> {
    let device = device.clone().autodiff();
    let model = model.train();
    let targets: Vec<i64> = (0..14).map(|i| i * 5 % 17).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [14]), &device);
    let logits = logits(&model, &device).reshape([14, 17]);
    let loss = burn::nn::loss::CrossEntropyLossConfig::new().init(&device).forward(logits, targets);
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = SgdConfig::new().init().step(0.1, model, gradients);
    parameters(&model)
}

fn parameters(model: &LanguageModel) -> Vec<(String, TensorData)> {
    model
        .collect(None, None, false)
        .into_iter()
        .map(|tensor| (tensor.name.clone(), bridge::into_data(tensor).unwrap()))
        .collect()
}

on_each_backend! {
    fn a_model_is_the_same_here_as_there(device: Device) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.bpk");
        let there = any_device();
        for config in configs() {
            let model = config.init(&there).unwrap();
            model.clone().save_file(&file).unwrap();
            let expected = logits(&model, &there).into_data();
            let start = parameters(&model);
            let expected_trained = trained(model, &there);
            for (before, after) in start.iter().zip(&expected_trained) {
                // A key bias adds the same to all scores of a query, which the softmax ignores.
                let moves = !before.0.ends_with("key.bias");
                assert!(!moves || before.1 != after.1, "the step moves {}", before.0);
            }

            let model = config.init(&device).unwrap().load_file(&file);
            assert_close("logits", logits(&model, &device).into_data(), expected, LOGITS);
            let got_trained = trained(model, &device);
            assert_eq!(got_trained.len(), expected_trained.len());
            for (got, expected) in got_trained.into_iter().zip(expected_trained) {
                assert_eq!(got.0, expected.0);
                assert_close(&format!("{} after a step", got.0), got.1, expected.1, PARAMETERS);
            }
        }
    }
}
