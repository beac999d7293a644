//! The forward pass for one or two queries against many keys, as in decoding with a cache.
//!
//! Most lanes of a panel would be empty here, and reading keys and values is what takes the time.
//! So vectors run along the rows of keys and values, a task is a stretch of keys (not of queries),
//! and the heads of a group share what they read. The stretches' results are merged in order.

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Arch, Scalar, Simd, WithSimd};

use super::panel::{KEY_TILE, KeySet, MOST_LANES, QueryPanel};
use super::read_rows::AnyRows;
use super::real::exp2;
use super::score::ScoreRule;
use super::strided::result_row;
use super::tasks::{Workspace, for_each};
use super::{Inputs, Real};
use crate::kernels::Plan;
use crate::kernels::cpu::memory::SharedSlice;
use crate::kernels::tiles::key_bounds;

/// Up to this many queries this way is faster.
pub(super) const MOST_QUERIES: usize = 2;
/// Keys in a task: the most, and into how many tasks fewer are cut, of a tile at least. By the number
/// of keys alone, so that a row of a batch has the same bits as alone.
const MOST_KEYS: usize = 8 * KEY_TILE;
const ENOUGH_STRETCHES: usize = 8;
/// Rows of keys that all queries read before the next ones, and rows that memory is asked for ahead of
/// those that are read.
const ROWS_AT_ONCE: usize = 8;
const ROWS_AHEAD: usize = 16;

pub(super) fn forward<T: Real>(
    arch: Arch,
    plan: &Plan,
    inputs: &Inputs<T>,
    out: &mut [MaybeUninit<T>],
    statistics: &mut [T],
) {
    let Plan { batch, heads, kv_heads, queries, keys, value_dim, .. } = *plan;
    let rule = ScoreRule::new(plan, inputs);
    let rows = batch * heads * queries;
    let stretch = keys.div_ceil(ENOUGH_STRETCHES).next_multiple_of(KEY_TILE).min(MOST_KEYS);
    let stretches = keys.div_ceil(stretch.max(1)).max(1);
    let row = value_dim + 2;
    // `[batch, kv_heads, stretches, heads of the group, queries, value_dim + 2]`
    let mut parts = vec![T::ZERO; rows * stretches * row];
    let of_task = heads / kv_heads * queries * row;
    let shared = SharedSlice::new(&mut parts);
    let work = rows * keys * (plan.head_dim + value_dim);
    for_each(batch * kv_heads * stretches, work, |workspace, task| {
        let (of_head, number) = (task / stretches, task % stretches);
        let keys = number * stretch..keys.min((number + 1) * stretch);
        // SAFETY: every task has a part of its own.
        let parts = unsafe { shared.slice(task * of_task, of_task) };
        let (batch, kv_head) = (of_head / kv_heads, of_head % kv_heads);
        arch.dispatch(Stretch { plan, inputs, rule, batch, kv_head, keys, parts, workspace });
    });

    let keep = plan.dropout.map_or(1.0, |dropout| dropout.scale());
    let (maxima, sums) = statistics.split_at_mut(rows);
    for at in 0..rows {
        let (of_head, query) = (at / queries, at % queries);
        let (batch, head) = (of_head / heads, of_head % heads);
        let (kv, of_group) = (plan.kv_head(head), head % (heads / kv_heads));
        let part = |stretch: usize| {
            let task = (batch * kv_heads + kv) * stretches + stretch;
            &parts[task * of_task + (of_group * queries + query) * row..][..row]
        };
        // a sink is a part of its own, which adds no value
        let sink = rule.sink(head).map(T::of_f64);
        let dead = (0..stretches).all(|stretch| part(stretch)[1] == T::ZERO);
        let max = (0..stretches).fold(sink.unwrap_or(T::NEG_INFINITY), |max, stretch| {
            if max < part(stretch)[0] { part(stretch)[0] } else { max }
        });
        let factor = |part_max: T| ((part_max.to_f64() - max.to_f64()) * rule.factor).exp2();
        let mut sum = if dead { 0.0 } else { sink.map_or(0.0, factor) };
        let out = &mut out[result_row([heads, queries, value_dim], [batch, head, query])..];
        let out = &mut out[..value_dim];
        let mut total = vec![0.0; value_dim];
        for part in (0..stretches).map(part).filter(|part| part[1] != T::ZERO) {
            let factor = factor(part[0]);
            sum += factor * part[1].to_f64();
            for (total, value) in total.iter_mut().zip(&part[2..]) {
                *total += factor * value.to_f64();
            }
        }
        let inverse = if dead { 0.0 } else { keep / sum };
        for (out, total) in out.iter_mut().zip(total) {
            out.write(T::of_f64(total * inverse));
        }
        maxima[at] = max;
        sums[at] = T::of_f64(sum);
    }
}

