//! GPT-2: query, key and value in one tensor, and weights that lie as Burn's do.

use super::activation;
use super::description::Description;
use super::fields::Fields;
use super::rotary;
use crate::Result;
use crate::attention::MultiHeadAttentionConfig;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    PositionEmbeddingConfig,
};
use crate::import::form::Packed;
use crate::import::table::{Row, Table};

/// `GPT2LMHeadModel`.
pub fn read(fields: &Fields) -> Result<Description> {
    fields.require("scale_attn_by_inverse_layer_idx", false)?;
    fields.require("add_cross_attention", false)?;
    rotary::refuse_unread(fields, &[])?;
    // Either name, as in transformers.
    let size = |names: [&str; 2], default| fields.size(fields.spelled(&names), default);
    let d_model = size(["n_embd", "hidden_size"], 768)?;
    let heads = size(["n_head", "num_attention_heads"], 12)?;
    let layers = fields.layers(fields.spelled(&["n_layer", "num_hidden_layers"]), 12)?;
    let scaled = fields.flag_or("scale_attn_weights", true)?;
    let attention = MultiHeadAttentionConfig::new(d_model, heads)
        .with_scale((!scaled).then_some(1.0))
        .with_dropout(fields.number_or("attn_pdrop", 0.1)?);
    let d_ff = fields.find_size("n_inner")?.unwrap_or(4 * d_model);
    let feed_forward = FeedForwardConfig::new(d_model, d_ff).with_activation(activation::plain(
        fields,
        "activation_function",
        "gelu_new",
    )?);
    let epsilon = fields.number_or("layer_norm_epsilon", 1e-5)?;
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(NormConfig::layer_norm().with_epsilon(epsilon))
        .with_dropout(fields.number_or("resid_pdrop", 0.1)?);
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    let context = size(["n_positions", "max_position_embeddings"], 1024)?;
    let positions = PositionEmbeddingConfig::learned(context);
    let decoder = DecoderConfig::new(layer, layers);
    let config = LanguageModelConfig::new(fields.size("vocab_size", 50_257)?, decoder)
        .with_positions(Some(positions))
        .with_scale_embedding(false)
        .with_tied_head(tied)
        .with_dropout(fields.number_or("embd_pdrop", 0.1)?);
    Ok(Description { config, table: table(tied) })
}

fn table(tied: bool) -> Table {
    let mut rows = vec![
        Row::embedding("embedding", "transformer.wte"),
        Row::embedding("positions.table", "transformer.wpe"),
        Row::norm("decoder.final_norm", "transformer.ln_f"),
        Row::linear("head", "lm_head"),
    ];
    let in_layer = |row: Row| row.inside("decoder.layers.*.", "transformer.h.*.");
    for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
        let packed = Packed { part, parts: 3, groups: 1, transposed: false, widths: None };
        let ours = format!("self_attention.{name}");
        rows.push(in_layer(Row::packed(&ours, "attn.c_attn", packed)));
    }
    let parts = [
        Row::same_linear("self_attention.output", "attn.c_proj"),
        Row::norm("self_attention_norm", "ln_1"),
        Row::same_linear("feed_forward.up", "mlp.c_fc"),
        Row::same_linear("feed_forward.down", "mlp.c_proj"),
        Row::norm("feed_forward_norm", "ln_2"),
    ];
    rows.extend(parts.map(in_layer));
    // Older files hold the look-ahead mask.
    let table = Table::new(rows)
        .with_skipped(&["*.attn.bias", "*.attn.masked_bias"])
        .with_base("transformer.");
    if tied { table.with_copies("transformer.wte.weight", &["lm_head.weight"]) } else { table }
}
