//! What a cache takes at a long context, in each precision: bytes, and tokens a second.
//!
//! Layers as Llama's, 4 of them, d_model 256, 8 heads, random weights, one row: a prompt in one pass,
//! then 48 tokens, each in a pass of its own. The median of those is told, since a pass now and then
//! finds the machine busy. On every CPU backend compiled in. Then, on flex, attention of 8 heads x 64 by
//! itself over tensors in half precision: read a tile at a time, and beside it with all of them
//! converted before.
//!
//! `cargo bench -p benches --features flex --bench cache`; lengths other than 4,096 and 16,384 after `--`.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use burn_decoder::attention::{
    MultiHeadAttentionConfig, Request, RotaryConfig, Score, scaled_dot_product_attention,
};
use burn_decoder::cache::{CacheConfig, CachePrecision};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig,
};
use burn_decoder::generation::Threads;
use burn_decoder::mask::{Grid, Mask};

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
    #[cfg(feature = "flex")]
    attention(&Device::flex());
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

/// Milliseconds of the forward pass over tensors of half precision, causal.
#[cfg(feature = "flex")]
fn attention(device: &Device) {
    for [queries, keys] in [[1, 4096], [1, 16384], [512, 512], [2048, 2048]] {
        let grid = Grid::bottom_right(1, queries, keys);
        let mask = Mask::look_ahead().lower(&grid).expect("a mask");
        let random = |rows| Tensor::<4>::random([1, 8, rows, 64], Distribution::Default, device);
        let inputs = [random(queries), random(keys), random(keys)];
        let time = |run: &dyn Fn([Tensor<4>; 3]) -> Tensor<4>, inputs: &[Tensor<4>; 3]| {
            let time = || {
                let start = Instant::now();
                std::hint::black_box(run(inputs.clone()));
                start.elapsed().as_secs_f64() * 1e3
            };
            let mut times: Vec<f64> = (0..21).map(|_| time()).collect();
            times.sort_by(f64::total_cmp);
            times[10]
        };
        let attend = |[q, k, v]: [Tensor<4>; 3]| {
            scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &Request::new()).output
        };
        let line = |name: &str, [tiles, whole]: [f64; 2]| {
            println!(
                "attention {queries:5} x {keys:5} {name:5}: {tiles:8.3} ms, converted before {whole:8.3} ms"
            );
        };
        line("F32", [time(&attend, &inputs); 2]);
        for dtype in [DType::BF16, DType::F16] {
            let half = inputs.each_ref().map(|tensor| tensor.clone().cast(dtype));
            let converted = |half: [Tensor<4>; 3]| {
                attend(half.map(|tensor| tensor.cast(DType::F32))).cast(dtype)
            };
            line(&format!("{dtype:?}"), [time(&attend, &half), time(&converted, &half)]);
        }
    }
}
