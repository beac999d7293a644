//! The position of every token: what position embeddings are computed from.
//!
//! Attention alone does not know order, so a model is told where each token stands. A token's
//! index in a tensor is not its position: left-padded rows start later, packed documents start
//! anew. Like a mask this is a rule, small and on the host, that is asked for a piece of the rows:
//! all of it, or what comes after the tokens already seen.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the tokens of each row are numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Positions {
    /// By their index in the row: 0, 1, 2, ...
    #[default]
    Index,
    /// From the first token behind the padding on: row `b` begins with `counts[b]` padded places.
    /// Those get position 0; nothing visible depends on it.
    LeftPadded(Vec<usize>),
    /// Starting again at 0 wherever the document's number changes, `[batch, tokens]`.
    Documents(Vec<Vec<i64>>),
    /// As listed, `[batch, tokens]`.
    Listed(Vec<Vec<usize>>),
}

impl Positions {
    /// The positions of the tokens `start..start + queries` of every row.
    ///
    /// # Errors
    ///
    /// [`Error::Positions`] if the rule is made for another batch, or does not reach that far.
    pub fn ids(&self, batch: usize, start: usize, queries: usize) -> Result<PositionIds> {
        let range = start..start + queries;
        let rows = match self {
            Self::Index => return Ok(PositionIds { rows: 1, queries, ids: range.collect() }),
            Self::LeftPadded(counts) => counts.len(),
            Self::Documents(rows) => check_reach(rows, range.end)?,
            Self::Listed(rows) => check_reach(rows, range.end)?,
        };
        if rows != batch {
            return Err(Error::Positions {
                expected: format!("one row for each of the {batch} of the batch"),
                got: format!("{rows} rows"),
            });
        }
        let ids = match self {
            Self::Index => Vec::new(),
            Self::LeftPadded(counts) => counts
                .iter()
                .flat_map(|&count| range.clone().map(move |index| index.saturating_sub(count)))
                .collect(),
            Self::Documents(rows) => {
                rows.iter().flat_map(|row| restarting(row).skip(start).take(queries)).collect()
            }
            Self::Listed(rows) => {
                rows.iter().flat_map(|row| &row[range.clone()]).copied().collect()
            }
        };
        Ok(PositionIds { rows, queries, ids })
    }
}

impl Positions {
    /// Number of padded places at the front of each row, if there are any.
    pub(crate) fn pads(&self) -> Option<&[usize]> {
        match self {
            Self::LeftPadded(counts) if counts.iter().any(|&count| count > 0) => Some(counts),
            _ => None,
        }
    }

    /// The rule for other rows: row `i` is row `rows[i]` of this one.
    pub(crate) fn select_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Index => Self::Index,
            Self::LeftPadded(counts) => {
                Self::LeftPadded(rows.iter().map(|&row| counts[row]).collect())
            }
            Self::Documents(all) => {
                Self::Documents(rows.iter().map(|&row| all[row].clone()).collect())
            }
            Self::Listed(all) => Self::Listed(rows.iter().map(|&row| all[row].clone()).collect()),
        }
    }
}

/// 0, 1, 2, ... and again from 0 where the value changes.
fn restarting(documents: &[i64]) -> impl Iterator<Item = usize> {
    documents.chunk_by(|a, b| a == b).flat_map(|document| 0..document.len())
}

/// The number of rows, if all of them reach up to `end`.
fn check_reach<T>(rows: &[Vec<T>], end: usize) -> Result<usize> {
    match rows.iter().position(|row| row.len() < end) {
        None => Ok(rows.len()),
        Some(row) => Err(Error::Positions {
            expected: format!("at least {end} in every row, as there are tokens"),
            got: format!("{} in row {row}", rows[row].len()),
        }),
    }
}

/// The positions of a batch of tokens. Made by [`Positions::ids`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionIds {
    rows: usize,
    queries: usize,
    ids: Vec<usize>,
}

impl PositionIds {
    /// Number of rows: the batch, or 1 if all its rows have the same positions.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of positions in a row.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// All of them, `[rows, queries]` row-major.
    pub fn as_slice(&self) -> &[usize] {
        &self.ids
    }

    /// The largest, if there is any.
    pub fn max(&self) -> Option<usize> {
        self.ids.iter().copied().max()
    }
}
