//! Any state dict, by a table of names: which tensor of a file is which parameter of a module, and how
//! it lies there.
//!
//! The file (`.safetensors`, or `.pt`, `.pth` and `.bin` of `torch.save`) stays as it is, and so does
//! the module: any of this crate's, or one that holds some.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_decoder::attention::MultiHeadAttentionConfig;
//! use burn_decoder::decoder::{DecoderConfig, DecoderLayerConfig, FeedForwardConfig, NormPlacement};
//! use burn_decoder::import::LoadOptions;
//! use burn_decoder::import::mapping::{Mapping, parameters};
//!
//! let attention = MultiHeadAttentionConfig::new(256, 8);
//! let layer = DecoderLayerConfig::new(attention.clone(), FeedForwardConfig::new(256, 512))
//!     .with_cross_attention(Some(attention))
//!     .with_norm_placement(NormPlacement::Post);
//! let decoder = DecoderConfig::new(layer, 3).init(&Device::default())?;
//! for (path, shape) in parameters(&decoder) {
//!     println!("{path} {shape:?}"); // what the left side of the table can name
//! }
//!
//! let attention = Mapping::new()
//!     .linear("query", "fc_q")
//!     .linear("key", "fc_k")
//!     .linear("value", "fc_v")
//!     .linear("output", "fc_o");
//! let layer = Mapping::new()
//!     .and(attention.clone().inside("self_attention.", "self_attention."))
//!     .and(attention.inside("cross_attention.", "encoder_attention."))
//!     .norm("self_attention_norm", "self_attn_layer_norm")
//!     .norm("cross_attention_norm", "enc_attn_layer_norm")
//!     .norm("feed_forward_norm", "ff_layer_norm")
//!     .linear("feed_forward.up", "positionwise_feedforward.fc_1")
//!     .linear("feed_forward.down", "positionwise_feedforward.fc_2");
//! let table = layer.inside("layers.*.", "layers.*.");
//! let options = LoadOptions::new().with_prefix("decoder.").with_ignored(["decoder.fc_out."]);
//! let decoder = table.load(decoder, "translator.pt", options)?;
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! The left side names a part of the module, the right side the same part in the file; `*` stands for
//! the number of a layer. Everything else is as with the other importers: names, shapes and types are
//! compared before any tensor is read, an error lists all that does not fit, and a load holds the
//! module and one tensor.

use std::path::Path;

use burn::module::Module;

use super::LoadOptions;
use super::form::{Form, Packed, Widths};
use super::load::load as load_by_table;
use super::open::open;
use super::parameters::parameters as parameters_of;
use super::save::save as save_by_table;
use super::table::{Row, Table};
use crate::file::Links;
use crate::{Error, Result};

/// How one tensor lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// As it lies here: `[in, out]` for a weight.
    Same,
    /// `[out, in]`, as in PyTorch's `Linear`.
    Transposed,
    /// `[1, n]` there, `[n]` here.
    Row,
}

/// How several projections lie in one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    groups: usize,
    transposed: bool,
    widths: Option<Vec<usize>>,
}

impl Packing {
    /// One behind the other, as rows of a weight `[outputs, in]`.
    pub fn in_pieces() -> Self {
        Self { groups: 1, transposed: true, widths: None }
    }

    /// Head by head: the first head of each, then the second of each, and so on (GPT-NeoX).
    pub fn by_head(heads: usize) -> Self {
        Self { groups: heads, ..Self::in_pieces() }
    }

    /// The weight is `[in, outputs]`, as Burn's `Linear` and GPT-2 have it.
    #[must_use]
    pub fn with_outputs_last(mut self) -> Self {
        self.transposed = false;
        self
    }

    /// The projections differ in width: how many outputs each has. Query, key and value do where
    /// several heads share a key (`[d_model, kv_heads * head_dim, kv_heads * head_dim]`).
    #[must_use]
    pub fn with_widths(mut self, widths: impl Into<Vec<usize>>) -> Self {
        self.widths = Some(widths.into());
        self
    }

    /// The form of one of so many parts.
    fn form(&self, part: usize, parts: usize) -> Packed {
        let widths = self.widths.as_ref().map(|widths| Widths {
            before: widths.iter().take(part).sum(),
            // None for a part without a width: no projection has that many outputs.
            own: widths.get(part).copied().unwrap_or(0),
            total: widths.iter().sum(),
        });
        Packed { part, parts, groups: self.groups, transposed: self.transposed, widths }
    }
}

/// A table of names. See the module.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Mapping {
    rows: Vec<Row>,
    skipped: Vec<String>,
}

impl Mapping {
    /// No names yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `weight`, `[out, in]` there, and `bias`, if it has one: PyTorch's `Linear`.
    pub fn linear(self, ours: &str, theirs: &str) -> Self {
        self.row(Row::linear(ours, theirs))
    }

