use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::super::ordered_sum::TaskOrder;
use super::super::rows::dot;
use super::super::score::ScoreRule;
use super::super::strided::Strided;
use super::super::tasks::for_each;
use super::super::{GradientSlices, Inputs, Real};
use super::sums::{BiasSum, SharedBias};
use super::tile::QueryTask;
use crate::kernels::Plan;
use crate::kernels::cpu::memory::SharedSlice;
use crate::kernels::tiles::{TileBounds, key_bounds};

/// Queries in a task; a set of them fits a [`QuerySet`].
pub(super) const QUERY_TILE: usize = 96;
/// Queries of a task, bit `i` for the task's query `i`.
pub(super) type QuerySet = u128;

pub(in super::super) fn backward<T: Real>(
    arch: Arch,
    plan: &Plan,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: GradientSlices<T>,
) {
    let Plan { batch, heads, queries, keys, head_dim, value_dim, .. } = *plan;
    let rule = ScoreRule::new(plan, inputs);
    let rows = batch * heads * queries;
    let (maxima, sums) = statistics.split_at(rows);
    let deltas = deltas(arch, plan, out, d_out);
    if let Some(d_sinks) = gradients.sinks {
        sink_gradients(plan, &rule, maxima, sums, &deltas, d_sinks);
    }

    let mut d_bias = gradients.bias.map(|bias| BiasSum::new(bias, rows));
    let tiles = queries.div_ceil(QUERY_TILE);
    let bounds: Vec<_> = (0..batch).map(|batch| key_bounds(plan, batch)).collect();
    let visited: Vec<_> = (0..batch * tiles)
        .map(|at| {
            let (batch, tile) = (at / tiles, at % tiles);
            let queries = tile * QUERY_TILE..queries.min((tile + 1) * QUERY_TILE);
            TileBounds::new(plan, batch, queries, &bounds[batch])
        })
        .collect();
    let pass = BackwardPass {
        plan,
        inputs,
        rule,
        d_out,
        maxima,
        sums,
        deltas: &deltas,
        bounds: &bounds,
        visited: &visited,
        tiles,
        order: TaskOrder::new(batch * heads * tiles),
        d_query: gradients.query.map(SharedSlice::new),
        d_key: gradients.key.map(SharedSlice::new),
        d_value: gradients.value.map(SharedSlice::new),
        d_bias: d_bias.as_mut().map(|bias| bias.shared(plan)),
    };
    let work = 5 * rows * keys * head_dim.max(value_dim) / 2;
    for_each(batch * heads * tiles, work, |workspace, task| {
        arch.dispatch(QueryTask { pass: &pass, task, workspace });
    });
    if let Some(bias) = d_bias {
        bias.finish([heads, queries]);
    }
}

/// `rowsum(dO * O)` for each row, `[batch, heads, queries]`.
fn deltas<T: Real>(arch: Arch, plan: &Plan, out: Strided<T>, d_out: Strided<T>) -> Vec<T> {
    let Plan { batch, heads, queries, value_dim, .. } = *plan;
    const ROWS: usize = 64;
    let mut deltas = vec![T::ZERO; batch * heads * queries];
    let len = deltas.len();
    let shared = SharedSlice::new(&mut deltas);
    for_each::<T>(len.div_ceil(ROWS), len * value_dim, |workspace, task| {
        let rows = task * ROWS..len.min((task + 1) * ROWS);
        // SAFETY: these rows belong to this task alone.
        let deltas = unsafe { shared.slice(rows.start, rows.len()) };
        let copies = workspace.slices([value_dim; 2]);
        arch.dispatch(Deltas { rows, of_head: [heads, queries], out, d_out, copies, deltas });
    });
    deltas
}

/// Some of the [`deltas`].
struct Deltas<'a, T> {
    rows: Range<usize>,
    of_head: [usize; 2],
    out: Strided<'a, T>,
    d_out: Strided<'a, T>,
    copies: [&'a mut [T]; 2],
    deltas: &'a mut [T],
}

impl<T: Real> WithSimd for Deltas<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [heads, queries] = self.of_head;
        let [out_copy, d_out_copy] = self.copies;
        let width = out_copy.len();
        for (delta, row) in self.deltas.iter_mut().zip(self.rows) {
            let at = [row / queries / heads, row / queries % heads, row % queries];
            let out = self.out.row(at).whole(width, out_copy);
            let d_out = self.d_out.row(at).whole(width, d_out_copy);
            *delta = dot(simd, out, d_out);
        }
    }
}

/// A sink is a key whose value is zero: `dsink = -sum over rows of weight * delta`.
fn sink_gradients<T: Real>(
    plan: &Plan,
    rule: &ScoreRule<T>,
    maxima: &[T],
    sums: &[T],
    deltas: &[T],
    d_sinks: &mut [f64],
) {
    for (at, ((max, sum), delta)) in maxima.iter().zip(sums).zip(deltas).enumerate() {
        let head = at / plan.queries % plan.heads;
        if let (Some(sink), true) = (rule.sink(head), *sum != T::ZERO) {
            let weight = ((sink - max.to_f64()) * rule.factor).exp2() / sum.to_f64();
            d_sinks[head] -= weight * delta.to_f64();
        }
    }
}

/// What all tasks share.
pub(super) struct BackwardPass<'a, T: Real> {
    pub(super) plan: &'a Plan,
    pub(super) inputs: &'a Inputs<'a, T>,
    pub(super) rule: ScoreRule<'a, T>,
    pub(super) d_out: Strided<'a, T>,
    pub(super) maxima: &'a [T],
    pub(super) sums: &'a [T],
    pub(super) deltas: &'a [T],
    pub(super) bounds: &'a [Range<usize>],
    /// `[batch, tiles]`: what a tile of queries visits.
    pub(super) visited: &'a [TileBounds],
    /// Tiles of queries.
    pub(super) tiles: usize,
    pub(super) order: TaskOrder,
    pub(super) d_query: Option<SharedSlice<'a, T>>,
    pub(super) d_key: Option<SharedSlice<'a, T>>,
    pub(super) d_value: Option<SharedSlice<'a, T>>,
    pub(super) d_bias: Option<SharedBias<'a, T>>,
}

impl<T: Real> BackwardPass<'_, T> {
    /// Batch row, head and tile of queries of a task. The last queries come first: under
    /// look-ahead they see most. Neighbouring tasks are of different heads and seldom wait for
    /// each other.
    pub(super) fn place(&self, task: usize) -> (usize, usize, usize) {
        let Plan { batch, heads, .. } = *self.plan;
        let (tile, of_head) = (self.tiles - 1 - task / (batch * heads), task % (batch * heads));
        (of_head / heads, of_head % heads, tile)
    }

    /// What a task visits.
    pub(super) fn visited_by(&self, batch: usize, tile: usize) -> &TileBounds {
        &self.visited[batch * self.tiles + tile]
    }
}
