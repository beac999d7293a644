//! Burn's own `TransformerDecoder` as a [`Decoder`].
//!
//! Its norms are numbered by their place in the code, not by their part: in a pre-norm layer `norm_3`
//! belongs to self-attention, `norm_1` to cross-attention and `norm_2` to the feed-forward part; in
//! a post-norm layer they are 1, 2 and 3. Its stack ends without a norm in both.
//!
//! Under masks, dead rows differ: there they look at all keys equally, here they are 0.

use std::path::Path;

use burn::nn::activation::ActivationConfig;
use burn::nn::transformer::{TransformerDecoder, TransformerDecoderConfig};
use burn::tensor::Device;

use super::LoadOptions;
use super::load::load as load_by_table;
use super::open::open;
use super::source::TensorSource;
use super::table::{Row, Table};
use crate::attention::{AttentionSinks, MultiHeadAttentionConfig};
use crate::decoder::{
    Activation, Decoder, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, NormConfig,
    NormPlacement,
};
use crate::{Error, Result};

/// The configuration of the same decoder. [`from_module`] and [`load`] build it without the final
/// norm that a pre-norm stack would get.
///
/// # Errors
///
/// [`Error::Config`] for an activation that this crate does not have.
pub fn decoder_config(config: &TransformerDecoderConfig) -> Result<DecoderConfig> {
    let activation = match &config.activation {
        ActivationConfig::Gelu => Activation::Gelu,
        ActivationConfig::GeluApproximate => Activation::GeluTanh,
        ActivationConfig::Relu => Activation::Relu,
        other => {
            return Err(Error::Config {
                field: "TransformerDecoderConfig::activation",
                expected: "Gelu, GeluApproximate or Relu".into(),
                got: format!("{other:?}"),
            });
        }
    };
    let sinks = if config.quiet_softmax { AttentionSinks::Quiet } else { AttentionSinks::None };
    let attention = MultiHeadAttentionConfig::new(config.d_model, config.n_heads)
        .with_sinks(sinks)
        .with_dropout(config.dropout);
    let feed_forward = FeedForwardConfig::new(config.d_model, config.d_ff)
        .with_activation(activation)
        .with_dropout(config.dropout);
    let placement = if config.norm_first { NormPlacement::Pre } else { NormPlacement::Post };
    let layer = DecoderLayerConfig::new(attention.clone(), feed_forward)
        .with_cross_attention(Some(attention))
        .with_norm(NormConfig::layer_norm().with_epsilon(config.layer_norm_eps))
        .with_norm_placement(placement)
        .with_dropout(config.dropout);
    Ok(DecoderConfig::new(layer, config.n_layers))
}

/// A decoder with the parameters of `module`, which `config` built, on `device`.
///
/// # Errors
///
/// [`Error::Weights`] if `module` was built by another configuration, and those of
/// [`decoder_config`].
pub fn from_module(
    module: &TransformerDecoder,
    config: &TransformerDecoderConfig,
    device: &Device,
) -> Result<Decoder> {
    let source = TensorSource::module(module, "TransformerDecoder");
    fill(config, &source, device, LoadOptions::new())
}

/// A decoder with the parameters of a record of burn-nn's decoder: a `.bpk` file, or a
/// `.safetensors` file with Burn's names.
///
/// # Errors
///
/// [`Error::File`] if the file can't be read, [`Error::Weights`] if its tensors are not those of the
/// configuration, and those of [`decoder_config`].
pub fn load(
    path: impl AsRef<Path>,
    config: &TransformerDecoderConfig,
    device: &Device,
    options: LoadOptions,
) -> Result<Decoder> {
    let source = open(path.as_ref(), options.top_level_key.as_deref())?;
    fill(config, &source, device, options)
}

fn fill(
    config: &TransformerDecoderConfig,
    source: &TensorSource,
    device: &Device,
    options: LoadOptions,
) -> Result<Decoder> {
    let mut decoder = decoder_config(config)?.init(device)?;
    decoder.final_norm = None;
    Ok(load_by_table(decoder, source, table(config.norm_first), options)?.0)
}

fn table(norm_first: bool) -> Table {
    let norms =
        if norm_first { ["norm_3", "norm_1", "norm_2"] } else { ["norm_1", "norm_2", "norm_3"] };
    let mut rows = vec![
        Row::same_norm("self_attention_norm", norms[0]),
        Row::same_norm("cross_attention_norm", norms[1]),
        Row::same_norm("feed_forward_norm", norms[2]),
        Row::same_linear("feed_forward.up", "pwff.linear_inner"),
        Row::same_linear("feed_forward.down", "pwff.linear_outer"),
    ];
    for (ours, theirs) in [("self_attention.", "self_attn."), ("cross_attention.", "cross_attn.")] {
        let parts = ["query", "key", "value", "output"];
        rows.extend(parts.map(|part| Row::same_linear(part, part).inside(ours, theirs)));
    }
    Table::new(rows.into_iter().map(|row| row.inside("layers.*.", "layers.*.")).collect())
}
