//! A layer trained and a text generated with Burn's default features, fusion and autotune among them:
//! the numbers on a GPU are those of flex.
//!
//! `.ci/default_features` builds and runs it. With fusion, Burn's `Cube` backend is another type; with
//! autotune, its kernels are chosen by what was measured. The device is wgpu's software adapter, or
//! with `DEVICE=gpu` its best one.

use std::process::ExitCode;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, DeviceKind, Int, Tensor, TensorData};
use burn_decoder::attention::{Kernel, MultiHeadAttentionConfig, Request, RotaryConfig};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig,
};
use burn_decoder::generation::{Generation, GenerationConfig};
use burn_decoder::mask::Mask;
use burn_decoder::verify;

const VOCAB_SIZE: usize = 31;
const ROWS: usize = 3;
const LENGTH: usize = 41;
const STEPS: usize = 12;

/// Losses and logits of the same model on two devices, after as many steps: other orders of sums, and
/// approximate exponentials, through two layers and [`STEPS`] steps of AdamW.
const TOLERANCE: f64 = 2e-3;

/// What is compared.
struct Outcome {
    losses: Vec<f64>,
    logits: Vec<f64>,
    text: Vec<u32>,
}

fn config() -> LanguageModelConfig {
    let attention = MultiHeadAttentionConfig::new(48, 6)
        .with_kv_heads(Some(2))
        .with_rotary(Some(RotaryConfig::new()));
    let feed_forward = FeedForwardConfig::new(48, 67).with_activation(Activation::SwiGlu);
    let layer = DecoderLayerConfig::new(attention, feed_forward).with_norm(NormConfig::rms_norm());
    LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2))
        .with_positions(None)
        .with_mask(Mask::look_ahead() & Mask::window_keys(17).expect("a window"))
}

/// Rows that count in steps of their own, to be predicted.
fn ids(device: &Device, shift: usize) -> Tensor<2, Int> {
    let id = |row: usize, at: usize| ((row + 1) * (at + shift) % VOCAB_SIZE) as i64;
    let ids = (0..ROWS).flat_map(|row| (0..LENGTH).map(move |at| id(row, at)));
    Tensor::from_data(TensorData::new(ids.collect::<Vec<_>>(), [ROWS, LENGTH]), device)
}

fn run(mut model: LanguageModel, device: &Device, kernel: Kernel) -> Outcome {
    let training = device.clone().autodiff();
    let asked = || Request::new().with_kernel(kernel);
    let batch = || Batch::new().with_lengths([41, 37, 41]).asking(asked());
    let loss = CrossEntropyLossConfig::new().init(&training);
    let mut optimizer = AdamWConfig::new().init();
    let (mut losses, mut trained) = (Vec::new(), model.train());
    for _ in 0..STEPS {
        let logits = trained.forward(ids(&training, 0), batch()).expect("a forward pass").logits;
        let logits = logits.reshape([ROWS * LENGTH, VOCAB_SIZE]); // [rows * length, vocab_size]
        let targets = ids(&training, 1).reshape([ROWS * LENGTH]); // [rows * length]
        let step = loss.forward(logits, targets);
        let gradients = GradientsParams::from_grads(step.backward(), &trained);
        trained = optimizer.step(3e-3, trained, gradients);
        losses.push(step.into_scalar());
    }
    model = trained.valid();
    let logits = model.forward(ids(device, 0), batch()).expect("a forward pass").logits;
    let prompts = [vec![0, 1, 2, 3], vec![0, 2]];
    let generation = Generation::with_input(&model, &prompts, asked(), &GenerationConfig::new(24));
    let rows = generation.expect("a generation").finish().expect("a text");
    Outcome {
        losses,
        logits: logits.into_data().iter::<f64>().collect(),
        text: rows.into_iter().flat_map(|row| row.tokens).collect(),
    }
}

/// The largest difference over the largest value.
fn distance(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(0.0f64, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) })
    };
    let difference = largest(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
    difference / largest(&mut expected.iter().copied())
}

fn main() -> ExitCode {
    let kind = match std::env::var("DEVICE").as_deref() {
        Ok("gpu") => DeviceKind::DefaultDevice,
        _ => DeviceKind::Cpu,
    };
    let (flex, gpu) = (Device::flex(), Device::wgpu(kind));
    let folder = tempfile::tempdir().expect("a folder");
    let start = folder.path().join("start.bpk");
    config().init(&flex).expect("a model").save_file(&start).expect("a saved model");
    let model = |device: &Device| {
        let model = config().init(device).expect("a model");
        model.load_file(&start)
    };

    let expected = run(model(&flex), &flex, Kernel::Auto);
    let learned = expected.losses[STEPS - 1] < 0.9 * expected.losses[0];
    println!("flex: loss {:.4} to {:.4}", expected.losses[0], expected.losses[STEPS - 1]);
    let mut right = learned;
    for kernel in [Kernel::Auto, Kernel::Fused, Kernel::Reference] {
        let got = run(model(&gpu), &gpu, kernel);
        let losses = distance(&got.losses, &expected.losses);
        let logits = distance(&got.logits, &expected.logits);
        let text = got.text == expected.text;
        println!("{kernel:?}: losses {losses:.1e}, logits {logits:.1e}, the same text: {text}");
        right &= losses <= TOLERANCE && logits <= TOLERANCE && text;
    }
    let found = verify(&gpu);
    println!("{found}");
    right &= found.is_right();
    println!("{}", if right { "equal" } else { "NOT EQUAL" });
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
