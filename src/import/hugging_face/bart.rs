//! BART's decoder: post-norm, cross-attention, learned positions that begin at row 2, a tied head
//! with a bias. The encoder's tensors are known and not read.

use super::activation;
use super::description::Description;
use super::fields::Fields;
use super::rotary;
use crate::Result;
use crate::attention::MultiHeadAttentionConfig;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    NormPlacement, PositionEmbeddingConfig,
};
use crate::import::form::Form;
use crate::import::table::{Row, Table};

/// Rows in front of position 0 of the table of positions.
const OFFSET: usize = 2;

/// `BartForConditionalGeneration`.
pub fn read(fields: &Fields) -> Result<Description> {
    // Options of the first releases; transformers has only these values left.
    for (name, only) in [
        ("normalize_before", false),
        ("normalize_embedding", true),
        ("add_final_layer_norm", false),
        ("static_position_embeddings", false),
    ] {
        fields.require(name, only)?;
    }
    // It changes what training computes.
    fields.require("decoder_layerdrop", 0)?;
    rotary::refuse_unread(fields, &[])?;
    let d_model = fields.size(fields.spelled(&["d_model", "hidden_size"]), 1024)?;
    let heads = fields.size("decoder_attention_heads", 16)?;
    let attention = MultiHeadAttentionConfig::new(d_model, heads)
        .with_dropout(fields.number_or("attention_dropout", 0.0)?);
    let feed_forward = FeedForwardConfig::new(d_model, fields.size("decoder_ffn_dim", 4096)?)
        .with_activation(activation::plain(fields, "activation_function", "gelu")?)
        .with_dropout(fields.number_or("activation_dropout", 0.0)?);
    let dropout = fields.number_or("dropout", 0.1)?;
    let layer = DecoderLayerConfig::new(attention.clone(), feed_forward)
        .with_cross_attention(Some(attention))
        .with_norm_placement(NormPlacement::Post)
        .with_dropout(dropout);
    let positions = PositionEmbeddingConfig::Learned {
        capacity: fields.size("max_position_embeddings", 1024)?,
        std: fields.number_or("init_std", 0.02)?,
        offset: OFFSET,
    };
    let decoder = DecoderConfig::new(layer, fields.layers("decoder_layers", 12)?);
    // The head shares the embedding by construction, and without that its weight would be unused.
    fields.require("tie_word_embeddings", true)?;
    let config = LanguageModelConfig::new(fields.size("vocab_size", 50_265)?, decoder)
        .with_positions(Some(positions))
        .with_embedding_norm(Some(NormConfig::layer_norm()))
        .with_scale_embedding(fields.flag_or("scale_embedding", false)?)
        .with_tied_head(true)
        .with_head_bias(true)
        .with_dropout(dropout);
    Ok(Description { config, table: table() })
}

fn table() -> Table {
    let mut rows = vec![
        Row::embedding("embedding", "model.shared"),
        Row::embedding("positions.table", "model.decoder.embed_positions"),
        Row::norm("embedding_norm", "model.decoder.layernorm_embedding"),
        Row::parameter("head_bias", "final_logits_bias", Form::Row),
    ];
    let in_layer = |row: Row| row.inside("decoder.layers.*.", "model.decoder.layers.*.");
    let attentions = [("self_attention.", "self_attn."), ("cross_attention.", "encoder_attn.")];
    for (ours, theirs) in attentions {
        let parts =
            [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "out_proj")];
        rows.extend(
            parts.map(|(part, name)| in_layer(Row::linear(part, name).inside(ours, theirs))),
        );
    }
    let parts = [
        Row::norm("self_attention_norm", "self_attn_layer_norm"),
        Row::norm("cross_attention_norm", "encoder_attn_layer_norm"),
        Row::linear("feed_forward.up", "fc1"),
        Row::linear("feed_forward.down", "fc2"),
        Row::norm("feed_forward_norm", "final_layer_norm"),
    ];
    rows.extend(parts.map(in_layer));
    Table::new(rows)
        .with_skipped(&["model.encoder.*"])
        .with_copies(
            "model.shared.weight",
            &["model.decoder.embed_tokens.weight", "lm_head.weight"],
        )
        .with_base("model.")
}
