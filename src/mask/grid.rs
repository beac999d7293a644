//! Where queries and keys stand: the grid that a mask is asked about.
//!
//! A mask is a rule over positions; a tensor has indices. The grid ties the two together, so that
//! no mask ever guesses how queries and keys line up.

use std::sync::Arc;

use super::Span;
use crate::{Error, Result};

/// The sizes of an attention and the position of each of its queries and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    batch: usize,
    queries: usize,
    query_start: i64,
    keys: KeyPositions,
}

/// Positions of the keys; always increasing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyPositions {
    /// Key `j` stands at position `j`.
    FromZero(usize),
    /// Key `j` stands at the `j`-th of these positions (a rolling cache).
    Listed(Arc<[i64]>),
}

impl Grid {
    /// As many queries as keys: query `i` stands on key `i`.
    pub fn square(batch: usize, length: usize) -> Self {
        Self::with_offset(batch, length, length, 0)
    }

    /// The first query stands on the first key (PyTorch's `is_causal`).
    pub fn top_left(batch: usize, queries: usize, keys: usize) -> Self {
        Self::with_offset(batch, queries, keys, 0)
    }

    /// The last query stands on the last key (new tokens behind a cached past).
    ///
    /// With more queries than keys the first queries stand before every key.
    pub fn bottom_right(batch: usize, queries: usize, keys: usize) -> Self {
        Self::with_offset(batch, queries, keys, keys as i64 - queries as i64)
    }

    /// Query `i` stands at position `i + offset`, key `j` at position `j`.
    pub fn with_offset(batch: usize, queries: usize, keys: usize, offset: i64) -> Self {
        Self { batch, queries, query_start: offset, keys: KeyPositions::FromZero(keys) }
    }

    /// Keys that stand at the listed positions: what a cache keeps that has dropped part of its past.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if the positions do not increase.
    pub fn with_key_positions(
        batch: usize,
        queries: usize,
        query_start: i64,
        positions: impl Into<Arc<[i64]>>,
    ) -> Result<Self> {
        let positions = positions.into();
        if let Some(pair) = positions.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(Error::Mask {
                mask: "Grid::with_key_positions",
                expected: "increasing positions".into(),
                got: format!("{} before {}", pair[0], pair[1]),
            });
        }
        let keys = if positions.iter().copied().eq(0..positions.len() as i64) {
            KeyPositions::FromZero(positions.len())
        } else {
            KeyPositions::Listed(positions)
        };
        Ok(Self { batch, queries, query_start, keys })
    }

    /// The grid of sizes alone, where that leaves no doubt: as many queries as keys.
    ///
    /// # Errors
    ///
    /// [`Error::PositionsNotStated`] if they differ; its text names the choices.
    pub fn of_sizes(batch: usize, queries: usize, keys: usize) -> Result<Self> {
        if queries != keys {
            return Err(Error::PositionsNotStated { queries, keys });
        }
        Ok(Self::square(batch, queries))
    }

    /// Number of rows in the batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        match &self.keys {
            KeyPositions::FromZero(keys) => *keys,
            KeyPositions::Listed(positions) => positions.len(),
        }
    }

    /// Position of query `index`.
    pub fn query_position(&self, index: usize) -> i64 {
        self.query_start.saturating_add(index as i64)
    }

    /// Position of key `index`.
    pub fn key_position(&self, index: usize) -> i64 {
        match &self.keys {
            KeyPositions::FromZero(_) => index as i64,
            KeyPositions::Listed(positions) => positions[index],
        }
    }

    /// The positions of the keys, unless key `j` stands at position `j`.
    pub(crate) fn listed_key_positions(&self) -> Option<Arc<[i64]>> {
        match &self.keys {
            KeyPositions::FromZero(_) => None,
            KeyPositions::Listed(positions) => Some(positions.clone()),
        }
    }

    /// The first key index whose position is at least `position`, or the number of keys.
    pub(crate) fn first_key_from(&self, position: i64) -> usize {
        match &self.keys {
            KeyPositions::FromZero(keys) => position.clamp(0, *keys as i64) as usize,
            KeyPositions::Listed(positions) => positions.partition_point(|&p| p < position),
        }
    }

    /// One past the position of the last key; 0 without keys.
    pub(crate) fn positions_end(&self) -> i64 {
        match &self.keys {
            KeyPositions::FromZero(keys) => *keys as i64,
            KeyPositions::Listed(positions) => {
                positions.last().map_or(0, |last| last.saturating_add(1))
            }
        }
    }

    /// The first position of any query or key and one past the last; `(0, 0)` if there are none.
    pub(crate) fn span_of_positions(&self) -> (i64, i64) {
        let queries =
            (self.queries > 0).then(|| (self.query_start, self.query_position(self.queries)));
        let keys = (self.keys() > 0).then(|| (self.key_position(0), self.positions_end()));
        match (queries, keys) {
            (Some((a, b)), Some((c, d))) => (a.min(c), b.max(d)),
            (one, other) => one.or(other).unwrap_or((0, 0)),
        }
    }

    /// The keys whose positions lie in `start..end`.
    pub(crate) fn span_of(&self, start: i64, end: i64) -> Span {
        Span::of(self.first_key_from(start) as u32, self.first_key_from(end) as u32)
    }
}
