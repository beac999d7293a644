//! Gemma 2 and Gemma 3's text models: sandwich norms whose scale is `1 + γ`, GeGLU, scaled
//! embeddings, alternating windows.

use super::common::{self, Sizes};
use super::description::Description;
use super::fields::Fields;
use super::rotary::{self, LegacyKeys};
use super::{activation, windows};
use crate::Result;
use crate::attention::{MultiHeadAttentionConfig, QkNormConfig, RotaryConfig};
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    NormPlacement,
};

/// The sizes of a file of Gemma 2 that says nothing.
const GEMMA_2: Sizes =
    Sizes { vocab_size: 256_000, d_model: 2304, d_ff: 9216, layers: 26, heads: 8, kv_heads: 4 };

/// And of Gemma 3.
const GEMMA_3: Sizes = Sizes { vocab_size: 262_208, ..GEMMA_2 };

/// How Gemma 3 spells the two kinds of layers.
const LOCAL: &str = "sliding_attention";
const GLOBAL: &str = "full_attention";

/// `Gemma2ForCausalLM`: softcaps on scores and logits, a window in every other layer from the first.
pub fn read_2(fields: &Fields) -> Result<Description> {
    let sizes = GEMMA_2.read(fields)?;
    let window = Some(fields.find_size("sliding_window")?.unwrap_or(4096));
    let windows = windows::read(fields, sizes.layers, window, |layer| layer.is_multiple_of(2))?;
    let keys = LegacyKeys { default_context: 8192, ..rotary::WHOLE_HEADS };
    let rotary = rotary::read(fields, head_dim(fields)?, &keys)?;
    let softcap = softcap(fields, "attn_logit_softcapping", Some(50.0))?;
    let attention = attention(fields, &sizes)?.with_rotary(Some(rotary)).with_softcap(softcap);
    model(fields, &sizes, attention, windows, Vec::new(), Some(30.0))
}

/// `Gemma3ForCausalLM`: a norm on each head's queries and keys, and other rotary positions in the
/// layers with a window than in the rest.
pub fn read_3(fields: &Fields) -> Result<Description> {
    let sizes = GEMMA_3.read(fields)?;
    // New files have the number under both names.
    let pattern = match fields.find_size("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => fields.find_size("_sliding_window_pattern")?.unwrap_or(6),
    };
    let window = Some(fields.find_size("sliding_window")?.unwrap_or(4096));
    let local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    let windows = windows::read(fields, sizes.layers, window, local)?;
    let [of_local, of_global] = rotaries(fields)?;
    let rotaries = windows
        .iter()
        .map(|window| Some(if window.is_some() { of_local } else { of_global }))
        .collect();
    let attention = attention(fields, &sizes)?
        .with_rotary(Some(of_global))
        .with_qk_norm(Some(QkNormConfig::new(norm(fields)?)));
    model(fields, &sizes, attention, windows, rotaries, None)
}

/// The rotary positions of layers with a window, and of the others. A `rope_scaling` is of the
/// others, and goes before what `rope_parameters` says of them.
fn rotaries(fields: &Fields) -> Result<[RotaryConfig; 2]> {
    let names = ["rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq"];
    rotary::refuse_unread(fields, &names)?;
    let head_dim = head_dim(fields)?;
    let whole = LegacyKeys { default_context: 131_072, ..rotary::WHOLE_HEADS };
    let local = LegacyKeys { base: "rope_local_base_freq", ..whole };
    let global = LegacyKeys { default_base: 1_000_000.0, ..whole };
    let both = fields.find_object("rope_parameters")?;
    if let Some(both) = &both
        && let Some(other) = both.names().find(|name| ![LOCAL, GLOBAL].contains(name))
    {
        return both.refuse(other, format!("nothing beside {LOCAL} and {GLOBAL}"));
    }
    let block = |name| both.as_ref().map(|both| both.find_object(name)).transpose();
    let (of_local, of_global) = (block(LOCAL)?.flatten(), block(GLOBAL)?.flatten());
    let of_local = rotary::read_from(fields, of_local, head_dim, &local)?;
    let scaling = fields.find_object("rope_scaling")?;
    let of_global = match (of_global, scaling) {
        (Some(block), Some(scaling)) => {
            let mut values = block.values().clone();
            values.extend(scaling.values().clone());
            let block = fields.with_values("rope_scaling", &values);
            rotary::read_from(fields, Some(block), head_dim, &global)?
        }
        (block, scaling) => rotary::read_from(fields, scaling.or(block), head_dim, &global)?,
    };
    Ok([of_local, of_global])
}

fn head_dim(fields: &Fields) -> Result<usize> {
    Ok(fields.find_size("head_dim")?.unwrap_or(256))
}

fn norm(fields: &Fields) -> Result<NormConfig> {
    Ok(NormConfig::RmsNorm { epsilon: fields.number_or("rms_norm_eps", 1e-6)?, unit_offset: true })
}

/// A bound that is off where the file says null.
fn softcap(fields: &Fields, name: &str, default: Option<f64>) -> Result<Option<f64>> {
    if fields.is_null(name) {
        return Ok(None);
    }
    Ok(fields.find_number(name)?.or(default))
}

fn attention(fields: &Fields, sizes: &Sizes) -> Result<MultiHeadAttentionConfig> {
    // Gemma 3's configuration may say false; true is an embedding model.
    fields.require("use_bidirectional_attention", false)?;
    let scalar = fields.number_or("query_pre_attn_scalar", 256.0)?;
    if scalar <= 0.0 {
        return fields.refuse("query_pre_attn_scalar", "a number above 0");
    }
    Ok(sizes
        .grouped_heads(fields, head_dim(fields)?)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_scale(Some(scalar.powf(-0.5))))
}

fn model(
    fields: &Fields,
    sizes: &Sizes,
    attention: MultiHeadAttentionConfig,
    windows: Vec<Option<usize>>,
    rotaries: Vec<Option<RotaryConfig>>,
    logit_softcap: Option<f64>,
) -> Result<Description> {
    let activation = activation::gated(fields, "hidden_activation", "gelu_pytorch_tanh")?;
    let feed_forward = FeedForwardConfig::new(sizes.d_model, sizes.d_ff)
        .with_activation(activation)
        .with_biases(false);
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(norm(fields)?)
        .with_norm_placement(NormPlacement::Sandwich);
    let decoder =
        DecoderConfig::new(layer, sizes.layers).with_windows(windows).with_rotaries(rotaries);
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    let config = LanguageModelConfig::new(sizes.vocab_size, decoder)
        .with_positions(None)
        .with_scale_embedding(true)
        .with_tied_head(tied)
        .with_logit_softcap(softcap(fields, "final_logit_softcapping", logit_softcap)?);
    let rows = common::rows_with_norms(&[
        ("self_attention_norm", "input_layernorm"),
        ("self_attention_output_norm", "post_attention_layernorm"),
        ("feed_forward_norm", "pre_feedforward_layernorm"),
        ("feed_forward_output_norm", "post_feedforward_layernorm"),
    ]);
    Ok(Description { config, table: common::table(rows, tied) })
}
