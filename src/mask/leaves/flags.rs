//! Flags of a tensor: for each key, or for each cell. They go by index, since a tensor has nothing
//! else.

use std::fmt;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::{Cell, Leaf, Predicate};
use crate::mask::array::BroadcastArray;
use crate::mask::parts::MaskParts;
use crate::mask::{Cause, Grid, HiddenCells, Mask};
use crate::{Error, Result};

/// Flags, and where they came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct HiddenFlags {
    source: FlagSource,
    cells: HiddenCells,
}

/// What the flags of a tensor say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::mask) enum FlagSource {
    /// Every token equal to this id is hidden.
    Padding {
        /// The id.
        pad_id: i64,
    },
    /// A tensor of flags for each key.
    Keys,
    /// A tensor of flags for each cell.
    Cells,
}

/// Flags by tensor index. The tensors are read to the host, which waits for a GPU, so that the mask is
/// used on any device.
impl Mask {
    /// Hides the keys whose flag is true, for every query. `hidden`: `[batch or 1, keys]`.
    pub fn from_hidden_keys(hidden: &Tensor<2, Bool>) -> Self {
        let [batch, keys] = hidden.dims();
        Self::flags(FlagSource::Keys, [batch, 1, 1, keys], host_flags(hidden, false))
    }

    /// Hides the keys whose flag is false, for every query. `visible`: `[batch or 1, keys]`.
    pub fn from_visible_keys(visible: &Tensor<2, Bool>) -> Self {
        let [batch, keys] = visible.dims();
        Self::flags(FlagSource::Keys, [batch, 1, 1, keys], host_flags(visible, true))
    }

    /// Hides the cells whose flag is true.
    ///
    /// `hidden`: `[queries, keys]`, `[batch, queries, keys]` or `[batch, heads, queries, keys]`, in
    /// which every axis may be 1 instead.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] for a tensor of another rank.
    pub fn from_hidden<const D: usize>(hidden: &Tensor<D, Bool>) -> Result<Self> {
        let shape = cells_shape(hidden.dims())?;
        Ok(Self::flags(FlagSource::Cells, shape, host_flags(hidden, false)))
    }

    /// Hides the cells whose flag is false. Shapes and errors as in [`Mask::from_hidden`].
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] for a tensor of another rank.
    pub fn from_visible<const D: usize>(visible: &Tensor<D, Bool>) -> Result<Self> {
        let shape = cells_shape(visible.dims())?;
        Ok(Self::flags(FlagSource::Cells, shape, host_flags(visible, true)))
    }

    pub(super) fn flags(source: FlagSource, shape: [usize; 4], hidden: Vec<bool>) -> Self {
        let cells = HiddenCells { shape, hidden: hidden.into() };
        Leaf::Flags(HiddenFlags { source, cells }).into()
    }
}

/// The flags of a tensor on the host, turned over on request.
fn host_flags<const D: usize>(tensor: &Tensor<D, Bool>, invert: bool) -> Vec<bool> {
    tensor.to_data().iter::<bool>().map(|flag| flag != invert).collect()
}

/// `dims` as `[batch, heads, queries, keys]`, with 1 for the axes that are left out.
fn cells_shape<const D: usize>(dims: [usize; D]) -> Result<[usize; 4]> {
    match dims[..] {
        [queries, keys] => Ok([1, 1, queries, keys]),
        [batch, queries, keys] => Ok([batch, 1, queries, keys]),
        [batch, heads, queries, keys] => Ok([batch, heads, queries, keys]),
        _ => Err(Error::Mask {
            mask: "hidden_cells",
            expected: "a tensor [queries, keys], [batch, queries, keys] or \
                       [batch, heads, queries, keys]"
                .into(),
            got: format!("rank {D}: {dims:?}"),
        }),
    }
}

impl Predicate for HiddenFlags {
    fn is_visible(&self, cell: &Cell) -> bool {
        !self.cells.is_hidden(cell.batch, cell.head, cell.query, cell.key)
    }

    fn why_hidden(&self, &Cell { query, key, .. }: &Cell) -> (Cause, String) {
        match self.source {
            FlagSource::Padding { pad_id } => {
                (Cause::Padding, format!("key {key} is the pad token {pad_id}"))
            }
            FlagSource::Keys => (Cause::Flag, format!("key {key} is flagged")),
            FlagSource::Cells => (Cause::Flag, format!("query {query}, key {key} is flagged")),
        }
    }

    fn is_made_for_places(&self) -> bool {
        true
    }

    fn heads(&self) -> usize {
        self.cells.shape[1]
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        let mask = match self.source {
            FlagSource::Padding { .. } => "padding",
            FlagSource::Keys => "hidden_keys",
            FlagSource::Cells => "hidden_cells",
        };
        let [batch, heads, queries, keys] = self.cells.shape;
        let fits = |axis, size| axis == 1 || axis == size;
        if fits(batch, grid.batch()) && fits(queries, grid.queries()) && fits(keys, grid.keys()) {
            return Ok(());
        }
        Err(Error::Mask {
            mask,
            expected: format!(
                "a shape that broadcasts to [batch {}, heads, queries {}, keys {}]",
                grid.batch(),
                grid.queries(),
                grid.keys()
            ),
            got: format!("[{batch}, {heads}, {queries}, {keys}]"),
        })
    }

    fn select_rows(&self, rows: &[usize]) -> Option<Leaf> {
        let [batch, heads, queries, keys] = self.cells.shape;
        if batch == 1 {
            return None;
        }
        let size = heads * queries * keys;
        let row = |&row: &usize| &self.cells.hidden[row * size..][..size];
        let hidden = rows.iter().flat_map(row).copied().collect();
        let cells = HiddenCells { shape: [rows.len(), heads, queries, keys], hidden };
        Some(Leaf::Flags(Self { cells, ..*self }))
    }

    fn lower(&self, grid: &Grid) -> MaskParts {
        let HiddenCells { shape, hidden } = &self.cells;
        MaskParts::flags(BroadcastArray { shape: *shape, data: hidden.clone() }, grid)
    }
}

impl fmt::Display for HiddenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [batch, heads, queries, keys] = self.cells.shape;
        match self.source {
            FlagSource::Padding { pad_id } => write!(f, "padding(pad_id {pad_id})"),
            FlagSource::Keys => write!(f, "hidden_keys([{batch}, {keys}])"),
            FlagSource::Cells => write!(f, "hidden_cells([{batch}, {heads}, {queries}, {keys}])"),
        }
    }
}
