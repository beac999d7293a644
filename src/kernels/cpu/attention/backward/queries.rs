//! What a task reads of its queries, once for all tiles of keys.

use pulp::Simd;

use super::super::Real;
use super::super::rows::{is_finite, transpose};
use super::{BackwardPass, QuerySet};
use crate::kernels::Plan;

/// Sizes of a task: all widths in numbers, rows padded to whole vectors.
#[derive(Clone, Copy)]
pub(super) struct TaskSizes {
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) kv_head: usize,
    /// First query and number of queries.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Queries in a panel, and all of them padded.
    pub(super) panel: usize,
    pub(super) width: usize,
    pub(super) key_pad: usize,
    pub(super) value_pad: usize,
}

impl TaskSizes {
    /// The queries of the panel that starts at `start`, counted and padded.
    pub(super) fn panel_at(&self, start: usize) -> (usize, usize) {
        (self.panel.min(self.count - start), self.panel.min(self.width - start))
    }
}

/// What a task knows of its queries.
pub(super) struct Queries<'a, T> {
    /// Panels of `[head_dim][panel]`, and of `[value_dim][panel]` times `scale / sum`.
    pub(super) columns: &'a mut [T],
    pub(super) d_out_columns: &'a mut [T],
    /// `[count][key_pad]`, and `[count][value_pad]` times `1 / sum`; non-finite ones are zero.
    pub(super) rows: &'a mut [T],
    pub(super) d_out_rows: &'a mut [T],
    /// `[width]` each: the maximum, `delta / sum`, `1 / sum`, `scale / sum`.
    pub(super) maxima: &'a mut [T],
    pub(super) deltas: &'a mut [T],
    pub(super) inverses: &'a mut [T],
    pub(super) column_factors: &'a mut [T],
}

impl<T: Real> Queries<'_, T> {
    /// Reads queries, upstream gradients and row statistics; returns the queries of which either
    /// row is not finite.
    #[inline(always)]
    pub(super) fn load<S: Simd>(
        &mut self,
        simd: S,
        pass: &BackwardPass<T>,
        sizes: &TaskSizes,
    ) -> QuerySet {
        let Plan { heads, queries, head_dim, value_dim, .. } = *pass.plan;
        let TaskSizes { batch, head, first, count, key_pad, value_pad, .. } = *sizes;
        let keep = pass.plan.dropout.map_or(1.0, |dropout| dropout.scale());
        let unit = if pass.rule.plain { pass.plan.scoring.scale } else { 1.0 };
        for lane in 0..sizes.width {
            let row = (batch * heads + head) * queries + first + lane.min(count - 1);
            let sum = pass.sums[row].to_f64();
            // a dead row has no sum; lanes behind the last query are like it
            let inverse = if sum == 0.0 || lane >= count { 0.0 } else { 1.0 / sum };
            let max = pass.maxima[row];
            self.maxima[lane] = if max < T::LEAST { T::ZERO } else { max };
            self.inverses[lane] = T::of_f64(inverse * keep);
            self.column_factors[lane] = T::of_f64(inverse * unit * keep);
            self.deltas[lane] = pass.deltas[row];
            self.deltas[lane] *= T::of_f64(inverse * unit);
        }
        let mut non_finite: QuerySet = 0;
        for lane in 0..count {
            let at = [batch, head, first + lane];
            let query = &mut self.rows[lane * key_pad..][..key_pad];
            let d_out = &mut self.d_out_rows[lane * value_pad..][..value_pad];
            let alive = if self.inverses[lane] == T::ZERO { T::ZERO } else { T::ONE };
            pass.inputs.query.real().row(at).copy_to(head_dim, query, alive);
            pass.d_out.row(at).copy_to(value_dim, d_out, self.inverses[lane]);
            if !(is_finite(simd, query) && is_finite(simd, d_out)) {
                non_finite |= 1 << lane;
                query.fill(T::ZERO);
                d_out.fill(T::ZERO);
            }
        }
        for start in (0..sizes.width).step_by(sizes.panel) {
            let (queries, width) = sizes.panel_at(start);
            let at = [batch, head, first + start];
            let columns = &mut self.columns[start * head_dim..][..width * head_dim];
            transpose(pass.inputs.query.real(), at, queries, columns, width);
            let columns = &mut self.d_out_columns[start * value_dim..][..width * value_dim];
            transpose(&pass.d_out, at, queries, columns, width);
            let factors = T::vectors::<S>(&self.column_factors[start..][..width]);
            for column in columns.chunks_exact_mut(width) {
                for (x, &factor) in T::vectors_mut::<S>(column).iter_mut().zip(factors) {
                    *x = T::mul(simd, *x, factor);
                }
            }
        }
        non_finite
    }
}
