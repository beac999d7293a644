//! Receptive fields: who may move whom, derived from the promised mask.
//!
//! A mask speaks of one attention. What a whole model promises follows from it:
//!
//! - every position may move its own output (residuals, feed-forward);
//! - `n` layers carry information over `n` steps: position `j` may move output `i` if there is a
//!   chain `j -> ... -> i` of at most `n` steps, each of which the mask shows. With the number of
//!   layers unknown, chains of any length. For look-ahead, prefix, document and padding masks
//!   nothing changes, since chains lead nowhere that one step does not; a window widens with each
//!   layer.

use crate::mask::{Grid, Mask};
use crate::{Error, Result};

/// A square table of flags, one word of 64 at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BitMatrix {
    length: usize,
    words: usize,
    bits: Vec<u64>,
}

impl BitMatrix {
    pub fn new(length: usize) -> Self {
        let words = length.div_ceil(64);
        Self { length, words, bits: vec![0; length * words] }
    }

    pub fn from_fn(length: usize, mut flag: impl FnMut(usize, usize) -> bool) -> Self {
        let mut flags = Self::new(length);
        for query in 0..length {
            for key in 0..length {
                if flag(query, key) {
                    flags.set(query, key);
                }
            }
        }
        flags
    }

    pub fn get(&self, query: usize, key: usize) -> bool {
        self.bits[query * self.words + key / 64] >> (key % 64) & 1 == 1
    }

    pub fn set(&mut self, query: usize, key: usize) {
        self.bits[query * self.words + key / 64] |= 1 << (key % 64);
    }

    pub fn length(&self) -> usize {
        self.length
    }

    fn row(&self, query: usize) -> &[u64] {
        &self.bits[query * self.words..][..self.words]
    }

    /// What is reached by a step of `self` behind a step of `first`, and by `first` alone.
    fn extended_by(&self, first: &BitMatrix) -> BitMatrix {
        let mut reached = first.clone();
        for query in 0..self.length {
            for middle in (0..self.length).filter(|&middle| self.get(query, middle)) {
                let words = first.row(middle).to_vec();
                let row = &mut reached.bits[query * self.words..][..self.words];
                row.iter_mut().zip(words).for_each(|(word, more)| *word |= more);
            }
        }
        reached
    }
}

/// What is promised for one row of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReceptiveField {
    /// What one attention sees, by the mask alone (of any head).
    pub visible: BitMatrix,
    /// What may move what, through all layers.
    pub may_move: BitMatrix,
    /// The output at a position predicts the input there, and must not see it.
    pub own_hidden: bool,
}

impl ReceptiveField {
    /// True if no query sees the key.
    pub fn is_padding(&self, key: usize) -> bool {
        (0..self.visible.length()).all(|query| !self.visible.get(query, key))
    }

    /// True if the query sees no key.
    pub fn is_dead(&self, query: usize) -> bool {
        (0..self.visible.length()).all(|key| !self.visible.get(query, key))
    }

    /// The keys that may not move the query.
    pub fn hidden_from(&self, query: usize) -> Vec<usize> {
        (0..self.visible.length()).filter(|&key| !self.may_move.get(query, key)).collect()
    }
}

/// What is promised for every row of the batch.
#[derive(Clone, Debug)]
pub(super) struct ReceptiveFields {
    batch: usize,
    /// One that all rows share, or one for each.
    rows: Vec<ReceptiveField>,
}

impl ReceptiveFields {
    /// `own_hidden`: the output at a position predicts the input there.
    pub fn new(
        mask: &Mask,
        batch: usize,
        length: usize,
        layers: Option<usize>,
        own_hidden: bool,
    ) -> Result<Self> {
        if layers == Some(0) {
            return Err(Error::Config {
                field: "CausalityCheck::layers",
                expected: "at least 1".into(),
                got: "0".into(),
            });
        }
        let lowered = mask.lower(&Grid::square(batch, length))?;
        let heads = lowered.hidden_cells().map_or(1, |cells| cells.shape[1]);
        let visible_in = |row| {
            BitMatrix::from_fn(length, |query, key| {
                (0..heads).any(|head| lowered.is_visible(row, head, query, key))
            })
        };
        let mut rows: Vec<_> =
            (0..batch).map(|row| receptive_field(visible_in(row), layers)).collect();
        if own_hidden {
            rows.iter_mut().for_each(|row| *row = row.one_later());
        }
        if rows.iter().all(|row| *row == rows[0]) {
            rows.truncate(1);
        }
        Ok(Self { batch, rows })
    }

    /// True if the rows of the batch differ, so that each must be looked at by itself.
    pub fn is_row_bound(&self) -> bool {
        self.rows.len() > 1
    }

    pub fn batch(&self) -> usize {
        self.batch
    }

    pub fn length(&self) -> usize {
        self.rows[0].visible.length()
    }

    pub fn row(&self, row: usize) -> &ReceptiveField {
        &self.rows[self.table_of(row)]
    }

    /// Number of different tables: 1, or one a row.
    pub fn tables(&self) -> usize {
        self.rows.len()
    }

    /// The table that a row of the batch belongs to.
    pub fn table_of(&self, row: usize) -> usize {
        if self.is_row_bound() { row } else { 0 }
    }
}

impl ReceptiveField {
    /// The same for outputs that predict the input at their own position: each sees what the one
    /// before it sees.
    fn one_later(&self) -> Self {
        let length = self.visible.length();
        let later = |flags: &BitMatrix| {
            BitMatrix::from_fn(length, |query, key| query > 0 && flags.get(query - 1, key))
        };
        let [visible, may_move] = [&self.visible, &self.may_move].map(later);
        Self { visible, may_move, own_hidden: true }
    }
}

fn receptive_field(visible: BitMatrix, layers: Option<usize>) -> ReceptiveField {
    let length = visible.length();
    let step = BitMatrix::from_fn(length, |query, key| query == key || visible.get(query, key));
    let mut may_move = step.clone();
    // Chains longer than the sequence visit a position twice: they lead nowhere new.
    for _ in 1..layers.unwrap_or(length).min(length) {
        let further = step.extended_by(&may_move);
        if further == may_move {
            break;
        }
        may_move = further;
    }
    ReceptiveField { visible, may_move, own_hidden: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_widen_a_window_and_nothing_else() {
        let window = Mask::window_keys(3).unwrap() & Mask::look_ahead();
        let reach = |layers| {
            let promise = ReceptiveFields::new(&window, 2, 11, layers, false).unwrap();
            (0..11).filter(|&key| promise.row(1).may_move.get(10, key)).count()
        };
        assert_eq!([1, 2, 3].map(|n| reach(Some(n))), [3, 5, 7]);
        assert_eq!(reach(None), 11);

        let prefix = Mask::prefix(4) | Mask::look_ahead();
        let promise = ReceptiveFields::new(&prefix, 1, 7, None, false).unwrap();
        assert_eq!(promise.row(0).may_move, promise.row(0).visible);
    }

    #[test]
    fn rows_are_told_apart_only_where_they_differ() {
        let padded = Mask::look_ahead() & Mask::pad_counts([0, 2]);
        let promise = ReceptiveFields::new(&padded, 2, 5, None, false).unwrap();
        assert!(promise.is_row_bound());
        assert!(promise.row(1).is_padding(1) && !promise.row(1).is_padding(2));
        assert!(promise.row(1).is_dead(1) && !promise.row(0).is_dead(0));
        assert!(promise.row(1).may_move.get(1, 1));
        assert!(
            !ReceptiveFields::new(&Mask::look_ahead(), 2, 5, None, false).unwrap().is_row_bound()
        );
    }
}
