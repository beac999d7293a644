//! Chunks: blocks of positions, each blind to the others.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Cell, Leaf, Predicate, not_zero, position};
use crate::Result;
use crate::mask::{Cause, Mask, Past};

/// See [`Mask::chunks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct Chunks(NonZeroUsize);

impl Mask {
    /// Chunks of `keys` positions: a query sees its own chunk only. Does not hide the future.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a size of 0.
    pub fn chunks(keys: usize) -> Result<Self> {
        Ok(Leaf::Chunks(Chunks(not_zero("Mask::chunks", keys)?)).into())
    }
}

impl Chunks {
    fn size(&self) -> i64 {
        position(self.0.get())
    }

    fn chunk_of(&self, query: i64) -> Range<i64> {
        let start = query.div_euclid(self.size()).saturating_mul(self.size());
        start..start.saturating_add(self.size())
    }
}

impl Predicate for Chunks {
    fn is_visible(&self, cell: &Cell) -> bool {
        let chunk = |position: i64| position.div_euclid(self.size());
        chunk(cell.query_position) == chunk(cell.key_position)
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let Cell { query_position: query, key_position: key, .. } = *cell;
        let Range { start, end } = self.chunk_of(query);
        let last = end - 1;
        let fact = format!(
            "key position {key} is outside {start}..={last}, the chunk of query position {query}"
        );
        (Cause::Chunk, fact)
    }

    fn range(&self, _batch: usize, query: i64) -> Option<Range<i64>> {
        Some(self.chunk_of(query))
    }

    fn past(&self) -> Past {
        Past::window(self.0.get())
    }

    fn counts_from_zero(&self) -> bool {
        true
    }
}

impl fmt::Display for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunks({})", self.0)
    }
}
