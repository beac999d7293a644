//! Tokens a second of cached generation, beside burn-nn's cached decoding of the same size.
//!
//! 4 layers, d_model 256, d_ff 1024, 8 heads, random weights, on every CPU backend compiled in, and on
//! the GPUs that are named:
//!
//! - `burn-nn`: its `TransformerDecoder` with its cache, and a memory of one token, since it can't do
//!   without; no embedding, no head. Up to 512 tokens: its time per token grows with the square of
//!   the length.
//! - `decoder`: this crate's layers of the same make, with the same cross-attention, and an
//!   embedding, a head over 1,024 tokens and the greedy choice on top.
//! - `llama`: layers as Llama's, rotary positions too, for benches/generation.py, which runs the same
//!   in PyTorch.
//!
//! - `small`: of the size of SmolLM2-135M: 30 layers, d_model 576, d_ff 1536, 9 heads on 3, a tied head
//!   over 49,152 tokens. Only where it is named.
//!
//! This crate's each twice on a CPU: as it is, and with threads that stay awake (`Threads::Spinning`).
//!
//! `cargo bench -p benches --features flex --bench generation`; the name of a model or of a backend after
//! `--` runs it alone.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::io::Write;
use std::time::Instant;

use benches::{adapter, device, is_gpu};
use burn::nn::transformer::{TransformerDecoderConfig, TransformerDecoderInput};
use burn::tensor::{Device, Tensor};
use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig,
};
use burn_decoder::generation::{Generation, GenerationConfig, Threads};
use burn_decoder::mask::Mask;

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LAYERS: usize = 4;
const D_MODEL: usize = 256;
const D_FF: usize = 1024;
const HEADS: usize = 8;
const VOCAB_SIZE: usize = 1024;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let models: Vec<&String> = only.iter().filter(|name| device(name).is_none()).collect();
    let wanted = |name: &str| models.is_empty() || models.iter().any(|only| *only == name);
    let named = |name: &str| only.iter().any(|only| only == name);
    let mut backends = benches::wanted(&only);
    if backends.iter().any(|name| named(name)) {
        backends.retain(|name| named(name));
    }
    for backend in backends {
        let device = device(backend).expect("a backend that is compiled in");
        let policies: &[Threads] = match is_gpu(backend) {
            true => &[Threads::Global],
            false => &[Threads::Global, Threads::Spinning(7)],
        };
        if is_gpu(backend) {
            println!("{backend}: {}", adapter(&device));
        }
        let say = |model: &str, batch: usize, tokens: usize, seconds: f64| {
            let rate = (batch * tokens) as f64 / seconds;
            let line = format!(
                "{backend:8} {model:17} batch {batch:2}, {tokens:4} tokens: {rate:8.1} tokens/s"
            );
            if writeln!(std::io::stdout(), "{line}").is_err() {
                std::process::exit(0); // nobody reads any more
            }
        };
        for name in ["decoder", "llama", "small"] {
            if !wanted(name) || (name == "small" && !named(name)) {
                continue;
            }
            let model = language_model(name, &device);
            generate(&model, 1, 8, Threads::Global);
            for (batch, tokens) in [(1, 64), (1, 512), (1, 2048), (16, 64)] {
                for &threads in policies {
                    let repeats = if tokens > 512 { 1 } else { 3 };
                    let runs = (0..repeats).map(|_| generate(&model, batch, tokens, threads));
                    let policy = if threads == Threads::Global { "" } else { ", spinning" };
                    let name = format!("{name}{policy}");
                    say(&name, batch, tokens, runs.fold(f64::INFINITY, f64::min));
                }
            }
        }
        if wanted("burn-nn") {
            for tokens in [64, 512] {
                say("burn-nn", 1, tokens, burn_nn(tokens, &device));
            }
        }
    }
}

fn language_model(name: &str, device: &Device) -> LanguageModel {
    if name == "small" {
        return small(device);
    }
    let cross_attention = name == "decoder";
    let attention = MultiHeadAttentionConfig::new(D_MODEL, HEADS);
    let feed_forward = FeedForwardConfig::new(D_MODEL, D_FF);
    let layer = if cross_attention {
        DecoderLayerConfig::new(attention.clone(), feed_forward)
            .with_cross_attention(Some(attention))
    } else {
        let feed_forward = feed_forward.with_activation(Activation::SwiGlu).with_biases(false);
        let attention = attention.with_biases(false).with_rotary(Some(RotaryConfig::new()));
        DecoderLayerConfig::new(attention, feed_forward).with_norm(NormConfig::rms_norm())
    };
    let mut config = LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, LAYERS));
    if !cross_attention {
        config = config.with_positions(None).with_scale_embedding(false);
    }
    config.init(device).expect("a valid configuration")
}

fn small(device: &Device) -> LanguageModel {
    let attention = MultiHeadAttentionConfig::new(576, 9)
        .with_kv_heads(Some(3))
        .with_biases(false)
        .with_rotary(Some(RotaryConfig::new()));
    let feed_forward =
        FeedForwardConfig::new(576, 1536).with_activation(Activation::SwiGlu).with_biases(false);
    let layer = DecoderLayerConfig::new(attention, feed_forward).with_norm(NormConfig::rms_norm());
    LanguageModelConfig::new(49_152, DecoderConfig::new(layer, 30))
        .with_tied_head(true)
        .with_positions(None)
        .with_scale_embedding(false)
        .init(device)
        .expect("a valid configuration")
}

/// Seconds for `tokens` tokens behind prompts of one token.
fn generate(model: &LanguageModel, batch: usize, tokens: usize, threads: Threads) -> f64 {
    let device = model.embedding.weight.device();
    let mut input = Batch::new();
    if model.decoder.layers[0].cross_attention.is_some() {
        input = input.with_memory(Tensor::ones([batch, 1, D_MODEL], &device), Mask::all_visible());
    }
    let prompts: Vec<_> = (0..batch as u32).map(|row| vec![row + 1]).collect();
    let config = GenerationConfig::new(tokens).with_threads(threads);
    let start = Instant::now();
    let generation = Generation::with_input(model, &prompts, input, &config);
    let all = generation.expect("prompts").finish().expect("generation");
    assert!(all.iter().all(|row| row.tokens.len() == tokens));
    device.sync().expect("the device has done its work");
    start.elapsed().as_secs_f64()
}

/// The same with burn-nn: the whole past goes in, the last token's output is appended.
fn burn_nn(tokens: usize, device: &Device) -> f64 {
    let config = TransformerDecoderConfig::new(D_MODEL, D_FF, HEADS, LAYERS)
        .with_dropout(0.0)
        .with_norm_first(true);
    let model = config.init(device);
    let memory = Tensor::<3>::ones([1, 1, D_MODEL], device);
    let mut cache = model.new_autoregressive_cache();
    let mut all = Tensor::<3>::ones([1, 1, D_MODEL], device);
    let start = Instant::now();
    for length in 1..=tokens {
        let input = TransformerDecoderInput::new(all.clone(), memory.clone());
        let output = model.forward_autoregressive_inference(input, &mut cache);
        let last = output.narrow(1, length - 1, 1);
        // The result is needed before the next step, as it is in a generator.
        let sum: f32 = last.clone().sum().into_scalar();
        assert!(sum.is_finite());
        all = Tensor::cat(vec![all, last], 1);
    }
    start.elapsed().as_secs_f64()
}
