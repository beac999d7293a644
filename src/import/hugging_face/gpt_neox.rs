//! GPT-NeoX: attention and feed-forward side by side, each with a norm; query, key and value head by
//! head in one tensor.

use super::activation;
use super::common::Sizes;
use super::description::Description;
use super::fields::Fields;
use super::rotary::{self, LegacyKeys};
use crate::Result;
use crate::attention::MultiHeadAttentionConfig;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    ResidualLayout,
};
use crate::import::form::Packed;
use crate::import::table::{Row, Table};

/// Where files have the rotary positions.
const ROTARY: LegacyKeys = LegacyKeys {
    base: "rotary_emb_base",
    part: Some("rotary_pct"),
    default_part: 0.25,
    ..rotary::WHOLE_HEADS
};

/// The sizes of GPT-NeoX 20B.
const SIZES: Sizes =
    Sizes { vocab_size: 50_432, d_model: 6144, d_ff: 24_576, layers: 44, heads: 64, kv_heads: 64 };

/// `GPTNeoXForCausalLM`.
pub fn read(fields: &Fields) -> Result<Description> {
    // The family has no groups.
    let sizes = SIZES.read_ungrouped(fields)?;
    let Sizes { d_model, heads, .. } = sizes;
    let rotary = rotary::read(fields, sizes.head_dim(), &ROTARY)?;
    let attention = MultiHeadAttentionConfig::new(d_model, heads)
        .with_biases(fields.flag_or("attention_bias", true)?)
        .with_rotary(Some(rotary))
        .with_dropout(fields.number_or("attention_dropout", 0.0)?);
    let feed_forward = FeedForwardConfig::new(d_model, sizes.d_ff)
        .with_activation(activation::plain(fields, "hidden_act", "gelu")?);
    let epsilon = fields.number_or("layer_norm_eps", 1e-5)?;
    let residual_layout = match fields.flag_or("use_parallel_residual", true)? {
        true => ResidualLayout::Parallel,
        false => ResidualLayout::Sequential,
    };
    let dropout = fields.number_or("hidden_dropout", 0.0)?;
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(NormConfig::layer_norm().with_epsilon(epsilon))
        .with_residual_layout(residual_layout)
        .with_dropout(dropout);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config =
        LanguageModelConfig::new(sizes.vocab_size, DecoderConfig::new(layer, sizes.layers))
            .with_positions(None)
            .with_scale_embedding(false)
            .with_tied_head(tied)
            .with_dropout(dropout);
    Ok(Description { config, table: table(heads, tied) })
}

fn table(heads: usize, tied: bool) -> Table {
    let mut rows = vec![
        Row::embedding("embedding", "gpt_neox.embed_in"),
        Row::norm("decoder.final_norm", "gpt_neox.final_layer_norm"),
        Row::linear("head", "embed_out"),
    ];
    let in_layer = |row: Row| row.inside("decoder.layers.*.", "gpt_neox.layers.*.");
    for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
        let packed = Packed { part, parts: 3, groups: heads, transposed: true, widths: None };
        let ours = format!("self_attention.{name}");
        rows.push(in_layer(Row::packed(&ours, "attention.query_key_value", packed)));
    }
    let parts = [
        Row::linear("self_attention.output", "attention.dense"),
        Row::norm("self_attention_norm", "input_layernorm"),
        Row::linear("feed_forward.up", "mlp.dense_h_to_4h"),
        Row::linear("feed_forward.down", "mlp.dense_4h_to_h"),
        Row::norm("feed_forward_norm", "post_attention_layernorm"),
    ];
    rows.extend(parts.map(in_layer));
    // Older files hold the look-ahead mask and the frequencies.
    let buffers = ["*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"];
    let table = Table::new(rows).with_skipped(&buffers).with_base("gpt_neox.");
    if tied { table.with_copies("gpt_neox.embed_in.weight", &["embed_out.weight"]) } else { table }
}