/// All queries of a group of heads against a stretch of keys.
struct Stretch<'a, T: Real> {
    plan: &'a Plan,
    inputs: &'a Inputs<'a, T>,
    rule: ScoreRule<'a, T>,
    batch: usize,
    kv_head: usize,
    keys: Range<usize>,
    /// For each query of each head of the group: maximum, sum, and the values' weighted sum.
    parts: &'a mut [T],
    workspace: &'a mut Workspace<T>,
}

impl<T: Real> WithSimd for Stretch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Plan { heads, kv_heads, queries, head_dim, value_dim, .. } = *self.plan;
        let group = heads / kv_heads;
        let [query, scores, key_copy, value_copy] = self.workspace.slices([
            group * queries * head_dim,
            group * queries * KEY_TILE,
            KEY_TILE * head_dim,
            KEY_TILE * value_dim,
        ]);
        let bounds = key_bounds(self.plan, self.batch);
        let panels: Vec<_> = (0..group * queries)
            .map(|at| {
                let (head, query) = (self.kv_head * group + at / queries, at % queries);
                QueryPanel::new(self.plan, [self.batch, head, query], 1, &bounds)
            })
            .collect();
        if head_dim > 0 {
            for (panel, query) in panels.iter().zip(query.chunks_exact_mut(head_dim)) {
                let at = [self.batch, panel.head, panel.first];
                self.inputs.query.copy_rows(simd, at, 1, head_dim, query);
            }
        }
        for part in self.parts.chunks_exact_mut(value_dim + 2) {
            part.fill(T::ZERO);
            part[0] = T::NEG_INFINITY;
        }
        let mut hidden = vec![0; panels.len()];
        let mut start = self.keys.start;
        while start < self.keys.end {
            let tile = start..self.keys.end.min(start + KEY_TILE);
            start = tile.end;
            if panels.iter().all(|panel| panel.bounds.within(&tile).is_empty()) {
                continue;
            }
            let at = [self.batch, self.kv_head, tile.start];
            let (len, readers) = (tile.len(), panels.len());
            let key = AnyRows::read(simd, &self.inputs.key, at, len, head_dim, readers, key_copy);
            let value =
                AnyRows::read(simd, &self.inputs.value, at, len, value_dim, readers, value_copy);
            let seen_by = |panel: &QueryPanel| {
                let seen = panel.bounds.within(&tile);
                if seen.is_empty() || panel.is_hidden(seen.clone()) {
                    tile.end..tile.end
                } else {
                    seen
                }
            };
            let seen: Vec<_> = panels.iter().map(seen_by).collect();
            let begin = seen.iter().fold(tile.end, |begin, seen| begin.min(seen.start));
            let end = seen.iter().fold(begin, |end, seen| end.max(seen.end));
            // All dot products first: while they are computed, memory gives the next keys, and the
            // values, which are read thereafter.
            for first in (begin..end).step_by(ROWS_AT_ONCE) {
                let rows = first..end.min(first + ROWS_AT_ONCE);
                let at = first - tile.start;
                value.prefetch(at, rows.len(), value_dim);
                key.prefetch(at + ROWS_AHEAD, rows.len(), head_dim);
                for (at, seen) in seen.iter().enumerate() {
                    let (first, last) = (rows.start.max(seen.start), rows.end.min(seen.end));
                    if first < last {
                        let query = &query[at * head_dim..][..head_dim];
                        let scores = &mut scores[at * KEY_TILE..];
                        let scores = &mut scores[first - seen.start..last - seen.start];
                        key.skip(first - tile.start).dots(simd, query, scores);
                    }
                }
            }
            for (at, (panel, seen)) in panels.iter().zip(&seen).enumerate() {
                hidden[at] = 0;
                if seen.is_empty() {
                    continue;
                }
                let scores = &mut scores[at * KEY_TILE..][..seen.len()];
                // one query is a tile of width one
                self.rule.apply(Scalar, panel, seen.clone(), 1, scores, None);
                hidden[at] = panel.hide::<T, Scalar>(Scalar, seen.clone(), 1, scores);
                let part = &mut self.parts[at * (value_dim + 2)..][..value_dim + 2];
                let factor = T::of_f64(self.rule.factor);
                let (rescale, sum) = update_row(simd, factor, scores, part);
                part[1] *= rescale;
                part[1] += sum;
                if let Some(dropout) = &self.plan.dropout {
                    panel.drop_some(dropout, seen.clone(), 1, scores);
                }
                part[2..].iter_mut().for_each(|x| *x *= rescale);
            }
            let mut first = 0;
            while first < panels.len() {
                if seen[first].is_empty() {
                    first += 1;
                    continue;
                }
                // Queries that see the same keys, so that each value is read once for them.
                let alike = |&at: &usize| seen[at] == seen[first] && hidden[at] == 0;
                let same = match hidden[first] {
                    0 => 1 + (first + 1..panels.len().min(first + 4)).take_while(alike).count(),
                    _ => 1,
                };
                let values = Values {
                    rows: value.skip(seen[first].start - tile.start),
                    scores: &scores[first * KEY_TILE..],
                    seen: seen[first].len(),
                    hidden: hidden[first],
                    parts: &mut self.parts[first * (value_dim + 2)..][..same * (value_dim + 2)],
                };
                match same {
                    4 => values.add::<S, 4>(simd),
                    3 => values.add::<S, 3>(simd),
                    2 => values.add::<S, 2>(simd),
                    _ => values.add::<S, 1>(simd),
                }
                first += same;
            }
        }
    }
}

