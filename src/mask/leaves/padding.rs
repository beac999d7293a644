//! Padding: told by token ids, by lengths (right padding), or by pad counts (left padding).

use std::fmt;
use std::ops::Range;

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::flags::FlagSource;
use super::{Cell, Leaf, Predicate, position};
use crate::mask::expression::List;
use crate::mask::{Cause, Grid, Mask, Past};
use crate::{Error, Result};

/// See [`Mask::lengths`]: `[batch]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct Lengths(Vec<usize>);

/// See [`Mask::pad_counts`]: `[batch]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mask) struct PadCounts(Vec<usize>);

impl Mask {
    /// Hides right padding: row `b` of the batch sees the positions before `lengths[b]`.
    ///
    /// One length for each row of the batch; a length of 0 hides every key of its row. Lengths
    /// never guess: a real token that happens to equal the pad id stays visible.
    pub fn lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        Leaf::Lengths(Lengths(lengths.into_iter().collect())).into()
    }

    /// Hides left padding: row `b` of the batch sees the positions from `counts[b]` on.
    pub fn pad_counts(counts: impl IntoIterator<Item = usize>) -> Self {
        Leaf::PadCounts(PadCounts(counts.into_iter().collect())).into()
    }

    /// Hides every token that equals `pad_id`, wherever it stands.
    ///
    /// `tokens`: `[batch, keys]`, read to the host, which waits for a GPU. A real token that equals the pad id is hidden
    /// too: where that can happen, say how long the rows are with [`Mask::lengths`] or
    /// [`Mask::pad_counts`].
    pub fn padding(tokens: &Tensor<2, Int>, pad_id: i64) -> Self {
        let [batch, keys] = tokens.dims();
        let hidden = tokens.to_data().iter::<i64>().map(|token| token == pad_id).collect();
        Self::flags(FlagSource::Padding { pad_id }, [batch, 1, 1, keys], hidden)
    }
}

impl Predicate for Lengths {
    fn is_visible(&self, cell: &Cell) -> bool {
        cell.key_position < position(self.0[cell.batch])
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let (key, length) = (cell.key_position, self.0[cell.batch]);
        (Cause::Padding, format!("key position {key} is not before length {length}"))
    }

    fn range(&self, batch: usize, _query: i64) -> Option<Range<i64>> {
        Some(i64::MIN..position(self.0[batch]))
    }

    fn past(&self) -> Past {
        Past::sinks(self.0.iter().copied().max().unwrap_or(0))
    }

    fn depends_on_batch(&self) -> bool {
        true
    }

    fn depends_on_query(&self) -> bool {
        false
    }

    fn is_made_for_places(&self) -> bool {
        true
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        check_counts("lengths", &self.0, grid)
    }

    fn select_rows(&self, rows: &[usize]) -> Option<Leaf> {
        Some(Leaf::Lengths(Self(select(&self.0, rows))))
    }

    fn cut_to(&self, tokens: usize) -> Option<Leaf> {
        Some(Leaf::Lengths(Self(cut(&self.0, tokens))))
    }
}

impl Predicate for PadCounts {
    fn is_visible(&self, cell: &Cell) -> bool {
        cell.key_position >= position(self.0[cell.batch])
    }

    fn why_hidden(&self, cell: &Cell) -> (Cause, String) {
        let (key, count) = (cell.key_position, self.0[cell.batch]);
        (Cause::Padding, format!("key position {key} is before the pad count {count}"))
    }

    fn range(&self, batch: usize, _query: i64) -> Option<Range<i64>> {
        Some(position(self.0[batch])..i64::MAX)
    }

    fn depends_on_batch(&self) -> bool {
        true
    }

    fn depends_on_query(&self) -> bool {
        false
    }

    fn is_made_for_places(&self) -> bool {
        true
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        check_counts("pad_counts", &self.0, grid)
    }

    fn select_rows(&self, rows: &[usize]) -> Option<Leaf> {
        Some(Leaf::PadCounts(Self(select(&self.0, rows))))
    }

    fn cut_to(&self, tokens: usize) -> Option<Leaf> {
        Some(Leaf::PadCounts(Self(cut(&self.0, tokens))))
    }
}

/// The counts of these rows.
pub(super) fn select(counts: &[usize], rows: &[usize]) -> Vec<usize> {
    rows.iter().map(|&row| counts[row]).collect()
}

fn cut(counts: &[usize], tokens: usize) -> Vec<usize> {
    counts.iter().map(|&count| count.min(tokens)).collect()
}

/// One count for each row of the batch.
pub(super) fn check_rows(mask: &'static str, counts: &[usize], grid: &Grid) -> Result<()> {
    if counts.len() != grid.batch() {
        return Err(Error::Mask {
            mask,
            expected: format!("one for each of the {} rows of the batch", grid.batch()),
            got: format!("{} of them", counts.len()),
        });
    }
    Ok(())
}

/// One count for each row of the batch, none beyond the last key.
fn check_counts(mask: &'static str, counts: &[usize], grid: &Grid) -> Result<()> {
    check_rows(mask, counts, grid)?;
    let most = grid.positions_end();
    match counts.iter().position(|&count| position(count) > most) {
        None => Ok(()),
        Some(row) => Err(Error::Mask {
            mask,
            expected: format!(
                "at most {most}, as the keys end there; cut it to the keys if they are meant to be \
                 the front of a longer sequence"
            ),
            got: format!("{} in batch row {row}", counts[row]),
        }),
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lengths({})", List(&self.0))
    }
}

impl fmt::Display for PadCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pad_counts({})", List(&self.0))
    }
}
