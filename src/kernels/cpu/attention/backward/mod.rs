//! The backward pass: one task for each batch row, head and tile of queries.
//!
//! ```text
//! Pt  = exp(St - m)                  again, from the row's maximum; the sum l goes into dO
//! dV += Pt (dO / l)                  [keys, value_dim]
//! dPt = V (dO / l)t                  [keys, queries]
//! dSt = Pt * (dPt - delta / l)       delta = rowsum(dO * O)
//! dQ += dS K                         [queries, head_dim]
//! dK += dSt Q                        [keys, head_dim]
//! ```
//!
//! `dQ` belongs to the task; to `dK` and `dV` the tasks add in turn. (Dao et al. 2022, appendix
//! B.4; Dao 2023, section 3.1.2.)

mod scores;
mod spoilt;
mod step;
mod sums;
mod tile;

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::problem::Strided;
use super::rows::dot;
use super::score::Rule;
use super::tasks::{Shared, for_each};
use super::turns::Turns;
use super::visible::{KEY_TILE, key_bounds};
use super::{Gradients, Inputs, Problem, Real};
use sums::{BiasSum, SharedBias};
use tile::Tile;

/// Queries in a task; a set of them fits a [`QuerySet`].
const QUERY_TILE: usize = 96;
/// Queries of a task, bit `i` for the task's query `i`.
type QuerySet = u128;

pub(super) fn backward<T: Real>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: Gradients<T>,
) {
    let Problem { batch, heads, queries, keys, head_dim, value_dim, .. } = *problem;
    let rule = Rule::new(problem, inputs);
    let rows = batch * heads * queries;
    let (maxima, sums) = statistics.split_at(rows);
    let deltas = deltas(arch, problem, out, d_out);
    if let Some(d_sinks) = gradients.sinks {
        sink_gradients(problem, &rule, maxima, sums, &deltas, d_sinks);
    }

    let mut d_bias = gradients.bias.map(|bias| BiasSum::new(bias, rows));
    let tiles = queries.div_ceil(QUERY_TILE);
    let bounds: Vec<_> = (0..batch).map(|batch| key_bounds(problem, batch)).collect();
    let seen: Vec<Range<usize>> = (0..batch * tiles)
        .map(|at| {
            let (batch, tile) = (at / tiles, at % tiles);
            let queries = tile * QUERY_TILE..queries.min((tile + 1) * QUERY_TILE);
            let spans = queries.map(|query| problem.span(batch, query)).filter(|s| s.0 < s.1);
            let hull =
                spans.fold((usize::MAX, 0), |hull, span| (hull.0.min(span.0), hull.1.max(span.1)));
            let (start, end) = (hull.0.max(bounds[batch].start), hull.1.min(bounds[batch].end));
            if start < end { start / KEY_TILE..end.div_ceil(KEY_TILE) } else { 0..0 }
        })
        .collect();
    let plan = Plan {
        problem,
        inputs,
        rule,
        d_out,
        maxima,
        sums,
        deltas: &deltas,
        bounds: &bounds,
        seen: &seen,
        tiles,
        turns: Turns::new(batch * heads * tiles),
        d_query: gradients.query.map(Shared::new),
        d_key: gradients.key.map(Shared::new),
        d_value: gradients.value.map(Shared::new),
        d_bias: d_bias.as_mut().map(|bias| bias.shared(problem)),
    };
    let work = 5 * rows * keys * head_dim.max(value_dim) / 2;
    for_each(batch * heads * tiles, work, |workspace, task| {
        arch.dispatch(Tile { plan: &plan, task, workspace });
    });
    if let Some(bias) = d_bias {
        bias.finish([heads, queries]);
    }
}

/// `rowsum(dO * O)` for each row, `[batch, heads, queries]`.
fn deltas<T: Real>(arch: Arch, problem: &Problem, out: Strided<T>, d_out: Strided<T>) -> Vec<T> {
    let Problem { batch, heads, queries, value_dim, .. } = *problem;
    const ROWS: usize = 64;
    let mut deltas = vec![T::ZERO; batch * heads * queries];
    let len = deltas.len();
    let shared = Shared::new(&mut deltas);
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
    problem: &Problem,
    rule: &Rule<T>,
    maxima: &[T],
    sums: &[T],
    deltas: &[T],
    d_sinks: &mut [f64],
) {
    for (at, ((max, sum), delta)) in maxima.iter().zip(sums).zip(deltas).enumerate() {
        let head = at / problem.queries % problem.heads;
        if let (Some(sink), true) = (rule.sink(head), *sum != T::ZERO) {
            let weight = ((sink - max.to_f64()) * rule.factor).exp2() / sum.to_f64();
            d_sinks[head] -= weight * delta.to_f64();
        }
    }
}

/// What all tasks share.
struct Plan<'a, T: Real> {
    problem: &'a Problem<'a>,
    inputs: &'a Inputs<'a, T>,
    rule: Rule<'a, T>,
    d_out: Strided<'a, T>,
    maxima: &'a [T],
    sums: &'a [T],
    deltas: &'a [T],
    bounds: &'a [Range<usize>],
    /// `[batch, tiles]`: the tiles of keys that a tile of queries visits.
    seen: &'a [Range<usize>],
    /// Tiles of queries.
    tiles: usize,
    turns: Turns,
    d_query: Option<Shared<'a, T>>,
    d_key: Option<Shared<'a, T>>,
    d_value: Option<Shared<'a, T>>,
    d_bias: Option<SharedBias<'a, T>>,
}

impl<T: Real> Plan<'_, T> {
    /// Batch row, head and tile of queries of a task. The last queries come first: under
    /// look-ahead they see most. Neighbouring tasks are of different heads and seldom wait for
    /// each other.
    fn place(&self, task: usize) -> (usize, usize, usize) {
        let Problem { batch, heads, .. } = *self.problem;
        let (tile, of_head) = (self.tiles - 1 - task / (batch * heads), task % (batch * heads));
        (of_head / heads, of_head % heads, tile)
    }
}
