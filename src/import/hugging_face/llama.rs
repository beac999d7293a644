//! Llama and its near kin, which differ in biases, windows and norms of queries and keys: Mistral,
//! Qwen2, Qwen3.

use super::common::{self, Sizes, rms_norm};
use super::description::Description;
use super::fields::Fields;
use super::rotary::{self, LegacyKeys};
use super::windows;
use crate::Result;
use crate::attention::{MultiHeadAttentionConfig, QkNormConfig};
use crate::decoder::{DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig};

/// The sizes of Llama 7B.
const LLAMA: Sizes =
    Sizes { vocab_size: 32_000, d_model: 4096, d_ff: 11_008, layers: 32, heads: 32, kv_heads: 32 };

/// Those of Mistral 7B.
const MISTRAL: Sizes = Sizes { d_ff: 14_336, kv_heads: 8, ..LLAMA };

/// Those of a file of Qwen2 or Qwen3 that says nothing.
const QWEN: Sizes = Sizes { vocab_size: 151_936, d_ff: 22_016, ..LLAMA };

/// ε of all these norms, in a file without it.
const EPSILON: f64 = 1e-6;

/// `LlamaForCausalLM`: SmolLM, TinyLlama, Llama 1 to 3.
pub fn read(fields: &Fields) -> Result<Description> {
    fields.require("rope_interleaved", false)?;
    let sizes = LLAMA.read_ungrouped(fields)?;
    let attention =
        attention(fields, &sizes, 2048)?.with_biases(fields.flag_or("attention_bias", false)?);
    let feed_forward = sizes.feed_forward(fields)?.with_biases(fields.flag_or("mlp_bias", false)?);
    model(fields, &sizes, attention, feed_forward, Vec::new())
}

/// `MistralForCausalLM`: a window in every layer, unless it is null.
pub fn read_mistral(fields: &Fields) -> Result<Description> {
    let sizes = MISTRAL.read(fields)?;
    let window = fields.find_size_or("sliding_window", 4096)?;
    let attention = attention(fields, &sizes, 4096 * 32)?.with_biases(false);
    let feed_forward = sizes.feed_forward(fields)?.with_biases(false);
    model(fields, &sizes, attention, feed_forward, vec![window])
}

/// `Qwen2ForCausalLM`: biases on query, key and value; a window from a layer on, if switched on.
pub fn read_qwen2(fields: &Fields) -> Result<Description> {
    let sizes = QWEN.read(fields)?;
    let attention = attention(fields, &sizes, 32_768)?.with_output_bias(false);
    let feed_forward = sizes.feed_forward(fields)?.with_biases(false);
    model(fields, &sizes, attention, feed_forward, qwen_windows(fields, &sizes)?)
}

/// `Qwen3ForCausalLM`: a norm on each head's queries and keys, and a width of heads of its own.
pub fn read_qwen3(fields: &Fields) -> Result<Description> {
    let sizes = QWEN.read(fields)?;
    let head_dim = fields.find_size("head_dim")?.unwrap_or(128);
    let attention = attention_with(fields, &sizes, head_dim, 32_768)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_qk_norm(Some(QkNormConfig::new(rms_norm(fields, EPSILON)?)));
    let feed_forward = sizes.feed_forward(fields)?.with_biases(false);
    model(fields, &sizes, attention, feed_forward, qwen_windows(fields, &sizes)?)
}

fn qwen_windows(fields: &Fields, sizes: &Sizes) -> Result<Vec<Option<usize>>> {
    if !fields.flag_or("use_sliding_window", false)? {
        // What the window would be does not matter.
        return windows::read(fields, sizes.layers, None, |_| false);
    }
    let first = match fields.get("max_window_layers").and_then(|value| value.as_u64()) {
        Some(first) => first as usize,
        None if fields.get("max_window_layers").is_none() => 28,
        None => return fields.refuse("max_window_layers", "a number of layers"),
    };
    let window = fields.find_size_or("sliding_window", 4096)?;
    windows::read(fields, sizes.layers, window, |layer| layer >= first)
}

/// Grouped heads with rotary positions, trained for `context` tokens unless the file says more.
fn attention(fields: &Fields, sizes: &Sizes, context: usize) -> Result<MultiHeadAttentionConfig> {
    let head_dim = fields.find_size("head_dim")?.unwrap_or(sizes.head_dim());
    attention_with(fields, sizes, head_dim, context)
}

fn attention_with(
    fields: &Fields,
    sizes: &Sizes,
    head_dim: usize,
    context: usize,
) -> Result<MultiHeadAttentionConfig> {
    let keys = LegacyKeys { default_context: context, ..rotary::WHOLE_HEADS };
    let rotary = rotary::read(fields, head_dim, &keys)?;
    Ok(sizes.grouped_heads(fields, head_dim)?.with_rotary(Some(rotary)))
}

fn model(
    fields: &Fields,
    sizes: &Sizes,
    attention: MultiHeadAttentionConfig,
    feed_forward: FeedForwardConfig,
    windows: Vec<Option<usize>>,
) -> Result<Description> {
    let layer =
        DecoderLayerConfig::new(attention, feed_forward).with_norm(rms_norm(fields, EPSILON)?);
    let decoder = DecoderConfig::new(layer, sizes.layers).with_windows(windows);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config = LanguageModelConfig::new(sizes.vocab_size, decoder)
        .with_positions(None)
        .with_scale_embedding(false)
        .with_tied_head(tied);
    let rows = common::rows_with_norms(&[
        ("self_attention_norm", "input_layernorm"),
        ("feed_forward_norm", "post_attention_layernorm"),
    ]);
    Ok(Description { config, table: common::table(rows, tied) })
}
