//! One task: a tile of queries against all the keys that it sees.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::super::gemm::Right;
use super::super::problem::{offset, result_row};
use super::super::rows::{Rows, is_finite, transpose};
use super::super::tasks::Workspace;
use super::super::turns::Place;
use super::super::visible::{KEY_TILE, KeySet, Panel};
use super::super::{Problem, Real};
use super::scores::Scores;
use super::spoilt::Spoilt;
use super::step::Step;
use super::{Plan, QUERY_TILE, QuerySet};

pub(super) struct Tile<'a, T: Real> {
    pub(super) plan: &'a Plan<'a, T>,
    pub(super) task: usize,
    pub(super) workspace: &'a mut Workspace<T>,
}

/// Sizes of a task: all widths in numbers, rows padded to whole vectors.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    head: usize,
    kv_head: usize,
    /// First query and number of queries.
    first: usize,
    count: usize,
    /// Queries in a panel, and all of them padded.
    panel: usize,
    width: usize,
    key_pad: usize,
    value_pad: usize,
}

impl Sizes {
    /// The queries of the panel that starts at `start`, counted and padded.
    fn panel_at(&self, start: usize) -> (usize, usize) {
        (self.panel.min(self.count - start), self.panel.min(self.width - start))
    }
}

/// What a task knows of its queries.
struct Queries<'a, T> {
    /// Panels of `[head_dim][panel]`, and of `[value_dim][panel]` times `scale / sum`.
    columns: &'a mut [T],
    d_out_columns: &'a mut [T],
    /// `[count][key_pad]`, and `[count][value_pad]` times `1 / sum`; spoilt ones are zero.
    rows: &'a mut [T],
    d_out_rows: &'a mut [T],
    /// `[width]` each: the maximum, `delta / sum`, `1 / sum`, `scale / sum`.
    maxima: &'a mut [T],
    deltas: &'a mut [T],
    inverses: &'a mut [T],
    column_factors: &'a mut [T],
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
    slopes: &'a mut [T],
    /// `[keys][key_pad]`, `[keys][value_pad]`
    d_key: &'a mut [T],
    d_value: &'a mut [T],
    key_copy: &'a mut [T],
    value_copy: &'a mut [T],
}

impl<T: Real> WithSimd for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { plan, task, workspace } = self;
        let Problem { heads, queries, keys, head_dim, value_dim, .. } = *plan.problem;
        let turn = plan.turns.place(task);
        let (batch, head, tile) = plan.place(task);
        let first = tile * QUERY_TILE;
        let count = QUERY_TILE.min(queries - first);
        let lanes = T::lanes::<S>();
        let width = count.next_multiple_of(lanes);
        let sizes = Sizes {
            batch,
            head,
            kv_head: plan.problem.kv_head(head),
            first,
            count,
            panel: (2 * lanes).min(width),
            width,
            key_pad: head_dim.next_multiple_of(lanes),
            value_pad: value_dim.next_multiple_of(lanes),
        };
        let Sizes { panel, key_pad, value_pad, .. } = sizes;
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
            slopes,
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
            if_any(plan.d_bias.is_some(), key_tile * width),
            key_tile * panel,
            key_tile * panel,
            if_any(plan.problem.softcap.is_some(), key_tile * panel),
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
            slopes,
            d_key,
            d_value,
            key_copy,
            value_copy,
        };
        let spoilt = of_queries.load(simd, plan, &sizes);
        d_query.fill(T::ZERO);
        let panels: Vec<_> = (0..width)
            .step_by(panel)
            .map(|start| {
                let at = [batch, head, first + start];
                Panel::new(plan.problem, at, sizes.panel_at(start).0, &plan.bounds[batch])
            })
            .collect();
        let start = panels.iter().map(|panel| panel.seen.start).min().unwrap_or(0);
        let end = panels.iter().map(|panel| panel.seen.end).max().unwrap_or(0);
        let mut seen = Vec::with_capacity(panels.len());
        for key_tile in plan.seen[batch * plan.tiles + tile].clone() {
            let keys = start.max(key_tile * KEY_TILE)..end.min((key_tile + 1) * KEY_TILE);
            seen.clear();
            seen.extend(panels.iter().map(|panel| {
                let seen = keys.start.max(panel.seen.start)..keys.end.min(panel.seen.end);
                if seen.is_empty() || panel.is_hidden(seen.clone()) {
                    return 0..0;
                }
                seen.start - keys.start..seen.end - keys.start
            }));
            if seen.iter().all(Range::is_empty) {
                turn.pass(key_tile);
                continue;
            }
            let visit = Visit { plan, sizes, panels: &panels, seen: &seen, keys, spoilt };
            visit.run(simd, &of_queries, &mut buffers, d_query);
            visit.add_in_turn(&turn, key_tile, &buffers);
        }
        if let Some(sum) = &plan.d_query {
            for lane in 0..count {
                let at = result_row([heads, queries, head_dim], [batch, head, first + lane]);
                // SAFETY: the rows of these queries belong to this task alone.
                let row = unsafe { sum.slice(at, head_dim) };
                row.copy_from_slice(&d_query[lane * key_pad..][..head_dim]);
            }
        }
    }
}

