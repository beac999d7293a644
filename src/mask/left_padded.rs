//! The rule for rows that begin with padding, where positions count from the first token behind it.
//!
//! A window or a look-ahead asks how far a key stands from its query, and padding in front of both
//! changes nothing. Sinks, a prefix and chunks ask where a key stands; in rows that begin with
//! padding each row has its own answer.

use super::Mask;
use super::leaf::{Band, Leaf};
use super::rule::Rule;
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
        self.moved(&|band| match band {
            Band::Prefix(_) | Band::Sinks(_) | Band::Chunks(_) => band.behind_pads(counts, true),
            other => other.clone(),
        })
    }

    /// The rule with its queries behind so many padded places in each row, and its keys not: those
    /// of a memory.
    pub(crate) fn with_queries_behind_pads(&self, counts: &[usize]) -> Self {
        self.moved(&|band| match band {
            band if band.depends_on_query() => band.behind_pads(counts, false),
            other => other.clone(),
        })
    }

    fn moved(&self, band: &impl Fn(&Band) -> Band) -> Self {
        match self.rule() {
            Rule::Leaf(Leaf::Band(leaf)) => band(leaf).into(),
            Rule::Leaf(_) => self.clone(),
            Rule::And(a, b) => a.moved(band) & b.moved(band),
            Rule::Or(a, b) => a.moved(band) | b.moved(band),
            Rule::Not(a) => !a.moved(band),
        }
    }

    /// An error if a part of the rule goes by places: it was made for rows without padding, and
    /// what it means behind padding is not known.
    pub(crate) fn check_by_position(&self) -> Result<()> {
        match self.rule() {
            Rule::Leaf(Leaf::Band(Band::Lengths(_) | Band::PadCounts(_)))
            | Rule::Leaf(Leaf::Documents(_) | Leaf::Flags(_)) => Err(Error::Mask {
                mask: "the model's own mask, for rows that are padded on the left",
                expected:
                    "parts that go by position (windows, sinks, prefixes, chunks); give what \
                           goes by place with the input, or pad on the right"
                        .into(),
                got: self.to_string(),
            }),
            Rule::Leaf(_) => Ok(()),
            Rule::And(a, b) | Rule::Or(a, b) => {
                a.check_by_position().and_then(|()| b.check_by_position())
            }
            Rule::Not(a) => a.check_by_position(),
        }
    }
}

impl Band {
    fn behind_pads(&self, counts: &[usize], keys: bool) -> Self {
        Self::BehindPads { band: Box::new(self.clone()), counts: counts.to_vec(), keys }
    }
}
