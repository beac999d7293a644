//! State dicts of PyTorch's `nn.MultiheadAttention`, `nn.TransformerDecoderLayer` and
//! `nn.TransformerDecoder`.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_decoder::attention::MultiHeadAttentionConfig;
//! use burn_decoder::decoder::{DecoderConfig, DecoderLayerConfig, FeedForwardConfig};
//! use burn_decoder::import::{LoadOptions, pytorch};
//!
//! // nn.TransformerDecoder(nn.TransformerDecoderLayer(512, 8, activation="gelu",
//! //                                                  norm_first=True), 6, nn.LayerNorm(512))
//! let attention = MultiHeadAttentionConfig::new(512, 8);
//! let layer = DecoderLayerConfig::new(attention.clone(), FeedForwardConfig::new(512, 2048))
//!     .with_cross_attention(Some(attention));
//! let decoder = DecoderConfig::new(layer, 6).init(&Device::default())?;
//! let decoder = pytorch::load(decoder, "decoder.pt", LoadOptions::new())?;
//! pytorch::save(&decoder, "decoder.safetensors")?;
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! A state dict holds no configuration: the module must be made as PyTorch's was. `norm_first=False`
//! is [`NormPlacement::Post`](crate::decoder::NormPlacement::Post), without which PyTorch's stack may
//! or may not end with a norm: set [`Decoder::final_norm`] to `None` where it does not. PyTorch's
//! default activation is ReLU.
//!
//! | here | there |
//! |---|---|
//! | `query`, `key`, `value` | rows of `in_proj_weight` and `in_proj_bias`; `q_proj_weight`, `k_proj_weight` and `v_proj_weight` with a memory of another width |
//! | `self_attention_norm` | `norm1` |
//! | `cross_attention_norm` | `norm2` |
//! | `feed_forward_norm` | `norm3` |

use std::path::Path;

use burn::module::Module;

use super::LoadOptions;
use super::form::{Form, Packed};
use super::load::load as load_by_table;
use super::open::open;
use super::save::save as save_by_table;
use super::table::{Row, Table};
use crate::Result;
use crate::attention::MultiHeadAttention;
use crate::decoder::{Decoder, DecoderLayer};
use crate::file::Links;

/// A module that has a counterpart in PyTorch: [`MultiHeadAttention`], [`DecoderLayer`] and
/// [`Decoder`].
pub trait StateDict: Module + sealed::Names {}

impl StateDict for MultiHeadAttention {}
impl StateDict for DecoderLayer {}
impl StateDict for Decoder {}

/// `module` with the parameters of a state dict: a file of `torch.save` (`.pt`, `.pth`, `.bin`) or of
/// safetensors.
///
/// # Errors
///
/// [`Error::File`](crate::Error::File) if the file can't be read,
/// [`Error::Weights`](crate::Error::Weights) if its tensors are not those of the module,
/// [`Error::Config`](crate::Error::Config) for a precision that the device does not have.
pub fn load<M: StateDict>(module: M, path: impl AsRef<Path>, options: LoadOptions) -> Result<M> {
    let source = open(path.as_ref(), options.top_level_key.as_deref())?;
    let table = Table::new(module.rows());
    Ok(load_by_table(module, &source, table, options)?.0)
}

/// Writes the parameters of `module` to a safetensors file, under PyTorch's names, in their own type.
/// A symbolic link stays one: the file that it leads to is written.
///
/// # Errors
///
/// [`Error::File`](crate::Error::File) if the file can't be written,
/// [`Error::Weights`](crate::Error::Weights) if the module has parameters that PyTorch's does not.
pub fn save<M: StateDict>(module: &M, path: impl AsRef<Path>) -> Result<()> {
    save_by_table(module, &Table::new(module.rows()), path.as_ref(), Links::Followed)
}

mod sealed {
    use super::Row;

    /// What PyTorch calls the parameters.
    pub trait Names {
        fn rows(&self) -> Vec<Row>;
    }
}

use sealed::Names;

impl Names for MultiHeadAttention {
    fn rows(&self) -> Vec<Row> {
        let d_model = self.query.weight.lazy_shape()[0];
        let packs = self.key.weight.lazy_shape()[0] == d_model;
        let mut rows = vec![Row::linear("output", "out_proj")];
        for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
            let packed = Packed { part, parts: 3, groups: 1, transposed: true, widths: None };
            if packs {
                rows.push(Row::packed(name, "in_proj_", packed));
            } else {
                // Three inputs of different widths have weights of their own, but one bias.
                let theirs = format!("{}_proj_weight", &name[..1]);
                rows.push(Row::parameter(&format!("{name}.weight"), &theirs, Form::Transposed));
                let form = Form::Packed(packed);
                rows.push(Row::parameter(&format!("{name}.bias"), "in_proj_bias", form));
            }
        }
        rows
    }
}

impl Names for DecoderLayer {
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            Row::norm("self_attention_norm", "norm1"),
            Row::norm("cross_attention_norm", "norm2"),
            Row::norm("feed_forward_norm", "norm3"),
            Row::linear("feed_forward.up", "linear1"),
            Row::linear("feed_forward.down", "linear2"),
        ];
        let mut attention = |attention: &MultiHeadAttention, ours: &str, theirs: &str| {
            rows.extend(attention.rows().into_iter().map(|row| row.inside(ours, theirs)));
        };
        attention(&self.self_attention, "self_attention.", "self_attn.");
        if let Some(cross) = &self.cross_attention {
            attention(cross, "cross_attention.", "multihead_attn.");
        }
        rows
    }
}

impl Names for Decoder {
    fn rows(&self) -> Vec<Row> {
        // The layers are all of one configuration.
        let layer = self.layers.first().map(DecoderLayer::rows).unwrap_or_default();
        let layers = layer.into_iter().map(|row| row.inside("layers.*.", "layers.*."));
        layers.chain([Row::norm("final_norm", "norm")]).collect()
    }
}
