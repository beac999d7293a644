//! The future hidden.

use std::fmt;
use std::ops::Range;

use super::{Cell, Leaf, Predicate};
use crate::mask::{Cause, Mask};

/// See [`Mask::look_ahead`].
pub(super) struct LookAhead;

impl Mask {
    /// Hides the future: a query sees the keys up to its own position, its own included.
    ///
    /// Vaswani et al. 2017, "Attention Is All You Need", section 3.2.3.
    pub fn look_ahead() -> Self {
        Leaf::LookAhead.into()
    }
}

impl Predicate for LookAhead {
    fn is_visible(&self, cell: &Cell) -> bool {
        cell.key_position <= cell.query_position
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        future(cell)
    }

    fn range(&self, _batch: usize, query: i64) -> Option<Range<i64>> {
        Some(i64::MIN..query.saturating_add(1))
    }
}

/// Why a key behind its query is hidden, by whichever leaf.
pub(super) fn future(cell: &Cell) -> (Cause, String) {
    let Cell { query_position: query, key_position: key, .. } = cell;
    (Cause::Future, format!("key position {key} comes after query position {query}"))
}

impl fmt::Display for LookAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("look_ahead")
    }
}
