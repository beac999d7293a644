//! Nothing hidden.

use std::fmt;
use std::ops::Range;

use super::{Cell, Leaf, Predicate};
use crate::mask::{Cause, Mask};

/// See [`Mask::all_visible`].
pub(super) struct AllVisible;

impl Mask {
    /// Hides nothing: the identity of `&`. Its opposite, `!Mask::all_visible()`, hides everything.
    pub fn all_visible() -> Self {
        Leaf::AllVisible.into()
    }
}

impl Predicate for AllVisible {
    fn is_visible(&self, _cell: &Cell) -> bool {
        true
    }

    fn why_hidden(&self, _cell: &Cell) -> (Cause, String) {
        unreachable!("all_visible hides nothing")
    }

    fn range(&self, _batch: usize, _query: i64) -> Option<Range<i64>> {
        Some(i64::MIN..i64::MAX)
    }

    fn depends_on_query(&self) -> bool {
        false
    }
}

impl fmt::Display for AllVisible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all_visible")
    }
}
