//! Phi 1, 1.5 and 2: attention and feed-forward side by side behind one norm, biases everywhere. Phi 3
//! and 4: Llama's layer, with query, key and value in one tensor, and gate and up in another.

use super::activation;
use super::common::{self, Sizes, rms_norm};
use super::description::Description;
use super::fields::Fields;
use super::rotary::{self, LegacyKeys};
use crate::Result;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    ResidualLayout,
};
use crate::import::form::{Form, Packed, Widths};
use crate::import::table::{Row, Table};

/// Where files have the rotary positions.
const ROTARY: LegacyKeys =
    LegacyKeys { part: Some("partial_rotary_factor"), default_part: 0.5, ..rotary::WHOLE_HEADS };

/// The sizes of Phi 1.
const SIZES: Sizes =
    Sizes { vocab_size: 51_200, d_model: 2048, d_ff: 8192, layers: 24, heads: 32, kv_heads: 32 };

/// `PhiForCausalLM`.
pub fn read(fields: &Fields) -> Result<Description> {
    fields.require("qk_layernorm", false)?;
    let sizes = SIZES.read_ungrouped(fields)?;
    let head_dim = fields.find_size("head_dim")?.unwrap_or(sizes.head_dim());
    let attention = sizes
        .grouped_heads(fields, head_dim)?
        .with_rotary(Some(rotary::read(fields, head_dim, &ROTARY)?));
    let feed_forward = FeedForwardConfig::new(sizes.d_model, sizes.d_ff)
        .with_activation(activation::plain(fields, "hidden_act", "gelu_new")?);
    let epsilon = fields.number_or("layer_norm_eps", 1e-5)?;
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(NormConfig::layer_norm().with_epsilon(epsilon))
        .with_residual_layout(ResidualLayout::ParallelSharedNorm)
        .with_dropout(fields.number_or("resid_pdrop", 0.0)?);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config =
        LanguageModelConfig::new(sizes.vocab_size, DecoderConfig::new(layer, sizes.layers))
            .with_positions(None)
            .with_scale_embedding(false)
            .with_tied_head(tied)
            .with_head_bias(true)
            .with_dropout(fields.number_or("embd_pdrop", 0.0)?);
    Ok(Description { config, table: table(tied) })
}

/// Where files of Phi 3 have the rotary positions. Heads are rotated whole, in Phi 4 mini in part.
const ROTARY_3: LegacyKeys = LegacyKeys {
    part: Some("partial_rotary_factor"),
    default_context: 4096,
    ..rotary::WHOLE_HEADS
};

/// The sizes of Phi 3 mini.
const SIZES_3: Sizes =
    Sizes { vocab_size: 32_064, d_model: 3072, d_ff: 8192, layers: 32, heads: 32, kv_heads: 32 };

/// `Phi3ForCausalLM`: a window in every layer, if there is one.
pub fn read_3(fields: &Fields) -> Result<Description> {
    fields.require("attention_bias", false)?;
    let sizes = SIZES_3.read_ungrouped(fields)?;
    let head_dim = fields.find_size("head_dim")?.unwrap_or(sizes.head_dim());
    let attention = sizes
        .grouped_heads(fields, head_dim)?
        .with_biases(false)
        .with_rotary(Some(rotary::read(fields, head_dim, &ROTARY_3)?));
    let layer = DecoderLayerConfig::new(attention, sizes.feed_forward(fields)?.with_biases(false))
        .with_norm(rms_norm(fields, 1e-5)?)
        .with_dropout(fields.number_or("resid_pdrop", 0.0)?);
    let windows = vec![fields.find_size("sliding_window")?];
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config = LanguageModelConfig::new(
        sizes.vocab_size,
        DecoderConfig::new(layer, sizes.layers).with_windows(windows),
    )
    .with_positions(None)
    .with_scale_embedding(false)
    .with_tied_head(tied);
    Ok(Description { config, table: table_3(&sizes, head_dim, tied) })
}

fn table_3(sizes: &Sizes, head_dim: usize, tied: bool) -> Table {
    let mut rows = packed_attention(sizes.heads * head_dim, sizes.kv_heads * head_dim);
    for (part, name) in ["gate", "up"].into_iter().enumerate() {
        let form = Packed { part, parts: 2, groups: 1, transposed: true, widths: None };
        let row = Row::packed(&format!("feed_forward.{name}"), "mlp.gate_up_proj", form);
        rows.push(row.inside("decoder.layers.*.", "model.layers.*."));
    }
    // Before Llama's names of the same parts: the first that fits counts.
    rows.extend(common::rows_with_norms(&[
        ("self_attention_norm", "input_layernorm"),
        ("feed_forward_norm", "post_attention_layernorm"),
    ]));
    common::table(rows, tied)
}

/// The rows of query, key and value in one tensor, one behind the other: so many outputs of the query,
/// and of key and value each.
pub fn packed_attention(query: usize, key: usize) -> Vec<Row> {
    let total = query + 2 * key;
    let parts = [("query", 0, query), ("key", query, key), ("value", query + key, key)];
    let row = |(part, (name, before, own)): (usize, (&str, usize, usize))| {
        let widths = Some(Widths { before, own, total });
        let form = Packed { part, parts: 3, groups: 1, transposed: true, widths };
        Row::packed(&format!("self_attention.{name}"), "self_attn.qkv_proj", form)
            .inside("decoder.layers.*.", "model.layers.*.")
    };
    parts.into_iter().enumerate().map(row).collect()
}

fn table(tied: bool) -> Table {
    let mut rows = vec![
        Row::embedding("embedding", "model.embed_tokens"),
        Row::norm("decoder.final_norm", "model.final_layernorm"),
        Row::linear("head", "lm_head"),
        // Of a tied head.
        Row::parameter("head_bias", "lm_head.bias", Form::Same),
    ];
    let parts = [
        Row::linear("self_attention.query", "self_attn.q_proj"),
        Row::linear("self_attention.key", "self_attn.k_proj"),
        Row::linear("self_attention.value", "self_attn.v_proj"),
        Row::linear("self_attention.output", "self_attn.dense"),
        Row::norm("self_attention_norm", "input_layernorm"),
        Row::linear("feed_forward.up", "mlp.fc1"),
        Row::linear("feed_forward.down", "mlp.fc2"),
    ];
    rows.extend(parts.map(|row| row.inside("decoder.layers.*.", "model.layers.*.")));
    common::table(rows, tied)
}
