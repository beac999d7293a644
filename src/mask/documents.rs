//! Packed documents: several sequences one behind the other in a row, each blind to the others.
//!
//! Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination", section 3.2.

use serde::{Deserialize, Serialize};

use super::Grid;
use crate::{Error, Result};

/// The document id of each position, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Documents {
    ids: Vec<Vec<i64>>,
}

impl Documents {
    pub(super) fn from_ids(ids: Vec<Vec<i64>>) -> Self {
        Self { ids }
    }

    pub(super) fn from_lengths<Row: IntoIterator<Item = usize>>(
        rows: impl IntoIterator<Item = Row>,
    ) -> Self {
        let ids = |row: Row| {
            row.into_iter()
                .zip(0..)
                .flat_map(|(length, id)| std::iter::repeat_n(id, length))
                .collect()
        };
        Self { ids: rows.into_iter().map(ids).collect() }
    }

    /// Those of other rows: row `i` is row `rows[i]` of these.
    pub(super) fn select_rows(&self, rows: &[usize]) -> Self {
        Self { ids: rows.iter().map(|&row| self.ids[row].clone()).collect() }
    }

    /// The document at `position`.
    pub(super) fn id(&self, batch: usize, position: i64) -> i64 {
        self.ids[batch][position as usize]
    }

    /// The pieces of a row: `(id, length)` of each stretch of equal ids.
    pub(super) fn pieces(&self, batch: usize) -> impl Iterator<Item = (i64, usize)> {
        self.ids[batch].chunk_by(|a, b| a == b).map(|piece| (piece[0], piece.len()))
    }

    pub(super) fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Whether no document comes in several pieces.
    pub(super) fn in_one_piece(&self) -> bool {
        (0..self.rows()).all(|row| {
            let mut ids: Vec<i64> = self.pieces(row).map(|(id, _)| id).collect();
            let pieces = ids.len();
            ids.sort_unstable();
            ids.dedup();
            ids.len() == pieces
        })
    }

    /// For each position of a row the positions of its piece, `(start, end)`.
    pub(super) fn piece_of_position(&self, batch: usize) -> Vec<(i64, i64)> {
        let mut pieces = Vec::with_capacity(self.ids[batch].len());
        for (_, length) in self.pieces(batch) {
            let start = pieces.len() as i64;
            pieces.resize(pieces.len() + length, (start, start + length as i64));
        }
        pieces
    }

    /// One row of documents for each row of the batch, as long as the queries and keys reach.
    pub(super) fn check(&self, grid: &Grid) -> Result<()> {
        let refuse = |expected, got| Err(Error::Mask { mask: "documents", expected, got });
        if self.rows() != grid.batch() {
            return refuse(
                format!("documents for each of the {} rows of the batch", grid.batch()),
                format!("{} rows", self.rows()),
            );
        }
        let (start, end) = grid.span_of_positions();
        for (row, ids) in self.ids.iter().enumerate() {
            if start < 0 || end > ids.len() as i64 {
                return refuse(
                    format!(
                        "documents that reach from position {start} to {end}, as the queries and \
                         keys do; give padding a document of its own"
                    ),
                    format!("0 to {} in batch row {row}", ids.len()),
                );
            }
        }
        Ok(())
    }
}