impl<T: Real> Queries<'_, T> {
    /// Reads queries, upstream gradients and row statistics; returns the queries of which either
    /// row is not finite.
    #[inline(always)]
    fn load<S: Simd>(&mut self, simd: S, plan: &Plan<T>, sizes: &Sizes) -> QuerySet {
        let Problem { heads, queries, head_dim, value_dim, .. } = *plan.problem;
        let Sizes { batch, head, first, count, key_pad, value_pad, .. } = *sizes;
        let keep = plan.problem.dropout.map_or(1.0, |dropout| dropout.scale());
        let unit = if plan.rule.plain { plan.problem.scale } else { 1.0 };
        for lane in 0..sizes.width {
            let row = (batch * heads + head) * queries + first + lane.min(count - 1);
            let sum = plan.sums[row].to_f64();
            // a dead row has no sum; lanes behind the last query are like it
            let inverse = if sum == 0.0 || lane >= count { 0.0 } else { 1.0 / sum };
            let max = plan.maxima[row];
            self.maxima[lane] = if max < T::LEAST { T::ZERO } else { max };
            self.inverses[lane] = T::of_f64(inverse * keep);
            self.column_factors[lane] = T::of_f64(inverse * unit * keep);
            self.deltas[lane] = plan.deltas[row];
            self.deltas[lane] *= T::of_f64(inverse * unit);
        }
        let mut spoilt: QuerySet = 0;
        for lane in 0..count {
            let at = [batch, head, first + lane];
            let query = &mut self.rows[lane * key_pad..][..key_pad];
            let d_out = &mut self.d_out_rows[lane * value_pad..][..value_pad];
            let alive = if self.inverses[lane] == T::ZERO { T::ZERO } else { T::ONE };
            plan.inputs.query.row(at).copy_to(head_dim, query, alive);
            plan.d_out.row(at).copy_to(value_dim, d_out, self.inverses[lane]);
            if !(is_finite(simd, query) && is_finite(simd, d_out)) {
                spoilt |= 1 << lane;
                query.fill(T::ZERO);
                d_out.fill(T::ZERO);
            }
        }
        for start in (0..sizes.width).step_by(sizes.panel) {
            let (queries, width) = sizes.panel_at(start);
            let at = [batch, head, first + start];
            let columns = &mut self.columns[start * head_dim..][..width * head_dim];
            transpose(&plan.inputs.query, at, queries, columns, width);
            let columns = &mut self.d_out_columns[start * value_dim..][..width * value_dim];
            transpose(&plan.d_out, at, queries, columns, width);
            let factors = T::vectors::<S>(&self.column_factors[start..][..width]);
            for column in columns.chunks_exact_mut(width) {
                for (x, &factor) in T::vectors_mut::<S>(column).iter_mut().zip(factors) {
                    *x = T::mul(simd, *x, factor);
                }
            }
        }
        spoilt
    }
}

