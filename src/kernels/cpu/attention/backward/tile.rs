//! One task: a tile of queries against all the keys that it sees.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::Real;
use super::super::ordered_sum::TaskPlace;
use super::super::panel::{KEY_TILE, KeySet, QueryPanel};
use super::super::rows::TensorRows;
use super::super::strided::{offset, result_row};
use super::super::tasks::Workspace;
use super::super::tile_product::Right;
use super::non_finite::NonFinite;
use super::queries::{Queries, TaskSizes};
use super::scores::ScoreTile;
use super::step::PanelStep;
use super::{BackwardPass, QUERY_TILE, QuerySet};
use crate::kernels::Plan;

pub(super) struct QueryTask<'a, T: Real> {
    pub(super) pass: &'a BackwardPass<'a, T>,
    pub(super) task: usize,
    pub(super) workspace: &'a mut Workspace<T>,
}

/// What a task computes for a tile of keys.
struct Buffers<'a, T> {
    /// `[keys][width]`: weights, gradients of dot products, gradients of the bias.
    weights: &'a mut [T],
    d_scores: &'a mut [T],
    d_bias: &'a mut [T],
    /// `[keys][panel]`
    panel_scores: &'a mut [T],
    panel_d_weights: &'a mut [T],
    derivatives: &'a mut [T],
    /// `[keys][key_pad]`, `[keys][value_pad]`
    d_key: &'a mut [T],
    d_value: &'a mut [T],
    key_copy: &'a mut [T],
    value_copy: &'a mut [T],
}

impl<T: Real> WithSimd for QueryTask<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { pass, task, workspace } = self;
        let Plan { heads, queries, keys, head_dim, value_dim, .. } = *pass.plan;
        let place = pass.order.place(task);
        let (batch, head, tile) = pass.place(task);
        let first = tile * QUERY_TILE;
        let count = QUERY_TILE.min(queries - first);
        let lanes = T::lanes::<S>();
        let width = count.next_multiple_of(lanes);
        let sizes = TaskSizes {
            batch,
            head,
            kv_head: pass.plan.kv_head(head),
            first,
            count,
            panel: (2 * lanes).min(width),
            width,
            key_pad: head_dim.next_multiple_of(lanes),
            value_pad: value_dim.next_multiple_of(lanes),
        };
        let TaskSizes { panel, key_pad, value_pad, .. } = sizes;
        let key_tile = KEY_TILE.min(keys);
        let if_any = |any: bool, len: usize| if any { len } else { 0 };
        let [
            columns,
            d_out_columns,
            rows,
            d_out_rows,
            d_query,
            maxima,
            deltas,
            inverses,
            column_factors,
            weights,
            d_scores,
            d_bias,
            panel_scores,
            panel_d_weights,
            derivatives,
            d_key,
            d_value,
            key_copy,
            value_copy,
        ] = workspace.slices([
            width * head_dim,
            width * value_dim,
            count * key_pad,
            count * value_pad,
            count * key_pad,
            width,
            width,
            width,
            width,
            key_tile * width,
            key_tile * width,
            if_any(pass.d_bias.is_some(), key_tile * width),
            key_tile * panel,
            key_tile * panel,
            if_any(pass.plan.scoring.softcap.is_some(), key_tile * panel),
            key_tile * key_pad,
            key_tile * value_pad,
            key_tile * key_pad,
            key_tile * value_dim,
        ]);
        let mut of_queries = Queries {
            columns,
            d_out_columns,
            rows,
            d_out_rows,
            maxima,
            deltas,
            inverses,
            column_factors,
        };
        let mut buffers = Buffers {
            weights,
            d_scores,
            d_bias,
            panel_scores,
            panel_d_weights,
            derivatives,
            d_key,
            d_value,
            key_copy,
            value_copy,
        };
        let non_finite = of_queries.load(simd, pass, &sizes);
        d_query.fill(T::ZERO);
        let panels: Vec<_> = (0..width)
            .step_by(panel)
            .map(|start| {
                let at = [batch, head, first + start];
                QueryPanel::new(pass.plan, at, sizes.panel_at(start).0, &pass.bounds[batch])
            })
            .collect();
        let visited = pass.visited_by(batch, tile);
        let mut seen = Vec::with_capacity(panels.len());
        for key_tile in visited.tiles(KEY_TILE) {
            let keys = visited.within(&(key_tile * KEY_TILE..(key_tile + 1) * KEY_TILE));
            seen.clear();
            seen.extend(panels.iter().map(|panel| {
                let seen = panel.bounds.within(&keys);
                if seen.is_empty() || panel.is_hidden(seen.clone()) {
                    return 0..0;
                }
                seen.start - keys.start..seen.end - keys.start
            }));
            if seen.iter().all(Range::is_empty) {
                place.pass(key_tile);
                continue;
            }
            let visit = Visit { pass, sizes, panels: &panels, seen: &seen, keys, non_finite };
            visit.run(simd, &of_queries, &mut buffers, d_query);
            visit.add_in_order(&place, key_tile, &buffers);
        }
        if let Some(sum) = &pass.d_query {
            for lane in 0..count {
                let at = result_row([heads, queries, head_dim], [batch, head, first + lane]);
                // SAFETY: the rows of these queries belong to this task alone.
                let row = unsafe { sum.slice(at, head_dim) };
                row.copy_from_slice(&d_query[lane * key_pad..][..head_dim]);
            }
        }
    }
}

