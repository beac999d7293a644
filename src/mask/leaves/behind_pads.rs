//! A leaf in rows that begin with padding: its position 0 lies behind the padded places.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::padding::{check_rows, select};
use super::{Cell, Leaf, Predicate, position};
use crate::Result;
use crate::mask::expression::List;
use crate::mask::{Cause, Grid, Past};

/// `band`, where position 0 of row `b` lies behind `counts[b]` padded places: that of its queries,
/// and that of its `keys` too unless they are those of a memory.
///
/// The names of the fields are those of saved masks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct BehindPads {
    band: Box<Leaf>,
    counts: Vec<usize>,
    keys: bool,
}

impl BehindPads {
    pub(in crate::mask) fn of(leaf: &Leaf, counts: &[usize], keys: bool) -> Leaf {
        let band = Box::new(leaf.clone());
        Leaf::BehindPads(Self { band, counts: counts.to_vec(), keys })
    }

    fn leaf(&self) -> &dyn Predicate {
        self.band.predicate()
    }

    /// The cell as the leaf counts it.
    fn counted(&self, cell: &Cell) -> Cell {
        let pads = position(self.counts[cell.batch]);
        Cell {
            query_position: cell.query_position.saturating_sub(pads),
            key_position: cell.key_position.saturating_sub(if self.keys { pads } else { 0 }),
            ..*cell
        }
    }
}

impl Predicate for BehindPads {
    fn is_visible(&self, cell: &Cell) -> bool {
        self.leaf().is_visible(&self.counted(cell))
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let (cause, fact) = self.leaf().why_hidden(&self.counted(cell));
        let pads = self.counts[cell.batch];
        (cause, format!("{fact}, as counted behind {pads} padded places"))
    }

    fn range(&self, batch: usize, query: i64) -> Option<Range<i64>> {
        let pads = position(self.counts[batch]);
        let visible = self.leaf().range(batch, query.saturating_sub(pads))?;
        let by = if self.keys { pads } else { 0 };
        Some(visible.start.saturating_add(by)..visible.end.saturating_add(by))
    }

    fn past(&self) -> Past {
        match self.leaf().past() {
            Past::Window { window, sinks } if sinks > 0 => {
                let pads = self.counts.iter().copied().max().unwrap_or(0);
                Past::Window { window, sinks: sinks.saturating_add(pads) }
            }
            past => past,
        }
    }

    fn depends_on_batch(&self) -> bool {
        true
    }

    fn depends_on_query(&self) -> bool {
        self.leaf().depends_on_query()
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        check_rows("left_padded", &self.counts, grid)?;
        self.leaf().check(grid)
    }

    fn select_rows(&self, rows: &[usize]) -> Option<Leaf> {
        let band = match self.leaf().select_rows(rows) {
            Some(leaf) => Box::new(leaf),
            None => self.band.clone(),
        };
        let counts = select(&self.counts, rows);
        Some(Leaf::BehindPads(Self { band, counts, keys: self.keys }))
    }
}

impl fmt::Display for BehindPads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.keys { "left_padded" } else { "queries_left_padded" };
        write!(f, "{}.{what}({})", self.band, List(&self.counts))
    }
}