/// The task at one tile of keys.
struct Visit<'a, T: Real> {
    plan: &'a Plan<'a, T>,
    sizes: Sizes,
    panels: &'a [Panel<'a>],
    /// For each panel what it sees of the tile, counted from the tile's first key.
    seen: &'a [Range<usize>],
    keys: Range<usize>,
    /// Queries that are not finite.
    spoilt: QuerySet,
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
        let plan = self.plan;
        let Problem { head_dim, value_dim, .. } = *plan.problem;
        let Sizes { batch, head, kv_head, first, count, panel, width, key_pad, value_pad } =
            self.sizes;
        let lanes = T::lanes::<S>();
        let Buffers { weights, d_scores, d_bias, d_key, d_value, .. } = buffers;
        let count_keys = self.keys.len();
        let at = [batch, kv_head, self.keys.start];
        let readers = self.panels.len();
        let copy = &mut *buffers.key_copy;
        let key = Rows::read(&plan.inputs.key, at, count_keys, key_pad, readers, copy);
        let copy = &mut *buffers.value_copy;
        let value = Rows::read(&plan.inputs.value, at, count_keys, value_dim, readers, copy);
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
            let step = Step {
                plan,
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
                slopes: buffers.slopes.get_mut(..seen.len() * part).unwrap_or_default(),
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
        let scores = Scores {
            data: d_scores,
            row: width,
            keys: count_keys,
            queries: count,
            seen: self.seen,
            panel,
        };
        let kept = Scores { data: weights, ..scores };
        scores.by_key(simd, Right { data: queries.rows, step: key_pad }, key_pad, d_key);
        kept.by_key(simd, Right { data: queries.d_out_rows, step: value_pad }, value_pad, d_value);
        let spoilt_keys = key.spoilt(simd, partial, head_dim);
        if spoilt_keys == 0 {
            scores.by_query(simd, Right { data: key.data, step: key.step }, key_pad, d_query);
        } else {
            let clean = key.without(spoilt_keys, count_keys, key_pad);
            scores.by_query(simd, Right { data: &clean, step: key_pad }, key_pad, d_query);
        }
        if spoilt_keys != 0 || self.spoilt != 0 {
            let spoilt = Spoilt { plan, at: [batch, head, first], keys: self.keys.clone(), key };
            let found = (self.spoilt, spoilt_keys);
            spoilt.add(&scores, &kept, found, queries.inverses, [d_query, d_key, d_value]);
        }
    }

    /// Adds to the gradients of keys, values and bias when all earlier tasks have.
    #[inline(always)]
    fn add_in_turn(&self, turn: &Place, key_tile: usize, buffers: &Buffers<T>) {
        let plan = self.plan;
        let Problem { heads, kv_heads, keys, head_dim, value_dim, .. } = *plan.problem;
        let Sizes { batch, head, kv_head, first, count, width, key_pad, value_pad, .. } =
            self.sizes;
        let group = heads / kv_heads;
        let by_all = plan.d_bias.as_ref().is_some_and(|bias| bias.by_all);
        turn.wait(key_tile, |task| {
            let (other_batch, other_head, tile) = plan.place(task);
            let same = other_batch == batch && other_head / group == kv_head;
            (same || by_all).then(|| plan.seen[other_batch * plan.tiles + tile].clone())
        });
        for (index, key) in self.keys.clone().enumerate() {
            for (sum, part, pad, dim) in [
                (&plan.d_key, &*buffers.d_key, key_pad, head_dim),
                (&plan.d_value, &*buffers.d_value, value_pad, value_dim),
            ] {
                if let Some(sum) = sum {
                    let at = result_row([kv_heads, keys, dim], [batch, kv_head, key]);
                    // SAFETY: only tasks of this batch row and key/value head touch this row, and
                    // it is this task's turn.
                    let row = unsafe { sum.slice(at, dim) };
                    row.iter_mut().zip(&part[index * pad..]).for_each(|(to, &x)| *to += x);
                }
            }
        }
        if let Some(bias) = &plan.d_bias {
            for (row, key) in buffers.d_bias.chunks_exact(width).zip(self.keys.clone()) {
                for (lane, &d_score) in row[..count].iter().enumerate() {
                    let at = offset(&bias.strides, [batch, head, first + lane, key]);
                    // SAFETY: a bias of its own for each batch row and head is touched by tasks of
                    // this key/value head alone; else all tasks take turns.
                    let sum = unsafe { bias.sum.slice(at, 1) };
                    sum[0] += d_score;
                }
            }
        }
        turn.pass(key_tile);
    }
}