    /// `weight`, `[in, out]` there as here, and `bias`, if it has one: GPT-2's `Conv1D`.
    pub fn linear_outputs_last(self, ours: &str, theirs: &str) -> Self {
        self.row(Row::same_linear(ours, theirs))
    }

    /// A table of vectors: `weight`.
    pub fn embedding(self, ours: &str, theirs: &str) -> Self {
        self.row(Row::embedding(ours, theirs))
    }

    /// LayerNorm or RMSNorm: `weight` and `bias` there, `gamma` and `beta` here.
    pub fn norm(self, ours: &str, theirs: &str) -> Self {
        self.row(Row::norm(ours, theirs))
    }

    /// Projections that share their `weight` and `bias`, in this order. `theirs` may end with the
    /// beginning of the last name and an underscore: `in_proj_`.
    pub fn packed<const N: usize>(
        mut self,
        ours: [&str; N],
        theirs: &str,
        packing: &Packing,
    ) -> Self {
        for (part, ours) in ours.into_iter().enumerate() {
            self = self.row(Row::packed(ours, theirs, packing.form(part, N)));
        }
        self
    }

    /// One parameter, by its whole name on both sides.
    pub fn parameter(self, ours: &str, theirs: &str, layout: Layout) -> Self {
        let form = match layout {
            Layout::Same => Form::Same,
            Layout::Transposed => Form::Transposed,
            Layout::Row => Form::Row,
        };
        self.row(Row::parameter(ours, theirs, form))
    }

    /// Tensors that are known and not needed, as buffers are; here `*` stands for anything.
    pub fn skip(mut self, theirs: &str) -> Self {
        self.skipped.push(theirs.into());
        self
    }

    /// All names of `other` too. Where both name a parameter, this table's name counts.
    pub fn and(mut self, other: Self) -> Self {
        self.rows.extend(other.rows);
        self.skipped.extend(other.skipped);
        self
    }

    /// The same part in a larger module and a larger file, whose names have these in front, with
    /// their dots.
    pub fn inside(self, ours: &str, theirs: &str) -> Self {
        let rows = self.rows.into_iter().map(|row| row.inside(ours, theirs)).collect();
        let skipped = self.skipped.iter().map(|name| format!("{theirs}{name}")).collect();
        Self { rows, skipped }
    }

    fn row(mut self, row: Row) -> Self {
        self.rows.push(row);
        self
    }

    /// `module` with the parameters of a file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file can't be read; [`Error::Weights`] if its tensors are not those of
    /// the module, or the table has no name for one of its parameters; [`Error::Config`] for a
    /// [`Packing`] that does not fit the projections, or a precision that the device does not have.
    pub fn load<M: Module>(
        &self,
        module: M,
        path: impl AsRef<Path>,
        options: LoadOptions,
    ) -> Result<M> {
        self.check(&module)?;
        let source = open(path.as_ref(), options.top_level_key.as_deref())?;
        Ok(load_by_table(module, &source, self.table(), options)?.0)
    }

    /// Writes the parameters of `module` to a safetensors file, under the names of the file, in their
    /// own type. A symbolic link stays one: the file that it leads to is written.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file can't be written; [`Error::Weights`] if the table has no name for
    /// one of the parameters; [`Error::Config`] for a [`Packing`] that does not fit.
    pub fn save<M: Module>(&self, module: &M, path: impl AsRef<Path>) -> Result<()> {
        self.check(module)?;
        save_by_table(module, &self.table(), path.as_ref(), Links::Followed)
    }

    fn table(&self) -> Table {
        let skipped: Vec<_> = self.skipped.iter().map(String::as_str).collect();
        Table::new(self.rows.clone()).with_skipped(&skipped)
    }

    /// An error for projections that can't be packed as the table says.
    fn check(&self, module: &impl Module) -> Result<()> {
        let table = self.table();
        for parameter in parameters_of(module) {
            let Some((name, Form::Packed(packed))) = table.find(&parameter.path) else { continue };
            let outputs = parameter.shape.last().copied().unwrap_or(1);
            if let Some((expected, got)) = packed.misfit(outputs) {
                let expected = format!("{expected} for {} in {name}", parameter.path);
                return Err(Error::Config { field: "Packing", expected, got });
            }
        }
        Ok(())
    }
}

/// The paths and shapes of all parameters of `module`: what the left side of a [`Mapping`] names.
#[must_use]
pub fn parameters(module: &impl Module) -> Vec<(String, Vec<usize>)> {
    let parameters = parameters_of(module).into_iter();
    parameters.map(|parameter| (parameter.path, parameter.shape)).collect()
}
