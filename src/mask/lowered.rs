//! What a kernel gets: a mask evaluated on a grid, as the AND of three optional parts.
//!
//! - *row spans*: for each batch row and query one visible range of keys, or two;
//! - *hidden keys*: `[batch, keys]`, the same for every query;
//! - *hidden cells*: a dense rest that broadcasts to `[batch, heads, queries, keys]`.
//!
//! A cell is visible if it lies in its row's spans, its key is not hidden, and the cell is not
//! hidden. The parts are plain data on the host, the same for every device, and cheap to clone. What a
//! device was last given of them is kept beside them.

use burn::tensor::{Bool, Device, Int, Tensor};

use super::Grid;
use super::memo::Memo;
use crate::kernels::{self, HiddenCells, Plan, RowSpans, Slopes, Span, Visibility};

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

    /// Whether each query sees the keys up to its own, where the last query stands on the last key, and
    /// nothing else is hidden: what other kernels call causal. No query is dead then.
    pub(crate) fn is_plain_causal(&self) -> bool {
        let (queries, keys) = (self.grid.queries(), self.grid.keys());
        let Visibility { spans: Some(spans), hidden_keys: None, hidden_cells: None } =
            &self.visibility
        else {
            return false;
        };
        let end = |query: usize| (keys - queries + query + 1) as u32;
        let expected = |query| RowSpans::one(Span { start: 0, end: end(query) });
        queries <= keys
            && spans
                .chunks(queries)
                .all(|row| row.iter().enumerate().all(|(query, &spans)| spans == expected(query)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;

    #[test]
    fn plain_causal_is_bottom_right_and_nothing_else() {
        let is_plain =
            |mask: Mask, grid: Grid| mask.lower(&grid).expect("a mask for it").is_plain_causal();
        let causal = Mask::look_ahead;
        assert!(is_plain(causal(), Grid::square(2, 5)));
        assert!(is_plain(causal(), Grid::bottom_right(2, 3, 7)));
        assert!(is_plain(causal() & Mask::document_lengths([[5], [5]]), Grid::square(2, 5)));
        for (mask, grid) in [
            (causal(), Grid::top_left(2, 3, 7)),
            (causal(), Grid::bottom_right(2, 7, 3)), // dead rows
            (Mask::all_visible(), Grid::square(2, 5)),
            (Mask::look_back(1) & causal(), Grid::square(2, 5)),
            (causal() | Mask::prefix(3), Grid::square(2, 5)),
            (causal() & Mask::lengths([5, 4]), Grid::square(2, 5)),
            (causal() & Mask::pad_counts([0, 2]), Grid::square(2, 5)),
            (causal() & Mask::document_lengths([vec![5], vec![2, 3]]), Grid::square(2, 5)),
            (!causal(), Grid::square(2, 5)),
        ] {
            assert!(!is_plain(mask.clone(), grid.clone()), "{mask:?} on {grid:?}");
        }
    }
}