/// Values of a tile for queries that see the same of them.
struct Values<'a, T> {
    rows: AnyRows<'a, T>,
    /// A tile for each query, of which as many are weights as rows are seen.
    scores: &'a [T],
    seen: usize,
    /// What is hidden of these may be anything, also NaN.
    hidden: KeySet,
    parts: &'a mut [T],
}

impl<T: Real> Values<'_, T> {
    /// Adds them for `M` queries.
    #[inline(always)]
    fn add<S: Simd, const M: usize>(self, simd: S) {
        let Self { rows, scores, seen, hidden, parts } = self;
        let weights = std::array::from_fn(|m| &scores[m * KEY_TILE..][..seen]);
        let mut parts = parts.chunks_exact_mut(parts.len() / M);
        let sums = std::array::from_fn(|_| &mut parts.next().expect("one for each query")[2..]);
        rows.add_weighted::<S, M>(simd, weights, hidden, sums);
    }
}

/// Scores of one query to weights relative to the new maximum, `part[0]`; returns what older
/// weights are multiplied by, and the sum of the new ones.
#[inline(always)]
fn update_row<T: Real, S: Simd>(simd: S, factor: T, scores: &mut [T], part: &mut [T]) -> (T, T) {
    let max = largest(simd, part[0], scores);
    let base = if max < T::LEAST { T::ZERO } else { max };
    let weight = |score: T| exponential(Scalar, factor, base, score);
    let rescale = weight(part[0]);
    part[0] = max;
    let mut sum = T::ZERO;
    let rest = scores.len() / T::lanes::<S>() * T::lanes::<S>();
    let mut sums = T::splat(simd, T::ZERO);
    let (factors, bases) = (T::splat(simd, factor), T::splat(simd, base));
    for score in T::vectors_mut::<S>(scores) {
        let exponent = T::mul(simd, T::sub(simd, *score, bases), factors);
        *score = exp2::<T, S>(simd, exponent);
        sums = T::add(simd, sums, *score);
    }
    for score in &mut scores[rest..] {
        *score = weight(*score);
        sum += *score;
    }
    sum += T::sum(simd, sums);
    (rescale, sum)
}

/// The largest of `least` and `scores`, apart from NaN.
#[inline(always)]
fn largest<T: Real, S: Simd>(simd: S, least: T, scores: &[T]) -> T {
    let vectors = T::vectors::<S>(scores);
    let rest = &scores[vectors.len() * T::lanes::<S>()..];
    let mut lanes = [least; MOST_LANES];
    let mut max = T::splat(simd, least);
    for &score in vectors {
        max = T::if_less(simd, max, score, score, max);
    }
    T::vectors_mut::<S>(&mut lanes)[0] = max;
    let mut half = MOST_LANES / 2;
    while half > 0 {
        for lane in 0..half {
            if lanes[lane] < lanes[lane + half] {
                lanes[lane] = lanes[lane + half];
            }
        }
        half /= 2;
    }
    rest.iter().fold(lanes[0], |max, &score| if max < score { score } else { max })
}

#[inline(always)]
fn exponential<T: Real>(simd: Scalar, factor: T, base: T, score: T) -> T {
    let [factor, base, score] = [factor, base, score].map(|x| T::splat(simd, x));
    let exponent = T::mul(simd, T::sub(simd, score, base), factor);
    T::sum(simd, exp2::<T, Scalar>(simd, exponent))
}
