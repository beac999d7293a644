//! The rule for rows that begin with padding, where positions count from the first token behind it.
//!
//! A window or a look-ahead asks how far a key stands from its query, and padding in front of both
//! changes nothing. Sinks, a prefix and chunks ask where a key stands; in rows that begin with
//! padding each row has its own answer.

use super::Mask;
use super::leaves::BehindPads;
use crate::{Error, Result};

impl Mask {
    /// The same rule for rows that are padded on the left, and the padding hidden: row `b` begins
    /// with `counts[b]` padded places, and its position 0 is the first token behind them.
    ///
    /// Counts, lengths, documents and flags stay as they are: they were given for the places of a
    /// row.
    ///
    /// ```
    /// use burn_decoder::mask::{Grid, Mask};
    ///
    /// let mask = Mask::sinks(2).left_padded([3, 0]).lower(&Grid::square(2, 6))?;
    /// let sinks = |row| (0..6).filter(|&key| mask.is_visible(row, 0, 5, key)).collect::<Vec<_>>();
    /// assert_eq!(sinks(0), [3, 4]);
    /// assert_eq!(sinks(1), [0, 1]);
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    pub fn left_padded(&self, counts: impl IntoIterator<Item = usize>) -> Self {
        let counts: Vec<usize> = counts.into_iter().collect();
        self.behind_pads(&counts) & Self::pad_counts(counts)
    }

    /// The rule with its queries and keys behind so many padded places in each row.
    pub(crate) fn behind_pads(&self, counts: &[usize]) -> Self {
        self.map_leaves(&|leaf| {
            leaf.predicate().counts_from_zero().then(|| BehindPads::of(leaf, counts, true))
        })
    }

    /// The rule with its queries behind so many padded places in each row, and its keys not: those
    /// of a memory.
    pub(crate) fn with_queries_behind_pads(&self, counts: &[usize]) -> Self {
        self.map_leaves(&|leaf| {
            let predicate = leaf.predicate();
            let moves = predicate.depends_on_query() && !predicate.is_made_for_places();
            moves.then(|| BehindPads::of(leaf, counts, false))
        })
    }

    /// An error if a leaf was made for the places of rows without padding: what it means behind
    /// padding is not known.
    pub(crate) fn check_by_position(&self) -> Result<()> {
        self.try_leaves(&|leaf| match leaf.predicate().is_made_for_places() {
            false => Ok(()),
            true => Err(Error::Mask {
                mask: "the model's own mask, for rows that are padded on the left",
                expected: "rules of positions (windows, sinks, prefixes, chunks); give lengths, \
                           documents and flags with the input, or pad on the right"
                    .into(),
                got: leaf.to_string(),
            }),
        })
    }
}
