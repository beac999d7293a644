//! Gemma 2 and Gemma 3's text models: sandwich norms whose scale is `1 + γ`, GeGLU, scaled
//! embeddings, alternating windows.

use super::family::Description;
use super::fields::Fields;
use super::rotary::{self, Old};
use super::{activation, llama, windows};
use crate::Result;
use crate::attention::{MultiHeadAttentionConfig, QkNormConfig, RotaryConfig};
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
    NormPlacement,
};
use crate::import::table::Row;

/// `Gemma2ForCausalLM`: softcaps on scores and logits, a window in every other layer from the first.
pub fn read_2(fields: &Fields) -> Result<Description> {
    let layers = fields.layers("num_hidden_layers")?;
    let window = Some(fields.size_or("sliding_window", 4096)?);
    let windows = windows::read(fields, layers, window, |layer| layer.is_multiple_of(2))?;
    let rotary = rotary::read(fields, head_dim(fields)?, &rotary::WHOLE_HEADS)?;
    let attention = attention(fields)?.with_rotary(Some(rotary)).with_softcap(softcap(
        fields,
        "attn_logit_softcapping",
        Some(50.0),
    )?);
    model(fields, attention, windows, Vec::new(), Some(30.0))
}

/// `Gemma3ForCausalLM`: a norm on each head's queries and keys, and other rotary positions in the
/// layers with a window than in the rest.
pub fn read_3(fields: &Fields) -> Result<Description> {
    let layers = fields.layers("num_hidden_layers")?;
    // New files have the number under both names.
    let pattern = match fields.find_size("sliding_window_pattern")? {
        Some(pattern) => pattern,
        None => fields.size_or("_sliding_window_pattern", 6)?,
    };
    let window = Some(fields.size_or("sliding_window", 4096)?);
    let local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    let windows = windows::read(fields, layers, window, local)?;
    let [of_local, of_global] = rotaries(fields)?;
    let rotaries = windows
        .iter()
        .map(|window| Some(if window.is_some() { of_local } else { of_global }))
        .collect();
    let attention = attention(fields)?
        .with_rotary(Some(of_global))
        .with_qk_norm(Some(QkNormConfig::new(norm(fields)?)));
    model(fields, attention, windows, rotaries, None)
}

/// The rotary positions of layers with a window, and of the others.
fn rotaries(fields: &Fields) -> Result<[RotaryConfig; 2]> {
    let head_dim = head_dim(fields)?;
    let local = Old { base: "rope_local_base_freq", ..rotary::WHOLE_HEADS };
    let global = Old { default_base: 1_000_000.0, ..rotary::WHOLE_HEADS };
    let Some(both) = fields.find_object("rope_parameters")? else {
        // Older files scale the global layers only.
        let scaling = fields.find_object("rope_scaling")?;
        return Ok([
            rotary::read_from(fields, None, head_dim, &local)?,
            rotary::read_from(fields, scaling, head_dim, &global)?,
        ]);
    };
    let read = |name, old: &Old| match both.find_object(name)? {
        Some(block) => rotary::read_from(fields, Some(block), head_dim, old),
        None => both.refuse(name, "the rotary positions of such layers"),
    };
    Ok([read("sliding_attention", &local)?, read("full_attention", &global)?])
}

fn head_dim(fields: &Fields) -> Result<usize> {
    fields.size_or("head_dim", 256)
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

fn attention(fields: &Fields) -> Result<MultiHeadAttentionConfig> {
    // Gemma 3's configuration may say false; true is an embedding model.
    fields.require("use_bidirectional_attention", false)?;
    let scalar = fields.number_or("query_pre_attn_scalar", 256.0)?;
    if scalar <= 0.0 {
        return fields.refuse("query_pre_attn_scalar", "a number above 0");
    }
    Ok(llama::grouped_heads(fields, head_dim(fields)?)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_scale(Some(scalar.powf(-0.5))))
}

fn model(
    fields: &Fields,
    attention: MultiHeadAttentionConfig,
    windows: Vec<Option<usize>>,
    rotaries: Vec<Option<RotaryConfig>>,
    logit_softcap: Option<f64>,
) -> Result<Description> {
    let (d_model, d_ff) = (fields.size("hidden_size")?, fields.size("intermediate_size")?);
    let activation = activation::gated(fields, "hidden_activation", "gelu_pytorch_tanh")?;
    let feed_forward =
        FeedForwardConfig::new(d_model, d_ff).with_activation(activation).with_biases(false);
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(norm(fields)?)
        .with_norm_placement(NormPlacement::Sandwich);
    let decoder = DecoderConfig::new(layer, fields.layers("num_hidden_layers")?)
        .with_windows(windows)
        .with_rotaries(rotaries);
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    let config = LanguageModelConfig::new(fields.size("vocab_size")?, decoder)
        .with_positions(None)
        .with_scale_embedding(true)
        .with_tied_head(tied)
        .with_logit_softcap(softcap(fields, "final_logit_softcapping", logit_softcap)?);
    let mut rows = llama::rows();
    let norms = [
        ("self_attention_norm", "input_layernorm"),
        ("self_attention_output_norm", "post_attention_layernorm"),
        ("feed_forward_norm", "pre_feedforward_layernorm"),
        ("feed_forward_output_norm", "post_feedforward_layernorm"),
    ];
    rows.extend(norms.map(|(ours, theirs)| {
        Row::norm(ours, theirs).inside("decoder.layers.*.", "model.layers.*.")
    }));
    Ok(Description { config, table: llama::table(rows, tied) })
}
