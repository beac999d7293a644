//! Gradient checkpointing, as Burn offers it by device: the same gradients in less memory.
#![cfg(target_os = "linux")]

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
};
use burn_decoder::loss::CrossEntropyConfig;

use crate::backends::cpus;
use crate::peak;

const VOCAB: usize = 101;
const BATCH: usize = 4;
const QUERIES: usize = 256;
/// What a step of six layers holds less, at least, in bytes; 22 to 30 MB of 196 were measured.
const SPARED: usize = 16 << 20;

/// Some numbers of each gradient.
struct Samples<'a>(&'a GradientsParams, Vec<f64>);

impl ModuleVisitor for Samples<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.0.get::<D>(param.id).expect("a gradient for each parameter");
        self.1.extend(gradient.into_data().iter::<f64>().step_by(61));
    }
}

/// A training step of six layers.
fn step(device: &Device, checkpointing: bool) {
    device.seed(5);
    let plain = device.clone().autodiff();
    let device = if checkpointing { plain.clone().gradient_checkpointing() } else { plain };
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(256, 4),
        FeedForwardConfig::new(256, 1024).with_activation(Activation::SwiGlu),
    );
    let model =
        LanguageModelConfig::new(VOCAB, DecoderConfig::new(layer, 6)).init(&device).unwrap();
    let ids = |from: usize| {
        let ids = (0..BATCH * QUERIES).map(|i| ((i + from) * 37 % VOCAB) as i64).collect();
        Tensor::<2, Int>::from_data(TensorData::new(ids, [BATCH, QUERIES]), &device)
    };
    let cross_entropy = CrossEntropyConfig::new().init().unwrap();
    let run = || {
        let loss = model.loss(ids(0), Batch::new(), ids(1), &cross_entropy).unwrap();
        GradientsParams::from_grads(loss.backward(), &model)
    };
    peak::begin();
    let gradients = run();
    peak::end(|| {
        let mut samples = Samples(&gradients, vec![]);
        model.visit(&mut samples);
        samples.1
    });
}

/// Norms, activations and what Burn counts as cheap are computed again; the same arithmetic, the same
/// bits.
#[test]
fn a_step_with_checkpointing_holds_less_and_gives_the_same() {
    if let Some(case) = peak::case() {
        let (device, checkpointing) = case.split_once(' ').unwrap();
        return step(&cpus()[device.parse::<usize>().unwrap()], checkpointing == "true");
    }
    for device in 0..cpus().len() {
        let [plain, checkpointing] = [false, true].map(|checkpointing| {
            let test = "checkpointing::a_step_with_checkpointing_holds_less_and_gives_the_same";
            peak::measure(test, &format!("{device} {checkpointing}"))
        });
        println!("{device}: {} bytes, {} with checkpointing", plain.bytes, checkpointing.bytes);
        assert_eq!(plain.numbers, checkpointing.numbers);
        assert!(checkpointing.bytes + SPARED <= plain.bytes, "{}", checkpointing.bytes);
    }
}
