//! The first keys, visible to every query: a prefix, or sinks. One rule by two names.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Cell, Leaf, Predicate, position};
use crate::mask::{Cause, Mask, Past};

/// See [`Mask::prefix`].
pub(in crate::mask) type Prefix = FirstKeys<false>;
/// See [`Mask::sinks`].
pub(in crate::mask) type Sinks = FirstKeys<true>;

/// The number of first keys, and by which name they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct FirstKeys<const SINKS: bool>(usize);

impl Mask {
    /// The first `keys` positions, visible to every query; nothing else.
    ///
    /// `prefix(n) | look_ahead()` is the prefix language model (Raffel et al. 2020, "Exploring the
    /// Limits of Transfer Learning", section 3.2.1). For a prefix of another size in each row use
    /// [`Mask::lengths`] in its place.
    pub fn prefix(keys: usize) -> Self {
        Leaf::Prefix(FirstKeys(keys)).into()
    }

    /// The first `keys` positions, to be kept in sight of a window that has left them behind.
    ///
    /// `(window | sinks(n)) & look_ahead()`: Xiao et al. 2023, "Efficient Streaming Language Models
    /// with Attention Sinks", section 3.2. The same rule as [`Mask::prefix`], by its other name.
    pub fn sinks(keys: usize) -> Self {
        Leaf::Sinks(FirstKeys(keys)).into()
    }
}

impl<const SINKS: bool> Predicate for FirstKeys<SINKS> {
    fn is_visible(&self, cell: &Cell) -> bool {
        cell.key_position < position(self.0)
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let (key, keys) = (cell.key_position, self.0);
        (Cause::Prefix, format!("key position {key} is not one of the first {keys}"))
    }

    fn range(&self, _batch: usize, _query: i64) -> Option<Range<i64>> {
        Some(i64::MIN..position(self.0))
    }

    fn past(&self) -> Past {
        Past::sinks(self.0)
    }

    fn depends_on_query(&self) -> bool {
        false
    }

    fn counts_from_zero(&self) -> bool {
        true
    }
}

impl<const SINKS: bool> fmt::Display for FirstKeys<SINKS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", if SINKS { "sinks" } else { "prefix" }, self.0)
    }
}
