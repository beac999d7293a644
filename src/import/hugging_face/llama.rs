//! Llama and its near kin, which differ in biases, windows and norms of queries and keys: Mistral,
//! Qwen2, Qwen3.

use super::family::Description;
use super::fields::Fields;
use super::{activation, rotary, windows};
use crate::Result;
use crate::attention::{MultiHeadAttentionConfig, QkNormConfig};
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
};
use crate::import::table::{Row, Table};

/// `LlamaForCausalLM`: SmolLM, TinyLlama, Llama 1 to 3.
pub fn read(fields: &Fields) -> Result<Description> {
    fields.require("pretraining_tp", 1)?;
    fields.require("rope_interleaved", false)?;
    let attention = attention(fields)?.with_biases(fields.flag_or("attention_bias", false)?);
    let feed_forward = feed_forward(fields)?.with_biases(fields.flag_or("mlp_bias", false)?);
    model(fields, attention, feed_forward, Vec::new())
}

/// `MistralForCausalLM`: a window in every layer, unless it is null.
pub fn read_mistral(fields: &Fields) -> Result<Description> {
    let window = match fields.is_null("sliding_window") {
        true => None,
        false => Some(fields.size_or("sliding_window", 4096)?),
    };
    let attention = attention(fields)?.with_biases(false);
    model(fields, attention, feed_forward(fields)?.with_biases(false), vec![window])
}

/// `Qwen2ForCausalLM`: biases on query, key and value; a window from a layer on, if switched on.
pub fn read_qwen2(fields: &Fields) -> Result<Description> {
    let attention = attention(fields)?.with_output_bias(false);
    model(fields, attention, feed_forward(fields)?.with_biases(false), qwen_windows(fields)?)
}

/// `Qwen3ForCausalLM`: a norm on each head's queries and keys, and a width of heads of its own.
pub fn read_qwen3(fields: &Fields) -> Result<Description> {
    let head_dim = fields.size_or("head_dim", 128)?;
    let attention = attention_with(fields, head_dim)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_qk_norm(Some(QkNormConfig::new(norm(fields)?)));
    model(fields, attention, feed_forward(fields)?.with_biases(false), qwen_windows(fields)?)
}

fn qwen_windows(fields: &Fields) -> Result<Vec<Option<usize>>> {
    let first = match fields.get("max_window_layers").and_then(|value| value.as_u64()) {
        Some(first) => first as usize,
        None if fields.get("max_window_layers").is_none() => 28,
        None => return fields.refuse("max_window_layers", "a number of layers"),
    };
    let switched_on = fields.flag_or("use_sliding_window", false)?;
    let window = fields.size_or("sliding_window", 4096)?;
    let window = (switched_on && !fields.is_null("sliding_window")).then_some(window);
    windows::read(fields, fields.layers("num_hidden_layers")?, window, |layer| layer >= first)
}

/// RMSNorm with the file's ε.
pub fn norm(fields: &Fields) -> Result<NormConfig> {
    Ok(NormConfig::rms_norm().with_epsilon(fields.number_or("rms_norm_eps", 1e-6)?))
}

/// The width of a head where the file does not say it.
pub fn default_head_dim(fields: &Fields) -> Result<usize> {
    Ok(fields.size("hidden_size")? / fields.size("num_attention_heads")?)
}

/// Grouped heads with rotary positions.
fn attention(fields: &Fields) -> Result<MultiHeadAttentionConfig> {
    attention_with(fields, fields.size_or("head_dim", default_head_dim(fields)?)?)
}

fn attention_with(fields: &Fields, head_dim: usize) -> Result<MultiHeadAttentionConfig> {
    let rotary = rotary::read(fields, head_dim, &rotary::WHOLE_HEADS)?;
    Ok(grouped_heads(fields, head_dim)?.with_rotary(Some(rotary)))
}

/// Heads in the groups that the file says.
pub fn grouped_heads(fields: &Fields, head_dim: usize) -> Result<MultiHeadAttentionConfig> {
    let heads = fields.size("num_attention_heads")?;
    Ok(MultiHeadAttentionConfig::new(fields.size("hidden_size")?, heads)
        .with_kv_heads(Some(fields.size_or("num_key_value_heads", heads)?))
        .with_head_dim(Some(head_dim))
        .with_dropout(fields.number_or("attention_dropout", 0.0)?))
}

/// SwiGLU.
pub fn feed_forward(fields: &Fields) -> Result<FeedForwardConfig> {
    let (d_model, d_ff) = (fields.size("hidden_size")?, fields.size("intermediate_size")?);
    let activation = activation::gated(fields, "hidden_act", "silu")?;
    Ok(FeedForwardConfig::new(d_model, d_ff).with_activation(activation))
}

fn model(
    fields: &Fields,
    attention: MultiHeadAttentionConfig,
    feed_forward: FeedForwardConfig,
    windows: Vec<Option<usize>>,
) -> Result<Description> {
    let layer = DecoderLayerConfig::new(attention, feed_forward).with_norm(norm(fields)?);
    let decoder =
        DecoderConfig::new(layer, fields.layers("num_hidden_layers")?).with_windows(windows);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config = LanguageModelConfig::new(fields.size("vocab_size")?, decoder)
        .with_positions(None)
        .with_scale_embedding(false)
        .with_tied_head(tied);
    let mut rows = rows();
    rows.push(Row::norm("decoder.layers.*.self_attention_norm", "model.layers.*.input_layernorm"));
    rows.push(Row::norm(
        "decoder.layers.*.feed_forward_norm",
        "model.layers.*.post_attention_layernorm",
    ));
    Ok(Description { config, table: table(rows, tied) })
}

/// The names of all but the layers' norms, which each family has its own way.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::embedding("embedding", "model.embed_tokens"),
        Row::norm("decoder.final_norm", "model.norm"),
        Row::linear("head", "lm_head"),
    ];
    let attention =
        [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj")];
    rows.extend(attention.map(|(ours, theirs)| {
        Row::linear(ours, theirs)
            .inside("decoder.layers.*.self_attention.", "model.layers.*.self_attn.")
    }));
    let norms = [("query_norm", "q_norm"), ("key_norm", "k_norm")];
    rows.extend(norms.map(|(ours, theirs)| {
        Row::norm(ours, theirs)
            .inside("decoder.layers.*.self_attention.", "model.layers.*.self_attn.")
    }));
    let feed_forward = [("up", "up_proj"), ("gate", "gate_proj"), ("down", "down_proj")];
    rows.extend(feed_forward.map(|(ours, theirs)| {
        Row::linear(ours, theirs).inside("decoder.layers.*.feed_forward.", "model.layers.*.mlp.")
    }));
    rows
}

/// The table of these rows.
pub fn table(rows: Vec<Row>, tied: bool) -> Table {
    let table = Table::new(rows).with_skipped(&["*.rotary_emb.inv_freq"]).with_base("model.");
    if tied { table.with_copies("model.embed_tokens.weight", &["lm_head.weight"]) } else { table }
}
