//! Phi 1, 1.5 and 2: attention and feed-forward side by side behind one norm, biases everywhere.

use super::family::Description;
use super::fields::Fields;
use super::rotary::{self, Old};
use super::{activation, llama};
use crate::Result;
use crate::decoder::{
    Arrangement, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
    NormConfig,
};
use crate::import::form::Form;
use crate::import::table::{Row, Table};

/// Where files have the rotary positions.
const ROTARY: Old = Old {
    base: "rope_theta",
    default_base: 10_000.0,
    part: Some("partial_rotary_factor"),
    default_part: 0.5,
};

/// `PhiForCausalLM`.
pub fn read(fields: &Fields) -> Result<Description> {
    fields.require("qk_layernorm", false)?;
    let d_model = fields.size("hidden_size")?;
    let head_dim = fields.size_or("head_dim", llama::default_head_dim(fields)?)?;
    let attention = llama::grouped_heads(fields, head_dim)?
        .with_rotary(Some(rotary::read(fields, head_dim, &ROTARY)?));
    let feed_forward = FeedForwardConfig::new(d_model, fields.size("intermediate_size")?)
        .with_activation(activation::plain(fields, "hidden_act", "gelu_new")?);
    let epsilon = fields.number_or("layer_norm_eps", 1e-5)?;
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(NormConfig::layer_norm().with_epsilon(epsilon))
        .with_arrangement(Arrangement::ParallelSharedNorm)
        .with_dropout(fields.number_or("resid_pdrop", 0.0)?);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let decoder = DecoderConfig::new(layer, fields.layers("num_hidden_layers")?);
    let config = LanguageModelConfig::new(fields.size("vocab_size")?, decoder)
        .with_positions(None)
        .with_scale_embedding(false)
        .with_tied_head(tied)
        .with_head_bias(true)
        .with_dropout(fields.number_or("embd_pdrop", 0.0)?);
    Ok(Description { config, table: table(tied) })
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
    llama::table(rows, tied)
}
