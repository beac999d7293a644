//! OLMo 2: norms behind the parts, and one over all heads' queries and keys.

use super::family::Description;
use super::fields::Fields;
use super::{llama, rotary};
use crate::Result;
use crate::attention::QkNormConfig;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, LanguageModelConfig, NormConfig, NormPlacement,
};
use crate::import::table::Row;

/// `Olmo2ForCausalLM`.
pub fn read(fields: &Fields) -> Result<Description> {
    let head_dim = fields.size_or("head_dim", llama::default_head_dim(fields)?)?;
    let norm = NormConfig::rms_norm().with_epsilon(fields.number_or("rms_norm_eps", 1e-5)?);
    let attention = llama::grouped_heads(fields, head_dim)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_rotary(Some(rotary::read(fields, head_dim, &rotary::WHOLE_HEADS)?))
        .with_qk_norm(Some(QkNormConfig::new(norm).with_across_heads(true)));
    let layer = DecoderLayerConfig::new(attention, llama::feed_forward(fields)?.with_biases(false))
        .with_norm(norm)
        .with_norm_placement(NormPlacement::Output);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let decoder = DecoderConfig::new(layer, fields.layers("num_hidden_layers")?);
    let config = LanguageModelConfig::new(fields.size("vocab_size")?, decoder)
        .with_positions(None)
        .with_scale_embedding(false)
        .with_tied_head(tied);
    let mut rows = llama::rows();
    let norms = [
        ("self_attention_norm", "post_attention_layernorm"),
        ("feed_forward_norm", "post_feedforward_layernorm"),
    ];
    rows.extend(norms.map(|(ours, theirs)| {
        Row::norm(ours, theirs).inside("decoder.layers.*.", "model.layers.*.")
    }));
    Ok(Description { config, table: llama::table(rows, tied) })
}
