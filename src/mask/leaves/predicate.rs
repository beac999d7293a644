//! What every leaf says of itself.

use std::fmt::Display;
use std::ops::Range;

use super::Leaf;
use crate::Result;
use crate::mask::array::BroadcastArray;
use crate::mask::parts::MaskParts;
use crate::mask::{Cause, Grid, Past};

/// One cell of a grid: where it lies in the tensor, and where its query and its key stand.
pub(in crate::mask) struct Cell {
    pub(in crate::mask) batch: usize,
    pub(in crate::mask) head: usize,
    pub(in crate::mask) query: usize,
    pub(in crate::mask) key: usize,
    pub(in crate::mask) query_position: i64,
    pub(in crate::mask) key_position: i64,
}

impl Cell {
    /// A cell of a grid, by its indices.
    pub(in crate::mask) fn of(grid: &Grid, [batch, head, query, key]: [usize; 4]) -> Self {
        let (query_position, key_position) = (grid.query_position(query), grid.key_position(key));
        Self { batch, head, query, key, query_position, key_position }
    }
}

/// A leaf: which keys a query sees, in three forms. [`is_visible`](Predicate::is_visible) is the
/// definition, [`range`](Predicate::range) makes it cheap, [`past`](Predicate::past) bounds it.
///
/// `Display` prints the leaf in the words of its constructor.
pub(in crate::mask) trait Predicate: Display {
    /// Whether the query sees the key. Asked after [`Predicate::check`] has passed the grid.
    fn is_visible(&self, cell: &Cell) -> bool;

    /// The kind of hiding, and what holds in this cell, which the leaf hides.
    fn why_hidden(&self, cell: &Cell) -> (Cause, String);

    /// The positions that the query at position `query` sees in batch row `batch`. `None` if they
    /// are not one range: then each cell is asked, which costs `queries * keys`.
    fn range(&self, _batch: usize, _query: i64) -> Option<Range<i64>> {
        None
    }

    /// The part of the past that a query sees, or more.
    fn past(&self) -> Past {
        Past::Whole
    }

    /// Whether the leaf differs between rows of the batch.
    fn depends_on_batch(&self) -> bool {
        false
    }

    /// Whether the leaf differs between queries.
    fn depends_on_query(&self) -> bool {
        true
    }

    /// Whether the leaf asks where a key stands, not only how far it is from its query: with the
    /// tokens moved behind padding, its position 0 must move along.
    fn counts_from_zero(&self) -> bool {
        false
    }

    /// Whether the leaf was made for the places of a row, padded ones included: counts of pads,
    /// documents and flags of tensors. Padding that is added later can't be told to it.
    fn is_made_for_places(&self) -> bool {
        false
    }

    /// The number of heads that the leaf tells apart.
    fn heads(&self) -> usize {
        1
    }

    /// Refuses a grid that the leaf was not made for.
    fn check(&self, _grid: &Grid) -> Result<()> {
        Ok(())
    }

    /// The leaf whose row `i` is row `rows[i]` of this one; `None` if its rows are alike.
    fn select_rows(&self, _rows: &[usize]) -> Option<Leaf> {
        None
    }

    /// The leaf for the first `tokens` tokens of each row, where that needs another one.
    fn cut_to(&self, _tokens: usize) -> Option<Leaf> {
        None
    }

    /// The leaf on a grid that it has passed.
    fn lower(&self, grid: &Grid) -> MaskParts {
        let batch = if self.depends_on_batch() { grid.batch() } else { 1 };
        let queries = if self.depends_on_query() { grid.queries() } else { 1 };
        let rows = || (0..batch).flat_map(|b| (0..queries).map(move |q| (b, q)));

        let spans = rows().map(|(b, q)| {
            let visible = self.range(b, grid.query_position(q))?;
            Some(grid.span_of(visible.start, visible.end).into())
        });
        if let Some(spans) = spans.collect() {
            return MaskParts::spans(BroadcastArray::new([batch, 1, queries, 1], spans));
        }
        let cells = rows().flat_map(|(b, q)| {
            (0..grid.keys()).map(move |k| !self.is_visible(&Cell::of(grid, [b, 0, q, k])))
        });
        MaskParts::flags(
            BroadcastArray::new([batch, 1, queries, grid.keys()], cells.collect()),
            grid,
        )
    }
}
