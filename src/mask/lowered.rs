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

use super::Grid;

/// The visible keys `start..end` of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First visible key.
    pub start: u32,
    /// One past the last visible key; at most `start` if the query sees nothing.
    pub end: u32,
}

/// A host array of flags that broadcasts to `[batch, heads, queries, keys]`: axes are full or 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenCells {
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`.
    pub shape: [usize; 4],
    /// Row-major, true = hidden.
    pub hidden: Arc<[bool]>,
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
}

impl LoweredMask {
    /// Every key visible to every query.
    pub fn all_visible(grid: Grid) -> Self {
        Self { grid, spans: None, hidden_keys: None, hidden_cells: None }
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
