//! What a kernel gets: a mask evaluated on a grid, as the AND of three optional parts.
//!
//! - *row spans*: for each batch row and query one visible range of keys, or two;
//! - *hidden keys*: `[batch, keys]`, the same for every query;
//! - *hidden cells*: a dense rest that broadcasts to `[batch, heads, queries, keys]`.
//!
//! A cell is visible if it lies in its row's spans, its key is not hidden, and the cell is not
//! hidden. The parts are plain data on the host, the same for every device, and cheap to clone.

use burn::tensor::{Bool, Device, Int, Tensor};

use super::Grid;
use super::dense::Memo;
use crate::kernels::{self, HiddenCells, Plan, RowSpans, Slopes, Visibility};

/// A mask on a grid, ready for a kernel. See the module for its three parts.
#[derive(Clone, Debug)]
pub struct LoweredMask {
    pub(crate) grid: Grid,
    /// The three parts, as a kernel reads them.
    pub(crate) visibility: Visibility,
    /// The dense tensor that was asked for last; no part of the mask.
    pub(super) memo: Memo<Device, Tensor<4, Bool>>,
    /// The same of what a kernel read last, which depends on the slopes of ALiBi, too.
    map: Memo<(Device, Option<Slopes>), Option<Tensor<1, Int>>>,
}

impl LoweredMask {
    /// Every key visible to every query.
    pub fn all_visible(grid: Grid) -> Self {
        Self::new(grid, Visibility::default())
    }

    pub(super) fn new(grid: Grid, visibility: Visibility) -> Self {
        Self { grid, visibility, memo: Memo::default(), map: Memo::default() }
    }

    /// Whether nothing is hidden.
    pub fn is_all_visible(&self) -> bool {
        self.visibility.is_all_visible()
    }

    /// Whether the query may see the key.
    ///
    /// # Panics
    ///
    /// If an index lies outside the mask.
    pub fn is_visible(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let (queries, keys) = (self.grid.queries(), self.grid.keys());
        assert!(
            batch < self.grid.batch() && query < queries && key < keys,
            "expected a cell of {:?}, got batch {batch}, query {query}, key {key}",
            self.grid
        );
        // The axis of the batch is full or 1, and of size 1 it starts over for every row.
        let in_span = self
            .spans()
            .is_none_or(|spans| spans[(batch * queries + query) % spans.len()].contains(key));
        let key_hidden =
            self.hidden_keys().is_some_and(|hidden| hidden[(batch * keys + key) % hidden.len()]);
        let cell_hidden =
            self.hidden_cells().is_some_and(|cells| cells.is_hidden(batch, head, query, key));
        in_span && !key_hidden && !cell_hidden
    }

    /// The mask as the kernels of a GPU read it, for a plan with this visibility; nothing on a CPU.
    ///
    /// The one built last is remembered: a stack of layers uploads it once.
    pub(crate) fn kernel_map(&self, device: &Device, plan: &Plan) -> Option<Tensor<1, Int>> {
        let key = (device.clone(), plan.scoring.slopes.clone());
        self.map.get_or_build(key, || kernels::map(plan, device))
    }

    /// The grid that the mask was lowered on.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The visible spans of each query, `[batch or 1, queries]` row-major, if there are spans.
    pub fn spans(&self) -> Option<&[RowSpans]> {
        self.visibility.spans.as_deref()
    }

    /// The keys hidden from every query, `[batch or 1, keys]` row-major, if there are any.
    pub fn hidden_keys(&self) -> Option<&[bool]> {
        self.visibility.hidden_keys.as_deref()
    }

    /// The dense rest, if there is one.
    pub fn hidden_cells(&self) -> Option<&HiddenCells> {
        self.visibility.hidden_cells.as_ref()
    }
}
