//! bunsen 0.41: its nanochat, its Qwen3 and Whisper's decoder, small and untrained.

use bunsen::blocks::transformers::embedding::RotaryEmbedding;
use bunsen::burner::module::ModuleInit;
use bunsen::kits::gpts::nanochat::blocks::{NanoChatGpt, NanoChatGptContractConfig};
use bunsen::kits::gpts::qwen3::blocks::{Qwen3Config, Qwen3Model};
use bunsen::kits::speech::parakeet::blocks::{TdtPredictionNetwork, TdtPredictionNetworkConfig};
use bunsen::kits::speech::whisper::blocks::TextDecoderConfig;
use bunsen::ops::transformers::attention::KVCacheModel;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_decoder::causality::{CausalityCheck, Report};

use crate::{Finding, RIGHT};

const IDS: usize = 23;
const LENGTH: usize = 12;
const BATCH: usize = 8;

/// Feeds the positions in pieces of these sizes.
const PIECES: [usize; 5] = [3, 1, 4, 1, 3];

pub const FINDINGS: &[Finding] = &[
    Finding { name: "bunsen NanoChatGpt, its cache in pieces", says: RIGHT, check: nanochat },
    Finding { name: "bunsen Qwen3Model, its cache in pieces", says: RIGHT, check: qwen3 },
    Finding { name: "bunsen Qwen3Model, its attention weights", says: RIGHT, check: qwen3_weights },
    Finding {
        name: "bunsen Whisper TextDecoder, its cache in pieces",
        says: RIGHT,
        check: whisper,
    },
    Finding {
        name: "bunsen TdtPredictionNetwork and its steps",
        says: RIGHT,
        check: prediction_network,
    },
];

/// `of(start, length)` for each piece, put together.
fn in_pieces(mut of: impl FnMut(usize, usize) -> Tensor<3>) -> Tensor<3> {
    let mut start = 0;
    let outputs = PIECES.map(|length| {
        let output = of(start, length);
        start += length;
        output
    });
    Tensor::cat(outputs.to_vec(), 1)
}

fn nanochat(device: &Device) -> Report {
    let config = NanoChatGptContractConfig::new()
        .with_vocab_size(IDS)
        .with_n_layer(2)
        .with_n_head(4)
        .with_n_kv_head(2)
        .with_n_embed(32)
        .with_init_seq_len(16);
    let model: NanoChatGpt = config.init(device);
    let forward = |model: &NanoChatGpt, tokens: Tensor<2, Int>| model.forward(tokens, &mut None);
    CausalityCheck::tokens(IDS, LENGTH, device, |tokens| forward(&model, tokens))
        .with_cached(|tokens| {
            let mut cache = model.new_kv_cache(tokens.dims()[0]);
            in_pieces(|start, length| {
                model.forward(tokens.clone().narrow(1, start, length), &mut Some(&mut cache))
            })
        })
        .with_prefixes()
        .with_module(&model, forward)
        .run()
        .expect("the model can be checked")
}

fn qwen(device: &Device) -> (Qwen3Model, RotaryEmbedding) {
    let model: Qwen3Model = Qwen3Config::new(IDS, 32, 2, 4, 2, 8, 48).init(device);
    let rotary = model.rotary(LENGTH, device);
    (model, rotary)
}

fn qwen3(device: &Device) -> Report {
    let (model, rotary) = qwen(device);
    let forward = |model: &Qwen3Model, x: Tensor<3>| model.forward_hidden(x, &rotary, None);
    CausalityCheck::embeddings(32, LENGTH, device, |x| forward(&model, x))
        .with_cached(|x| {
            let mut cache = model.new_kv_cache(x.dims()[0]);
            in_pieces(|start, length| {
                model.forward_hidden(x.clone().narrow(1, start, length), &rotary, Some(&mut cache))
            })
        })
        .with_prefixes()
        .run()
        .expect("the model can be checked")
}

fn qwen3_weights(device: &Device) -> Report {
    let (model, rotary) = qwen(device);
    CausalityCheck::tokens(IDS, LENGTH, device, |tokens| {
        model.logits(model.forward_hidden(model.embed(tokens), &rotary, None))
    })
    .with_weights(|tokens| {
        let x = model.embed(tokens);
        let weights = model.attention_weights(x.clone(), &rotary, &[0, 1], 0..LENGTH, 0..LENGTH);
        (model.logits(model.forward_hidden(x, &rotary, None)), Tensor::cat(weights, 1))
    })
    .run()
    .expect("the model can be checked")
}

fn whisper(device: &Device) -> Report {
    let decoder = TextDecoderConfig::new(IDS, 32, 16, 2).with_d_head(8).init(device);
    let memory = Tensor::<3>::random([1, 5, 32], Distribution::Default, device);
    let memory = memory.expand([BATCH, 5, 32]);
    CausalityCheck::tokens(IDS, LENGTH, device, |tokens| {
        let memory = memory.clone().narrow(0, 0, tokens.dims()[0]);
        decoder.forward(tokens, memory)
    })
    .with_cached(|tokens| {
        let mut cache = decoder.new_cache(memory.clone());
        in_pieces(|start, length| {
            decoder.forward_cached(tokens.clone().narrow(1, start, length), &mut cache)
        })
    })
    .with_prefixes()
    .run()
    .expect("the model can be checked")
}

/// Its steps take one token of each row, without an axis for it.
fn prediction_network(device: &Device) -> Report {
    let model: TdtPredictionNetwork = TdtPredictionNetworkConfig::new(IDS, 16).init(device);
    CausalityCheck::tokens(IDS, LENGTH, device, |tokens| model.forward(tokens))
        .with_steps(
            || None,
            |state, token| {
                let [batch, _] = token.dims();
                let before = state.take().unwrap_or_else(|| model.new_state(batch, device));
                let (output, after) = model.step(token.reshape([batch]), before);
                *state = Some(after);
                output.unsqueeze_dim(1)
            },
        )
        .with_prefixes()
        .with_module(&model, |model, tokens| model.forward(tokens))
        .run()
        .expect("the model can be checked")
}
