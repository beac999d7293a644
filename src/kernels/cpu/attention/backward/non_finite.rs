//! Products with rows that are not finite, cell by visible cell.
//!
//! Where a key is hidden from a query, the weight is 0 and so is the score's gradient; but zero times
//! NaN or infinity is NaN. The products leave such rows out (zeros stand in their place), and what
//! they give to those who do see them is added here.

use std::ops::Range;

use super::super::Real;
use super::super::panel::{KEY_TILE, KeySet};
use super::super::rows::TensorRows;
use super::scores::ScoreTile;
use super::{BackwardPass, QuerySet};
use crate::kernels::Plan;

/// Where the tile stands, and its keys.
pub(super) struct NonFinite<'a, T: Real> {
    pub(super) pass: &'a BackwardPass<'a, T>,
    /// Batch row, head, first query.
    pub(super) at: [usize; 3],
    pub(super) keys: Range<usize>,
    pub(super) key: TensorRows<'a, T>,
}

impl<T: Real> NonFinite<'_, T> {
    /// Adds what non-finite queries give to keys and values, and non-finite keys to queries.
    #[cold]
    #[inline(never)]
    pub(super) fn add(
        &self,
        scores: &ScoreTile<T>,
        weights: &ScoreTile<T>,
        (queries, keys): (QuerySet, KeySet),
        inverses: &[T],
        [d_query, d_key, d_value]: [&mut [T]; 3],
    ) {
        let Plan { head_dim, value_dim, .. } = *self.pass.plan;
        let [batch, head, first] = self.at;
        let longest = KEY_TILE.min(self.pass.plan.keys);
        let (key_pad, value_pad) = (d_key.len() / longest, d_value.len() / longest);
        let product = |mut a: T, b: T| {
            a *= b;
            a
        };
        for lane in 0..scores.queries {
            let at = [batch, head, first + lane];
            let (query, d_out) = (self.pass.inputs.query.real().row(at), self.pass.d_out.row(at));
            for index in 0..scores.keys {
                let (by_query, by_key) = (queries >> lane & 1 == 1, keys >> index & 1 == 1);
                let key = self.keys.start + index;
                if !(by_query || by_key) || !self.pass.plan.is_visible(batch, head, at[2], key) {
                    continue;
                }
                let cell = index * scores.row + lane;
                if by_query {
                    for c in 0..head_dim {
                        d_key[index * key_pad + c] += product(scores.data[cell], query.get(c));
                    }
                    for c in 0..value_dim {
                        let d_out = product(inverses[lane], d_out.get(c));
                        d_value[index * value_pad + c] += product(weights.data[cell], d_out);
                    }
                }
                if by_key {
                    for (c, &key) in self.key.row(index, head_dim).iter().enumerate() {
                        d_query[lane * key_pad + c] += product(scores.data[cell], key);
                    }
                }
            }
        }
    }
}