/// The task at one tile of keys.
struct Visit<'a, T: Real> {
    pass: &'a BackwardPass<'a, T>,
    sizes: TaskSizes,
    panels: &'a [QueryPanel<'a>],
    /// For each panel what it sees of the tile, counted from the tile's first key.
    seen: &'a [Range<usize>],
    keys: Range<usize>,
    /// Queries that are not finite.
    non_finite: QuerySet,
}

impl<T: Real> Visit<'_, T> {
    /// Everything but adding to the keys' and values' gradients.
    #[inline(always)]
    fn run<S: Simd>(
        &self,
        simd: S,
        queries: &Queries<T>,
        buffers: &mut Buffers<T>,
        d_query: &mut [T],
    ) {
        let pass = self.pass;
        let Plan { head_dim, value_dim, .. } = *pass.plan;
        let TaskSizes { batch, head, kv_head, first, count, panel, width, key_pad, value_pad } =
            self.sizes;
        let lanes = T::lanes::<S>();
        let Buffers { weights, d_scores, d_bias, d_key, d_value, .. } = buffers;
        let count_keys = self.keys.len();
        let at = [batch, kv_head, self.keys.start];
        let readers = self.panels.len();
        let copy = &mut *buffers.key_copy;
        let key = TensorRows::read(simd, &pass.inputs.key, at, count_keys, key_pad, readers, copy);
        let copy = &mut *buffers.value_copy;
        let value =
            TensorRows::read(simd, &pass.inputs.value, at, count_keys, value_dim, readers, copy);
        if self.seen.iter().any(|seen| seen.len() < count_keys) {
            weights[..count_keys * width].fill(T::ZERO);
            d_scores[..count_keys * width].fill(T::ZERO);
            d_bias.fill(T::ZERO);
        }
        // keys that some query of the task does not see
        let mut partial: KeySet = 0;
        for ((start, panel), seen) in (0..width).step_by(panel).zip(self.panels).zip(self.seen) {
            let all = KeySet::MAX >> (KEY_TILE - count_keys);
            if seen.is_empty() {
                partial |= all;
                continue;
            }
            partial |= all & !(KeySet::MAX >> (KEY_TILE - seen.len()) << seen.start);
            let part = self.sizes.panel_at(start).1;
            let step = PanelStep {
                pass,
                panel,
                keys: self.keys.start + seen.start..self.keys.start + seen.end,
                key: key.skip(seen.start),
                value: value.skip(seen.start),
                query: &queries.columns[start * head_dim..][..part * head_dim],
                d_out: &queries.d_out_columns[start * value_dim..][..part * value_dim],
                maxima: &queries.maxima[start..][..part],
                deltas: &queries.deltas[start..][..part],
                scores: &mut buffers.panel_scores[..seen.len() * part],
                d_weights: &mut buffers.panel_d_weights[..seen.len() * part],
                derivatives: buffers.derivatives.get_mut(..seen.len() * part).unwrap_or_default(),
                weights: &mut weights[seen.start * width + start..],
                d_scores: &mut d_scores[seen.start * width + start..],
                d_bias: d_bias.get_mut(seen.start * width + start..).unwrap_or_default(),
                row: width,
            };
            let hidden = match part / lanes {
                1 => step.run::<S, 1>(simd),
                _ => step.run::<S, 2>(simd),
            };
            partial |= hidden << seen.start;
        }
        let scores = ScoreTile {
            data: d_scores,
            row: width,
            keys: count_keys,
            queries: count,
            seen: self.seen,
            panel,
        };
        let kept = ScoreTile { data: weights, ..scores };
        scores.by_key(simd, Right { data: queries.rows, step: key_pad }, key_pad, d_key);
        kept.by_key(simd, Right { data: queries.d_out_rows, step: value_pad }, value_pad, d_value);
        let non_finite_keys = key.non_finite(simd, partial, head_dim);
        if non_finite_keys == 0 {
            scores.by_query(simd, Right { data: key.data, step: key.step }, key_pad, d_query);
        } else {
            let clean = key.without(non_finite_keys, count_keys, key_pad);
            scores.by_query(simd, Right { data: &clean, step: key_pad }, key_pad, d_query);
        }
        if non_finite_keys != 0 || self.non_finite != 0 {
            let non_finite =
                NonFinite { pass, at: [batch, head, first], keys: self.keys.clone(), key };
            let found = (self.non_finite, non_finite_keys);
            non_finite.add(&scores, &kept, found, queries.inverses, [d_query, d_key, d_value]);
        }
    }

    /// Adds to the gradients of keys, values and bias when all earlier tasks have.
    #[inline(always)]
    fn add_in_order(&self, place: &TaskPlace, key_tile: usize, buffers: &Buffers<T>) {
        let pass = self.pass;
        let Plan { heads, kv_heads, keys, head_dim, value_dim, .. } = *pass.plan;
        let TaskSizes { batch, head, kv_head, first, count, width, key_pad, value_pad, .. } =
            self.sizes;
        let group = heads / kv_heads;
        let by_all = pass.d_bias.as_ref().is_some_and(|bias| bias.by_all);
        place.wait(key_tile, |task| {
            let (other_batch, other_head, tile) = pass.place(task);
            let same = other_batch == batch && other_head / group == kv_head;
            (same || by_all) && pass.visited_by(other_batch, tile).visits(key_tile, KEY_TILE)
        });
        for (index, key) in self.keys.clone().enumerate() {
            for (sum, part, pad, dim) in [
                (&pass.d_key, &*buffers.d_key, key_pad, head_dim),
                (&pass.d_value, &*buffers.d_value, value_pad, value_dim),
            ] {
                if let Some(sum) = sum {
                    let at = result_row([kv_heads, keys, dim], [batch, kv_head, key]);
                    // SAFETY: only tasks of this batch row and key/value head touch this row, and
                    // it is its place in the order.
                    let row = unsafe { sum.slice(at, dim) };
                    row.iter_mut().zip(&part[index * pad..]).for_each(|(to, &x)| *to += x);
                }
            }
        }
        if let Some(bias) = &pass.d_bias {
            for (row, key) in buffers.d_bias.chunks_exact(width).zip(self.keys.clone()) {
                for (lane, &d_score) in row[..count].iter().enumerate() {
                    let at = offset(&bias.strides, [batch, head, first + lane, key]);
                    // SAFETY: a bias of its own for each batch row and head is touched by tasks of
                    // this key/value head alone; else all tasks wait for each other.
                    let sum = unsafe { bias.sum.slice(at, 1) };
                    sum[0] += d_score;
                }
            }
        }
        place.pass(key_tile);
    }
}
