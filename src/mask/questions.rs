//! Questions that a mask answers without a model.

use super::{Grid, LoweredMask, Mask};
use crate::{Error, Result};

/// A query that sees no key: its attention output is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeadRow {
    /// Row of the batch.
    pub batch: usize,
    /// The head, if the mask tells heads apart.
    pub head: Option<usize>,
    /// Index of the query.
    pub query: usize,
}

/// Each of these lowers the mask; to ask several, ask the [`LoweredMask`].
impl Mask {
    /// [`LoweredMask::is_causal`] on a grid.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn is_causal(&self, grid: &Grid) -> Result<bool> {
        Ok(self.lower(grid)?.is_causal())
    }

    /// [`LoweredMask::dead_rows`] on a grid.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn dead_rows(&self, grid: &Grid) -> Result<Vec<DeadRow>> {
        Ok(self.lower(grid)?.dead_rows())
    }

    /// [`LoweredMask::density`] on a grid.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn density(&self, grid: &Grid) -> Result<f64> {
        Ok(self.lower(grid)?.density())
    }

    /// Whether both masks show the same cells of a grid. (`==` compares their expressions.)
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`], for either.
    pub fn equals(&self, other: &Self, grid: &Grid) -> Result<bool> {
        self.lower(grid)?.equals(&other.lower(grid)?)
    }

    /// Whether the other mask shows every cell of a grid that this one shows.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`], for either.
    pub fn is_subset_of(&self, other: &Self, grid: &Grid) -> Result<bool> {
        self.lower(grid)?.is_subset_of(&other.lower(grid)?)
    }
}

impl LoweredMask {
    /// Whether no query sees a key that stands after it.
    pub fn is_causal(&self) -> bool {
        let [batch, heads] = self.batch_and_heads();
        let (first_future, mut hidden) = (
            |query| self.grid.first_key_from(self.grid.query_position(query).saturating_add(1)),
            vec![false; self.grid.keys()],
        );
        self.rows(batch, heads).all(|[b, h, q]| {
            self.hidden_row(b, h, q, &mut hidden);
            hidden[first_future(q)..].iter().all(|&hidden| hidden)
        })
    }

    /// Every query that sees no key.
    pub fn dead_rows(&self) -> Vec<DeadRow> {
        let [_, heads] = self.batch_and_heads();
        let mut hidden = vec![false; self.grid.keys()];
        self.rows(self.grid.batch(), heads)
            .filter(|&[b, h, q]| {
                self.hidden_row(b, h, q, &mut hidden);
                hidden.iter().all(|&hidden| hidden)
            })
            .map(|[batch, head, query]| DeadRow { batch, head: (heads > 1).then_some(head), query })
            .collect()
    }

    /// The part of all cells that is visible, from 0 to 1; 0 if there are no cells.
    pub fn density(&self) -> f64 {
        let [batch, heads] = self.batch_and_heads();
        let mut hidden = vec![false; self.grid.keys()];
        let (mut visible, mut cells) = (0, 0);
        for [b, h, q] in self.rows(batch, heads) {
            self.hidden_row(b, h, q, &mut hidden);
            visible += hidden.iter().filter(|&&hidden| !hidden).count();
            cells += hidden.len();
        }
        if cells == 0 { 0.0 } else { visible as f64 / cells as f64 }
    }

    /// Whether both masks show the same cells.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if they were lowered on different grids.
    pub fn equals(&self, other: &Self) -> Result<bool> {
        self.every_row(other, |a, b| a == b)
    }

    /// Whether the other mask shows every cell that this one shows.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if they were lowered on different grids.
    pub fn is_subset_of(&self, other: &Self) -> Result<bool> {
        self.every_row(other, |a, b| a.iter().zip(b).all(|(&a, &b)| a || !b))
    }

    /// Whether `holds` of the hidden flags of every pair of rows.
    fn every_row(&self, other: &Self, holds: impl Fn(&[bool], &[bool]) -> bool) -> Result<bool> {
        let refuse = |expected: String, got: String| {
            Err(Error::Mask { mask: "masks to compare", expected, got })
        };
        if self.grid != other.grid {
            return refuse(format!("the same grid, {:?}", self.grid), format!("{:?}", other.grid));
        }
        let ([batch, heads], [other_batch, other_heads]) =
            (self.batch_and_heads(), other.batch_and_heads());
        if heads != other_heads && heads != 1 && other_heads != 1 {
            return refuse(format!("{heads} heads"), format!("{other_heads} heads"));
        }
        let (mut a, mut b) = (vec![false; self.grid.keys()], vec![false; self.grid.keys()]);
        Ok(self.rows(batch.max(other_batch), heads.max(other_heads)).all(|[row, h, q]| {
            self.hidden_row(row, h, q, &mut a);
            other.hidden_row(row, h, q, &mut b);
            holds(&a, &b)
        }))
    }

    /// How many rows of the batch and how many heads differ: 1 where they are all alike.
    pub(super) fn batch_and_heads(&self) -> [usize; 2] {
        let (queries, keys) = (self.grid.queries(), self.grid.keys());
        let cells = self.hidden_cells().map_or([1; 4], |cells| cells.shape);
        let batch = self
            .spans()
            .map_or(1, |spans| spans.len() / queries)
            .max(self.hidden_keys().map_or(1, |hidden| hidden.len() / keys))
            .max(cells[0])
            .min(self.grid.batch());
        [batch, cells[1]]
    }

    fn rows(&self, batch: usize, heads: usize) -> impl Iterator<Item = [usize; 3]> + use<> {
        let queries = self.grid.queries();
        (0..batch)
            .flat_map(move |b| (0..heads).flat_map(move |h| (0..queries).map(move |q| [b, h, q])))
    }

    /// The hidden flags of one query.
    pub(super) fn hidden_row(&self, batch: usize, head: usize, query: usize, hidden: &mut [bool]) {
        let keys = hidden.len();
        hidden.fill(self.spans().is_some());
        if let Some(spans) = self.spans() {
            let spans = spans[(batch * self.grid.queries() + query) % spans.len()];
            for span in [spans.first(), spans.second()] {
                hidden[span.start as usize..span.end as usize].fill(false);
            }
        }
        if let Some(flags) = self.hidden_keys() {
            let row = &flags[batch * keys % flags.len()..][..keys];
            hidden.iter_mut().zip(row).for_each(|(hidden, &flag)| *hidden |= flag);
        }
        if let Some(cells) = self.hidden_cells() {
            for (key, hidden) in hidden.iter_mut().enumerate() {
                *hidden |= cells.is_hidden(batch, head, query, key);
            }
        }
    }
}
