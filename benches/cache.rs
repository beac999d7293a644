//! What a cache takes at a long context, in each precision: bytes, and tokens a second.
//!
//! Layers as Llama's, 4 of them, d_model 256, 8 heads, random weights, one row: a prompt in one pass,
//! then 48 tokens, each in a pass of its own. The median of those is told, since a pass now and then
//! finds the machine busy. On every CPU backend compiled in.
//!
//! `cargo bench -p benches --features flex --bench cache`; lengths other than 4,096 and 16,384 after `--`.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig};
use burn_decoder::cache::{CacheConfig, CachePrecision};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig, Request,
};
use burn_decoder::generation::Threads;

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VOCAB_SIZE: usize = 1024;
const STEPS: usize = 48;
const PRECISIONS: [CachePrecision; 4] =
    [CachePrecision::AsComputed, CachePrecision::Bf16, CachePrecision::F16, CachePrecision::Q8_0];

/// A backend's name and how to get its device.
type Backend = (&'static str, fn() -> Device);

fn main() {
    let lengths = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let mut lengths: Vec<usize> = lengths.collect();
    if lengths.is_empty() {
        lengths = vec![4096, 16384];
    }
    let devices: &[Backend] = &[
        #[cfg(feature = "flex")]
        ("flex", Device::flex),
        #[cfg(feature = "ndarray")]
        ("ndarray", Device::ndarray),
    ];
    for (backend, device) in devices {
        let model = model(&device());
        for &length in &lengths {
            for precision in PRECISIONS {
                let (bytes, prefill, decode) = measure(&model, length, precision);
                println!(
                    "{backend:8} {length:6} tokens, {:10}: {:7.2} MiB, prefill {prefill:8.0}, decode \
                     {decode:7.1} tokens/s",
                    format!("{precision:?}"),
                    bytes as f64 / (1 << 20) as f64,
                );
            }
        }
    }
}

fn model(device: &Device) -> LanguageModel {
    let attention = MultiHeadAttentionConfig::new(256, 8)
        .with_biases(false)
        .with_rotary(Some(RotaryConfig::new()));
    let feed_forward =
        FeedForwardConfig::new(256, 1024).with_activation(Activation::SwiGlu).with_biases(false);
    let layer = DecoderLayerConfig::new(attention, feed_forward).with_norm(NormConfig::rms_norm());
    LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 4))
        .with_positions(None)
        .with_scale_embedding(false)
        .init(device)
        .expect("a valid configuration")
}

/// The cache's bytes, and tokens a second of the prompt and behind it.
fn measure(model: &LanguageModel, length: usize, precision: CachePrecision) -> (usize, f64, f64) {
    let device = model.embedding.weight.device();
    let config = CacheConfig::fixed(length + STEPS).with_precision(precision);
    let mut cache = config.init().expect("room");
    let mut pass = |tokens: Vec<i64>| {
        let shape = [1, tokens.len()];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &device);
        let input = Batch::new().asking(Request::new().with_last_logits_only());
        let start = Instant::now();
        let output = model.forward_cached(tokens, input, &mut cache).expect("a pass");
        let next: i64 = output.logits.argmax(2).into_scalar();
        (next, start.elapsed().as_secs_f64())
    };
    let (mut token, prompt) = pass((0..length as i64).map(|i| i * i % 1021).collect());
    let mut times = Threads::Spinning(7).run(|| {
        let step = |_| {
            let (next, time) = pass(vec![token]);
            token = next;
            time
        };
        (0..STEPS).map(step).collect::<Vec<_>>()
    });
    times.sort_by(f64::total_cmp);
    (cache.bytes(), length as f64 / prompt, 1.0 / times[STEPS / 2])
}
