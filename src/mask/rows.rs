//! The rule for other rows of a batch (reordered, repeated or left out), and for shorter rows: what
//! a cache asks for.

use super::Mask;

impl Mask {
    /// The rule whose row `i` is row `rows[i]` of this one.
    pub(crate) fn select_rows(&self, rows: &[usize]) -> Self {
        self.map_leaves(&|leaf| leaf.predicate().select_rows(rows))
    }

    /// The rule for rows cut to their first `tokens` tokens: lengths and pad counts are at most
    /// `tokens` from here on.
    pub(crate) fn up_to(&self, tokens: usize) -> Self {
        self.map_leaves(&|leaf| leaf.predicate().cut_to(tokens))
    }
}

#[cfg(all(test, any(feature = "ndarray", feature = "flex")))]
mod tests {
    use super::*;
    use crate::mask::Grid;
    use burn::tensor::{Int, Tensor};

    #[test]
    fn rows_follow_their_rule() {
        let device = crate::kernels::cpus().remove(0);
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
