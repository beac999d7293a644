//! Packed documents: several sequences one behind the other in a row, each blind to the others.
//!
//! Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination", section 3.2.

use std::fmt;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{Cell, Leaf, Predicate};
use crate::mask::array::BroadcastArray;
use crate::mask::expression::List;
use crate::mask::parts::MaskParts;
use crate::mask::{Cause, Grid, Mask, RowSpans};
use crate::{Error, Result};

/// The document id of each position, row by row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::mask) struct Documents {
    ids: Vec<Vec<i64>>,
}

impl Mask {
    /// Documents packed one behind the other in each row, told by their lengths: a query sees its
    /// own document only. Does not hide the future.
    ///
    /// The lengths of a row must reach as far as its queries and keys do; give the padding behind
    /// the last document a document of its own.
    pub fn document_lengths<Row>(rows: impl IntoIterator<Item = Row>) -> Self
    where
        Row: IntoIterator<Item = usize>,
    {
        let ids = |row: Row| {
            row.into_iter()
                .zip(0..)
                .flat_map(|(length, id)| std::iter::repeat_n(id, length))
                .collect()
        };
        Leaf::Documents(Documents { ids: rows.into_iter().map(ids).collect() }).into()
    }

    /// Packed documents told by a document id for each position, `[batch, positions]`: a query sees
    /// the keys of its own id only. Does not hide the future. The ids are read to the host, which waits
    /// for a GPU; [`document_lengths`](Self::document_lengths) asks none.
    ///
    /// A document may come in pieces; then its rule costs `queries * keys` when lowered. In one
    /// piece it costs as much as a window.
    pub fn document_ids(ids: &Tensor<2, Int>) -> Self {
        let [batch, length] = ids.dims();
        let ids: Vec<i64> = ids.to_data().iter::<i64>().collect();
        let row = |row: usize| ids[row * length..][..length].to_vec();
        Leaf::Documents(Documents { ids: (0..batch).map(row).collect() }).into()
    }
}

impl Documents {
    /// The document at `position`.
    fn id(&self, batch: usize, position: i64) -> i64 {
        self.ids[batch][position as usize]
    }

    /// The pieces of a row: `(id, length)` of each stretch of equal ids.
    fn pieces(&self, batch: usize) -> impl Iterator<Item = (i64, usize)> {
        self.ids[batch].chunk_by(|a, b| a == b).map(|piece| (piece[0], piece.len()))
    }

    fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Whether no document comes in several pieces.
    fn in_one_piece(&self) -> bool {
        (0..self.rows()).all(|row| {
            let mut ids: Vec<i64> = self.pieces(row).map(|(id, _)| id).collect();
            let pieces = ids.len();
            ids.sort_unstable();
            ids.dedup();
            ids.len() == pieces
        })
    }

    /// For each position of a row the positions of its piece, `(start, end)`.
    fn piece_of_position(&self, batch: usize) -> Vec<(i64, i64)> {
        let mut pieces = Vec::with_capacity(self.ids[batch].len());
        for (_, length) in self.pieces(batch) {
            let start = pieces.len() as i64;
            pieces.resize(pieces.len() + length, (start, start + length as i64));
        }
        pieces
    }
}

impl Predicate for Documents {
    fn is_visible(&self, cell: &Cell) -> bool {
        self.id(cell.batch, cell.query_position) == self.id(cell.batch, cell.key_position)
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let Cell { batch, query_position: query, key_position: key, .. } = *cell;
        let fact = format!(
            "key position {key} belongs to document {}, query position {query} to {}",
            self.id(batch, key),
            self.id(batch, query)
        );
        (Cause::Document, fact)
    }

    fn depends_on_batch(&self) -> bool {
        true
    }

    fn is_made_for_places(&self) -> bool {
        true
    }

    /// One row of documents for each row of the batch, as long as the queries and keys reach.
    fn check(&self, grid: &Grid) -> Result<()> {
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

    fn select_rows(&self, rows: &[usize]) -> Option<Leaf> {
        let ids = rows.iter().map(|&row| self.ids[row].clone()).collect();
        Some(Leaf::Documents(Self { ids }))
    }

    /// RowSpans, if every document is in one piece.
    fn lower(&self, grid: &Grid) -> MaskParts {
        let (batch, queries, keys) = (grid.batch(), grid.queries(), grid.keys());
        if !self.in_one_piece() {
            let mut hidden = Vec::with_capacity(batch * queries * keys);
            for b in 0..batch {
                for q in 0..queries {
                    let id = self.id(b, grid.query_position(q));
                    hidden.extend((0..keys).map(|k| self.id(b, grid.key_position(k)) != id));
                }
            }
            return MaskParts::flags(BroadcastArray::new([batch, 1, queries, keys], hidden), grid);
        }
        let mut spans = Vec::with_capacity(batch * queries);
        for b in 0..batch {
            let pieces = self.piece_of_position(b);
            spans.extend((0..queries).map(|q| {
                let (start, end) = pieces[grid.query_position(q) as usize];
                RowSpans::from(grid.span_of(start, end))
            }));
        }
        MaskParts::spans(BroadcastArray::new([batch, 1, queries, 1], spans))
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.in_one_piece();
        f.write_str(if whole { "document_lengths(" } else { "document_pieces(" })?;
        let rows: Vec<String> = (0..self.rows())
            .map(|row| {
                let piece = |(id, length)| {
                    if whole { format!("{length}") } else { format!("{length} of {id}") }
                };
                List(&self.pieces(row).map(piece).collect::<Vec<_>>()).to_string()
            })
            .collect();
        write!(f, "{})", List(&rows))
    }
}
