//! OLMo 2: norms behind the parts, and one over all heads' queries and keys.

use super::common::{self, Sizes, rms_norm};
use super::description::Description;
use super::fields::Fields;
use super::rotary;
use crate::Result;
use crate::attention::QkNormConfig;
use crate::decoder::{DecoderConfig, DecoderLayerConfig, LanguageModelConfig, NormPlacement};

/// The sizes of OLMo 2 7B.
const SIZES: Sizes =
    Sizes { vocab_size: 50_304, d_model: 4096, d_ff: 11_008, layers: 32, heads: 32, kv_heads: 32 };

/// `Olmo2ForCausalLM`.
pub fn read(fields: &Fields) -> Result<Description> {
    let sizes = SIZES.read_ungrouped(fields)?;
    let head_dim = fields.find_size("head_dim")?.unwrap_or(sizes.head_dim());
    let norm = rms_norm(fields, 1e-5)?;
    let attention = sizes
        .grouped_heads(fields, head_dim)?
        .with_biases(fields.flag_or("attention_bias", false)?)
        .with_rotary(Some(rotary::read(fields, head_dim, &rotary::WHOLE_HEADS)?))
        .with_qk_norm(Some(QkNormConfig::new(norm).with_across_heads(true)));
    let layer = DecoderLayerConfig::new(attention, sizes.feed_forward(fields)?.with_biases(false))
        .with_norm(norm)
        .with_norm_placement(NormPlacement::Output);
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    let config =
        LanguageModelConfig::new(sizes.vocab_size, DecoderConfig::new(layer, sizes.layers))
            .with_positions(None)
            .with_scale_embedding(false)
            .with_tied_head(tied);
    let rows = common::rows_with_norms(&[
        ("self_attention_norm", "post_attention_layernorm"),
        ("feed_forward_norm", "post_feedforward_layernorm"),
    ]);
    Ok(Description { config, table: common::table(rows, tied) })
}
