//! What a kernel gets: a mask evaluated on a grid, as the AND of three optional parts.
//!
//! - *row spans*: for each batch row and query one visible range of keys;
//! - *hidden keys*: `[batch, keys]`, the same for every query;
//! - *hidden cells*: a dense rest that broadcasts to `[batch, heads, queries, keys]`.
//!
//! A cell is visible if it lies in its row's span, its key is not hidden, and the cell is not
//! hidden. All parts live on the host, so the value is independent of device and backend, and
//! cheap to clone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Grid;
use super::dense::Memo;
use super::parts::FinishedParts;

/// The visible keys `start..end` of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First visible key.
    pub start: u32,
    /// One past the last visible key; at most `start` if the query sees nothing.
    pub end: u32,
}

impl Span {
    /// `start..end`; all empty spans are equal.
    pub(super) fn of(start: u32, end: u32) -> Self {
        if start < end { Self { start, end } } else { Self::default() }
    }

    /// Whether the query sees nothing.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether key `index` lies inside.
    pub fn contains(&self, index: usize) -> bool {
        (self.start as usize..self.end as usize).contains(&index)
    }
}

/// A host array of flags that broadcasts to `[batch, heads, queries, keys]`: axes are full or 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SavedCells", into = "SavedCells")]
pub struct HiddenCells {
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`.
    pub shape: [usize; 4],
    /// Row-major, true = hidden.
    pub hidden: Arc<[bool]>,
}

impl HiddenCells {
    /// Whether the cell is hidden.
    pub fn is_hidden(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let index = [batch, head, query, key].into_iter().zip(self.shape);
        let offset = index
            .fold(0, |offset, (index, size)| offset * size + if size == 1 { 0 } else { index });
        self.hidden[offset]
    }
}

/// [`HiddenCells`] in a file, whose shape and flags may not fit.
#[derive(Serialize, Deserialize)]
struct SavedCells {
    shape: [usize; 4],
    hidden: Vec<bool>,
}

impl TryFrom<SavedCells> for HiddenCells {
    type Error = String;

    fn try_from(SavedCells { shape, hidden }: SavedCells) -> Result<Self, String> {
        let cells = shape.iter().try_fold(1_usize, |cells, &size| cells.checked_mul(size));
        if cells != Some(hidden.len()) {
            return Err(format!(
                "hidden: expected the flags of a shape {shape:?}, got {} flags",
                hidden.len()
            ));
        }
        Ok(Self { shape, hidden: hidden.into() })
    }
}

impl From<HiddenCells> for SavedCells {
    fn from(HiddenCells { shape, hidden }: HiddenCells) -> Self {
        Self { shape, hidden: hidden.to_vec() }
    }
}

/// A mask on a grid, ready for a kernel. See the module for its three parts.
#[derive(Clone, Debug)]
pub struct LoweredMask {
    pub(crate) grid: Grid,
    /// `[batch or 1, queries]`
    pub(crate) spans: Option<Arc<[Span]>>,
    /// `[batch or 1, keys]`, true = hidden
    pub(crate) hidden_keys: Option<Arc<[bool]>>,
    pub(crate) hidden_cells: Option<HiddenCells>,
    /// The dense tensor built last.
    pub(super) memo: Memo,
}

impl LoweredMask {
    /// Every key visible to every query.
    pub fn all_visible(grid: Grid) -> Self {
        Self { grid, spans: None, hidden_keys: None, hidden_cells: None, memo: Memo::default() }
    }

    pub(super) fn from_parts(grid: Grid, parts: FinishedParts) -> Self {
        let FinishedParts { spans, hidden_keys, hidden_cells } = parts;
        Self { grid, spans, hidden_keys, hidden_cells, memo: Memo::default() }
    }

    /// Whether nothing is hidden.
    pub fn is_all_visible(&self) -> bool {
        self.spans.is_none() && self.hidden_keys.is_none() && self.hidden_cells.is_none()
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

    /// The grid that the mask was lowered on.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The visible span of each query, `[batch or 1, queries]` row-major, if there are spans.
    pub fn spans(&self) -> Option<&[Span]> {
        self.spans.as_deref()
    }

    /// The keys hidden from every query, `[batch or 1, keys]` row-major, if there are any.
    pub fn hidden_keys(&self) -> Option<&[bool]> {
        self.hidden_keys.as_deref()
    }

    /// The dense rest, if there is one.
    pub fn hidden_cells(&self) -> Option<&HiddenCells> {
        self.hidden_cells.as_ref()
    }
}
