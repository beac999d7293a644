//! The rule for other rows of a batch (reordered, repeated or left out), and for the front of the
//! rows: what a cache does with them.

use super::leaf::{Band, Flags, Leaf};
use super::rule::Rule;
use super::{HiddenCells, Mask};

impl Mask {
    /// The rule whose row `i` is row `rows[i]` of this one.
    pub(crate) fn select_rows(&self, rows: &[usize]) -> Self {
        let of = |mask: &Mask| mask.select_rows(rows);
        match self.rule() {
            Rule::Leaf(leaf) => leaf.select_rows(rows).into(),
            Rule::And(a, b) => of(a) & of(b),
            Rule::Or(a, b) => of(a) | of(b),
            Rule::Not(a) => !of(a),
        }
    }

    /// The rule for the first `tokens` tokens of rows that it was told whole: counts that reach
    /// beyond them are cut, which changes nothing for them.
    pub(crate) fn up_to(&self, tokens: usize) -> Self {
        let of = |mask: &Mask| mask.up_to(tokens);
        let cut = |counts: &[usize]| counts.iter().map(|&count| count.min(tokens)).collect();
        match self.rule() {
            Rule::Leaf(Leaf::Band(Band::Lengths(lengths))) => Band::Lengths(cut(lengths)).into(),
            Rule::Leaf(Leaf::Band(Band::PadCounts(pads))) => Band::PadCounts(cut(pads)).into(),
            Rule::Leaf(_) => self.clone(),
            Rule::And(a, b) => of(a) & of(b),
            Rule::Or(a, b) => of(a) | of(b),
            Rule::Not(a) => !of(a),
        }
    }
}

impl Leaf {
    fn select_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Band(band) => Self::Band(band.select_rows(rows)),
            Self::Documents(documents) => Self::Documents(documents.select_rows(rows)),
            Self::Flags(flags) => Self::Flags(flags.select_rows(rows)),
        }
    }
}

impl Band {
    fn select_rows(&self, rows: &[usize]) -> Self {
        let of = |counts: &[usize]| rows.iter().map(|&row| counts[row]).collect();
        match self {
            Self::Lengths(lengths) => Self::Lengths(of(lengths)),
            Self::PadCounts(pads) => Self::PadCounts(of(pads)),
            Self::BehindPads { band, counts, keys } => Self::BehindPads {
                band: Box::new(band.select_rows(rows)),
                counts: of(counts),
                keys: *keys,
            },
            other => other.clone(),
        }
    }
}

impl Flags {
    fn select_rows(&self, rows: &[usize]) -> Self {
        let [batch, heads, queries, keys] = self.cells.shape;
        if batch == 1 {
            return self.clone();
        }
        let size = heads * queries * keys;
        let row = |&row: &usize| &self.cells.hidden[row * size..][..size];
        let hidden = rows.iter().flat_map(row).copied().collect();
        let cells = HiddenCells { shape: [rows.len(), heads, queries, keys], hidden };
        Self { cells, ..self.clone() }
    }
}

#[cfg(all(test, feature = "ndarray"))]
#[allow(deprecated)]
mod tests {
    use super::*;
    use crate::mask::Grid;
    use burn::tensor::{Int, Tensor};

    #[test]
    fn rows_follow_their_rule() {
        let device = burn::tensor::Device::ndarray();
        let ids = Tensor::<2, Int>::from_data([[0, 0, 1], [0, 1, 1], [0, 1, 2]], &device);
        let mask = (Mask::look_ahead() & Mask::document_ids(&ids))
            | (!Mask::lengths([3, 1, 2]) & Mask::padding(&ids, 1) & Mask::pad_counts([0, 2, 1]))
            | (Mask::sinks(1).left_padded([1, 2, 0]) & Mask::look_ahead());
        let rows = [2, 0, 0, 1];
        let all = mask.lower(&Grid::square(3, 3)).unwrap();
        let chosen = mask.select_rows(&rows).lower(&Grid::square(4, 3)).unwrap();
        for (i, row) in rows.into_iter().enumerate() {
            for (query, key) in (0..3).flat_map(|q| (0..3).map(move |k| (q, k))) {
                let cell =
                    |mask: &crate::mask::LoweredMask, row| mask.is_visible(row, 0, query, key);
                assert_eq!(cell(&chosen, i), cell(&all, row), "row {row}, {query}, {key}");
            }
        }
    }
}
