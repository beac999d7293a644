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

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::arch::Arch;
use super::gemm::{Left, Lie, Onto, Product, Right};
use super::problem::{Strided, broadcast_strides, offset, result_row};
use super::real::exp2;
use super::rows::{Rows, is_finite, transpose};
use super::score::Rule;
use super::tasks::{Shared, Workspace, for_each};
use super::turns::Turns;
use super::visible::{KEY_TILE, KeySet, Panel, key_bounds};
use super::{Element, Gradients, Inputs, Problem, Real};

/// Queries in a task; a set of them fits a [`QuerySet`].
const QUERY_TILE: usize = 96;
/// Queries of a task, bit `i` for the task's query `i`.
type QuerySet = u128;

pub(super) fn backward<E: Element>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<E>,
    out: Strided<E>,
    statistics: &[E::Real],
    d_out: Strided<E>,
    gradients: Gradients<E>,
) {
    let Problem { batch, heads, queries, keys, head_dim, value_dim, .. } = *problem;
    let rule = Rule::new(problem, inputs);
    let rows = batch * heads * queries;
    let (maxima, sums) = statistics.split_at(rows);
    let deltas = deltas(problem, out, d_out);
    if let Some(d_sinks) = gradients.sinks {
        sink_gradients(problem, &rule, maxima, sums, &deltas, d_sinks);
    }

    let mut d_query = Sum::new(gradients.query);
    let mut d_key = Sum::new(gradients.key);
    let mut d_value = Sum::new(gradients.value);
    let mut d_bias = gradients.bias.map(|bias| BiasSum {
        // a bias that all keys share: one sum for each query first
        by_query: (bias.shape[3] == 1).then(|| vec![E::Real::ZERO; rows]),
        shape: bias.shape,
        sum: Sum::new(Some(bias.data)),
    });
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
        d_query: d_query.shared(),
        d_key: d_key.shared(),
        d_value: d_value.shared(),
        d_bias: d_bias.as_mut().map(|bias| bias.shared(problem)),
    };
    let work = 5 * rows * keys * head_dim.max(value_dim) / 2;
    for_each(batch * heads * tiles, work, |workspace, task| {
        arch.dispatch(Tile { plan: &plan, task, workspace });
    });
    d_query.finish();
    d_key.finish();
    d_value.finish();
    if let Some(bias) = d_bias {
        bias.finish([heads, queries]);
    }
}

/// `rowsum(dO * O)` for each row, `[batch, heads, queries]`.
fn deltas<E: Element>(problem: &Problem, out: Strided<E>, d_out: Strided<E>) -> Vec<E::Real> {
    let Problem { batch, heads, queries, value_dim, .. } = *problem;
    const ROWS: usize = 64;
    let mut deltas = vec![E::Real::ZERO; batch * heads * queries];
    let len = deltas.len();
    let shared = Shared::new(&mut deltas);
    for_each::<E::Real>(len.div_ceil(ROWS), len * value_dim, |_, task| {
        let rows = task * ROWS..len.min((task + 1) * ROWS);
        // SAFETY: these rows belong to this task alone.
        let deltas = unsafe { shared.slice(rows.start, rows.len()) };
        for (delta, row) in deltas.iter_mut().zip(rows) {
            let at = [row / queries / heads, row / queries % heads, row % queries];
            let (out, d_out) = (out.row(at), d_out.row(at));
            // four sums, so that one addition does not wait for the one before
            let mut sums = [E::Real::ZERO; 4];
            for c in 0..value_dim {
                let mut part = out.get(c);
                part *= d_out.get(c);
                sums[c % 4] += part;
            }
            *delta = sums[0];
            sums[1..].iter().for_each(|&sum| *delta += sum);
        }
    });
    deltas
}

/// A sink is a key whose value is zero: `dsink = -sum over rows of weight * delta`.
fn sink_gradients<E: Element>(
    problem: &Problem,
    rule: &Rule<E>,
    maxima: &[E::Real],
    sums: &[E::Real],
    deltas: &[E::Real],
    d_sinks: &mut [f64],
) {
    d_sinks.fill(0.0);
    for (at, ((max, sum), delta)) in maxima.iter().zip(sums).zip(deltas).enumerate() {
        let head = at / problem.queries % problem.heads;
        if let (Some(sink), true) = (rule.sink(head), *sum != E::Real::ZERO) {
            let weight = ((sink - max.to_f64()) * rule.factor).exp2() / sum.to_f64();
            d_sinks[head] -= weight * delta.to_f64();
        }
    }
}

/// A gradient that tasks add to, in the numbers that the kernel computes in.
struct Sum<'a, E: Element> {
    target: Option<&'a mut [E]>,
    /// Where the target holds other numbers.
    wide: Vec<E::Real>,
}

impl<'a, E: Element> Sum<'a, E> {
    fn new(target: Option<&'a mut [E]>) -> Self {
        Self { target, wide: Vec::new() }
    }

    /// All zero, to be added to.
    fn shared(&mut self) -> Option<Shared<'_, E::Real>> {
        let target = self.target.as_deref_mut()?;
        let len = target.len();
        let sum = match E::reals_mut(target) {
            Some(target) => target,
            None => {
                self.wide = vec![E::Real::ZERO; len];
                &mut self.wide
            }
        };
        sum.fill(E::Real::ZERO);
        Some(Shared::new(sum))
    }

    fn finish(self) {
        for (to, &from) in self.target.into_iter().flatten().zip(&self.wide) {
            *to = E::of_real(from);
        }
    }
}

/// The gradient of the bias.
struct BiasSum<'a, E: Element> {
    sum: Sum<'a, E>,
    by_query: Option<Vec<E::Real>>,
    shape: [usize; 4],
}

/// Where the tasks add the gradients of scores.
struct SharedBias<'a, T> {
    sum: Shared<'a, T>,
    strides: [usize; 4],
    /// Heads or batch rows share the bias, so all tasks have to take turns.
    by_all: bool,
}

impl<E: Element> BiasSum<'_, E> {
    fn shared(&mut self, problem: &Problem) -> SharedBias<'_, E::Real> {
        let Problem { batch, heads, queries, .. } = *problem;
        match &mut self.by_query {
            Some(rows) => SharedBias {
                sum: Shared::new(rows),
                strides: [heads * queries, queries, 1, 0],
                by_all: false,
            },
            None => SharedBias {
                sum: self.sum.shared().expect("a bias gradient has a target"),
                strides: broadcast_strides(&self.shape),
                by_all: self.shape[0] < batch || self.shape[1] < heads,
            },
        }
    }

    fn finish(mut self, [heads, queries]: [usize; 2]) {
        if let Some(rows) = self.by_query.take() {
            let strides = broadcast_strides(&self.shape);
            let sum = self.sum.shared().expect("a bias gradient has a target");
            for (at, &row) in rows.iter().enumerate() {
                let at = [at / queries / heads, at / queries % heads, at % queries, 0];
                // SAFETY: no task is left, nobody else holds a part.
                let sum = unsafe { sum.slice(offset(&strides, at), 1) };
                sum[0] += row;
            }
        }
        self.sum.finish();
    }
}

/// What all tasks share.
struct Plan<'a, E: Element> {
    problem: &'a Problem<'a>,
    inputs: &'a Inputs<'a, E>,
    rule: Rule<'a, E>,
    d_out: Strided<'a, E>,
    maxima: &'a [E::Real],
    sums: &'a [E::Real],
    deltas: &'a [E::Real],
    bounds: &'a [Range<usize>],
    /// `[batch, tiles]`: the tiles of keys that a tile of queries visits.
    seen: &'a [Range<usize>],
    /// Tiles of queries.
    tiles: usize,
    turns: Turns,
    d_query: Option<Shared<'a, E::Real>>,
    d_key: Option<Shared<'a, E::Real>>,
    d_value: Option<Shared<'a, E::Real>>,
    d_bias: Option<SharedBias<'a, E::Real>>,
}

impl<E: Element> Plan<'_, E> {
    /// Batch row, head and tile of queries of a task. The last queries come first: under
    /// look-ahead they see most. Neighbouring tasks are of different heads and seldom wait for
    /// each other.
    fn place(&self, task: usize) -> (usize, usize, usize) {
        let Problem { batch, heads, .. } = *self.problem;
        let (tile, of_head) = (self.tiles - 1 - task / (batch * heads), task % (batch * heads));
        (of_head / heads, of_head % heads, tile)
    }
}

struct Tile<'a, E: Element> {
    plan: &'a Plan<'a, E>,
    task: usize,
    workspace: &'a mut Workspace<E::Real>,
}

impl<E: Element> WithSimd for Tile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { plan, task, workspace } = self;
        let Problem { heads, kv_heads, queries, keys, head_dim, value_dim, .. } = *plan.problem;
        let turn = plan.turns.place(task);
        let (batch, head, tile) = plan.place(task);
        let kv_head = plan.problem.kv_head(head);
        let first = tile * QUERY_TILE;
        let count = QUERY_TILE.min(queries - first);
        let lanes = E::Real::lanes::<S>();
        let panel_width = (2 * lanes).min(count.next_multiple_of(lanes));
        let width = count.next_multiple_of(lanes);
        let key_tile = KEY_TILE.min(keys);
        let (key_pad, value_pad) =
            (head_dim.next_multiple_of(lanes), value_dim.next_multiple_of(lanes));
        let with_bias = if plan.d_bias.is_some() { key_tile * width } else { 0 };
        let with_slopes = if plan.problem.softcap.is_some() { key_tile * panel_width } else { 0 };
        let [
            query_columns,
            d_out_columns,
            query_rows,
            d_out_rows,
            d_query,
            weights,
            d_scores,
            d_bias,
            slopes,
            panel_scores,
            panel_d_scores,
            d_key,
            d_value,
            key_copy,
            value_copy,
            row_factors,
        ] = workspace.slices([
            width * head_dim,
            width * value_dim,
            count * key_pad,
            count * value_pad,
            count * key_pad,
            key_tile * width,
            key_tile * width,
            with_bias,
            with_slopes,
            key_tile * panel_width,
            key_tile * panel_width,
            key_tile * key_pad,
            key_tile * value_pad,
            key_tile * key_pad,
            key_tile * value_dim,
            4 * width,
        ]);
        d_query.fill(E::Real::ZERO);

        // For each query: its maximum, delta / sum, 1 / sum.
        let keep = plan.problem.dropout.map_or(1.0, |dropout| dropout.scale());
        let unit = if plan.rule.plain { plan.problem.scale } else { 1.0 };
        let (maxima, rest) = row_factors.split_at_mut(width);
        let (deltas, rest) = rest.split_at_mut(width);
        let (inverses, column_factors) = rest.split_at_mut(width);
        for lane in 0..width {
            let row = (batch * heads + head) * queries + first + lane.min(count - 1);
            let sum = plan.sums[row].to_f64();
            let inverse = if sum == 0.0 || lane >= count { 0.0 } else { 1.0 / sum };
            let max = plan.maxima[row];
            maxima[lane] = if max < E::Real::LEAST { E::Real::ZERO } else { max };
            inverses[lane] = E::Real::of_f64(inverse * keep);
            column_factors[lane] = E::Real::of_f64(inverse * unit * keep);
            deltas[lane] = plan.deltas[row];
            deltas[lane] *= E::Real::of_f64(inverse * unit);
        }
        let at = [batch, head, first];
        let mut spoilt: QuerySet = 0;
        for lane in 0..count {
            let at = [batch, head, first + lane];
            let query = &mut query_rows[lane * key_pad..][..key_pad];
            let d_out = &mut d_out_rows[lane * value_pad..][..value_pad];
            let alive = if inverses[lane] == E::Real::ZERO { E::Real::ZERO } else { E::Real::ONE };
            plan.inputs.query.row(at).copy_to(head_dim, query, alive);
            plan.d_out.row(at).copy_to(value_dim, d_out, inverses[lane]);
            if !(is_finite(query) && is_finite(d_out)) {
                // its products are added one by one, since zero times it is not zero
                spoilt |= 1 << lane;
                query.fill(E::Real::ZERO);
                d_out.fill(E::Real::ZERO);
            }
        }
        for start in (0..width).step_by(panel_width) {
            let queries = panel_width.min(count - start);
            let width = queries.next_multiple_of(lanes);
            let at = [at[0], at[1], at[2] + start];
            let columns = &mut query_columns[start * head_dim..][..width * head_dim];
            transpose(&plan.inputs.query, at, queries, columns, width);
            let columns = &mut d_out_columns[start * value_dim..][..width * value_dim];
            transpose(&plan.d_out, at, queries, columns, width);
            for column in columns.chunks_exact_mut(width) {
                let factors = E::Real::vectors::<S>(&column_factors[start..]);
                for (x, &factor) in E::Real::vectors_mut::<S>(column).iter_mut().zip(factors) {
                    *x = E::Real::mul(simd, *x, factor);
                }
            }
        }

        let group = heads / kv_heads;
        let by_all = plan.d_bias.as_ref().is_some_and(|bias| bias.by_all);
        let visits = |task: usize| {
            let (other_batch, other_head, tile) = plan.place(task);
            let same = other_batch == batch && other_head / group == kv_head;
            (same || by_all).then(|| plan.seen[other_batch * plan.tiles + tile].clone())
        };
        for key_tile in plan.seen[batch * plan.tiles + tile].clone() {
            let tile = key_tile * KEY_TILE..keys.min((key_tile + 1) * KEY_TILE);
            let at = [batch, kv_head, tile.start];
            let key = Rows::read(&plan.inputs.key, at, tile.len(), key_pad, key_copy);
            let value = Rows::read(&plan.inputs.value, at, tile.len(), value_dim, value_copy);
            weights[..tile.len() * width].fill(E::Real::ZERO);
            d_scores[..tile.len() * width].fill(E::Real::ZERO);
            d_bias.fill(E::Real::ZERO);
            // keys that some query of the task does not see
            let mut partial: KeySet = 0;
            let mut touched = false;
            for start in (0..width).step_by(panel_width) {
                let panel_queries = panel_width.min(count - start);
                let panel = Panel::new(
                    plan.problem,
                    [batch, head, first + start],
                    panel_queries,
                    &plan.bounds[batch],
                );
                let seen = tile.start.max(panel.seen.start)..tile.end.min(panel.seen.end);
                if seen.is_empty() || panel.is_hidden(seen.clone()) {
                    partial = KeySet::MAX;
                    continue;
                }
                touched = true;
                partial |= !(KeySet::MAX >> (KEY_TILE - seen.len()) << (seen.start - tile.start));
                let skip = seen.start - tile.start;
                let part = panel_queries.next_multiple_of(lanes);
                let step = Step {
                    plan,
                    panel: &panel,
                    key: key.skip(skip),
                    value: value.skip(skip),
                    query: &query_columns[start * head_dim..][..part * head_dim],
                    d_out: &d_out_columns[start * value_dim..][..part * value_dim],
                    maxima: &maxima[start..][..part],
                    deltas: &deltas[start..][..part],
                    scores: &mut panel_scores[..seen.len() * part],
                    d_weights: &mut panel_d_scores[..seen.len() * part],
                    slopes: &mut *slopes,
                    weights: &mut weights[skip * width + start..],
                    d_scores: &mut d_scores[skip * width + start..],
                    d_bias: d_bias.get_mut(skip * width + start..).unwrap_or_default(),
                    row: width,
                    keys: seen,
                };
                let hidden = match part / lanes {
                    1 => step.run::<S, 1>(simd),
                    _ => step.run::<S, 2>(simd),
                };
                partial |= hidden << skip;
            }
            if !touched {
                turn.pass(key_tile);
                continue;
            }
            let scores = Scores { data: d_scores, row: width, keys: tile.len(), queries: count };
            let kept = Scores { data: weights, ..scores };
            scores.by_key(simd, Right { data: query_rows, step: key_pad }, key_pad, d_key);
            kept.by_key(simd, Right { data: d_out_rows, step: value_pad }, value_pad, d_value);
            let in_tile = KeySet::MAX >> (KEY_TILE - tile.len());
            let spoilt_keys = key.spoilt(partial & in_tile, head_dim);
            if spoilt_keys == 0 {
                scores.by_query(simd, Right { data: key.data, step: key.step }, key_pad, d_query);
            } else {
                let clean = key.without(spoilt_keys, tile.len(), key_pad);
                scores.by_query(simd, Right { data: &clean, step: key_pad }, key_pad, d_query);
            }
            if spoilt_keys != 0 || spoilt != 0 {
                Spoilt { plan, at: [batch, head, first], keys: tile.clone(), key }.add(
                    &scores,
                    &kept,
                    spoilt,
                    spoilt_keys,
                    inverses,
                    d_query,
                    d_key,
                    d_value,
                );
            }

            turn.wait(key_tile, &visits);
            for index in 0..tile.len() {
                let at = [batch, kv_head, tile.start + index];
                for (sum, part, pad, dim) in [
                    (&plan.d_key, &*d_key, key_pad, head_dim),
                    (&plan.d_value, &*d_value, value_pad, value_dim),
                ] {
                    if let Some(sum) = sum {
                        // SAFETY: only tasks of this batch row and key/value head touch these rows,
                        // and it is this task's turn.
                        let row = unsafe { sum.slice(result_row([kv_heads, keys, dim], at), dim) };
                        row.iter_mut().zip(&part[index * pad..]).for_each(|(to, &x)| *to += x);
                    }
                }
            }
            if let Some(bias) = &plan.d_bias {
                for (index, row) in d_bias.chunks_exact(width).take(tile.len()).enumerate() {
                    for (lane, &d_score) in row[..count].iter().enumerate() {
                        let at = [batch, head, first + lane, tile.start + index];
                        // SAFETY: a bias of its own for each batch row and head is touched by
                        // tasks of this key/value head alone; else all tasks take turns.
                        let sum = unsafe { bias.sum.slice(offset(&bias.strides, at), 1) };
                        sum[0] += d_score;
                    }
                }
            }
            turn.pass(key_tile);
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

/// One panel of queries against one tile of keys: from dot products to weights and to the
/// gradients of the dot products.
struct Step<'a, E: Element> {
    plan: &'a Plan<'a, E>,
    panel: &'a Panel<'a>,
    keys: Range<usize>,
    key: Rows<'a, E::Real>,
    value: Rows<'a, E::Real>,
    /// `[head_dim][width]`
    query: &'a [E::Real],
    /// `[value_dim][width]`
    d_out: &'a [E::Real],
    /// `[width]`
    maxima: &'a [E::Real],
    /// `[width]`
    deltas: &'a [E::Real],
    /// `[keys][width]`
    scores: &'a mut [E::Real],
    /// `[keys][width]`
    d_weights: &'a mut [E::Real],
    /// `[keys][width]`
    slopes: &'a mut [E::Real],
    /// `[keys][row]`, and so the next two
    weights: &'a mut [E::Real],
    d_scores: &'a mut [E::Real],
    d_bias: &'a mut [E::Real],
    row: usize,
}

impl<E: Element> Step<'_, E> {
    /// Returns the keys hidden from some query of the panel.
    #[inline(always)]
    fn run<S: Simd, const N: usize>(self, simd: S) -> KeySet {
        let width = N * E::Real::lanes::<S>();
        let problem = self.plan.problem;
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: problem.head_dim,
            left: Left { data: self.key.data, lie: Lie::Rows(self.key.step) },
            right: Right { data: self.query, step: width },
            out: self.scores,
            row: width,
            onto: Onto::Zero,
        });
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: problem.value_dim,
            left: Left { data: self.value.data, lie: Lie::Rows(self.value.step) },
            right: Right { data: self.d_out, step: width },
            out: self.d_weights,
            row: width,
            onto: Onto::Zero,
        });
        let keys = || self.keys.clone();
        let rule = &self.plan.rule;
        let slopes = problem.softcap.is_some().then_some(&mut *self.slopes);
        rule.apply(simd, self.panel, keys(), width, self.scores, slopes);
        let partial = self.panel.hide::<E::Real, S>(simd, keys(), width, self.scores);
        if let Some(dropout) = &problem.dropout {
            self.panel.drop_some(dropout, keys(), width, self.d_weights);
        }
        let factor = E::Real::splat(simd, E::Real::of_f64(rule.factor));
        let [zero, least] = [E::Real::ZERO, E::Real::LEAST].map(|x| E::Real::splat(simd, x));
        let maxima = &E::Real::vectors::<S>(self.maxima)[..N];
        let deltas = &E::Real::vectors::<S>(self.deltas)[..N];
        let scores = E::Real::vectors::<S>(self.scores).chunks_exact(N);
        let d_weights = E::Real::vectors::<S>(self.d_weights).chunks_exact(N);
        for (index, (scores, d_weights)) in scores.zip(d_weights).enumerate() {
            let at = index * self.row;
            let weights = &mut E::Real::vectors_mut::<S>(&mut self.weights[at..][..width])[..N];
            let d_scores = &mut E::Real::vectors_mut::<S>(&mut self.d_scores[at..][..width])[..N];
            for n in 0..N {
                let exponent = E::Real::mul(simd, E::Real::sub(simd, scores[n], maxima[n]), factor);
                weights[n] = exp2::<E::Real, S>(simd, exponent);
                let d_score = E::Real::sub(simd, d_weights[n], deltas[n]);
                d_scores[n] = E::Real::mul(simd, weights[n], d_score);
            }
            if partial != 0 {
                for n in 0..N {
                    d_scores[n] = E::Real::if_less(simd, scores[n], least, zero, d_scores[n]);
                }
            }
        }
        if let Some(dropout) = &problem.dropout {
            self.panel.drop_some(dropout, keys(), self.row, self.weights);
        }
        if !rule.plain {
            let scale = E::Real::of_f64(problem.scale);
            for index in 0..self.keys.len() {
                let at = index * self.row;
                let d_scores = &mut self.d_scores[at..][..width];
                if !self.d_bias.is_empty() {
                    self.d_bias[at..][..width].copy_from_slice(d_scores);
                }
                for (lane, d_score) in d_scores.iter_mut().enumerate() {
                    *d_score *= scale;
                    if problem.softcap.is_some() {
                        *d_score *= self.slopes[index * width + lane];
                    }
                }
            }
        }
        partial
    }
}

/// Weights or gradients of dot products of a whole tile, `[keys][row]`.
#[derive(Clone, Copy)]
struct Scores<'a, T> {
    data: &'a [T],
    row: usize,
    keys: usize,
    queries: usize,
}

impl<T: Real> Scores<'_, T> {
    /// `out = data rows`: for each key the sum over queries, `[keys][width]`.
    #[inline(always)]
    fn by_key<S: Simd>(&self, simd: S, rows: Right<T>, width: usize, out: &mut [T]) {
        let left = Left { data: self.data, lie: Lie::Rows(self.row) };
        product(simd, [self.keys, self.queries, width], left, rows, out, Onto::Zero);
    }

    /// `out += datat rows`: for each query the sum over keys, `[queries][width]`.
    #[inline(always)]
    fn by_query<S: Simd>(&self, simd: S, rows: Right<T>, width: usize, out: &mut [T]) {
        let left = Left { data: self.data, lie: Lie::Columns(self.row) };
        product(simd, [self.queries, self.keys, width], left, rows, out, Onto::Itself);
    }
}

/// A product of any number of vectors in width.
#[inline(always)]
fn product<T: Real, S: Simd>(
    simd: S,
    [rows, depth, width]: [usize; 3],
    left: Left<T>,
    right: Right<T>,
    out: &mut [T],
    onto: Onto<T>,
) {
    let lanes = T::lanes::<S>();
    let mut column = 0;
    while column < width {
        let right = Right { data: &right.data[column..], step: right.step };
        let out = &mut out[column..];
        if column + 2 * lanes <= width {
            simd.vectorize(Product::<_, 2> { rows, depth, left, right, out, row: width, onto });
            column += 2 * lanes;
        } else {
            simd.vectorize(Product::<_, 1> { rows, depth, left, right, out, row: width, onto });
            column += lanes;
        }
    }
}

/// Products with rows that are not finite, cell by visible cell: zero times such a row is not zero.
struct Spoilt<'a, E: Element> {
    plan: &'a Plan<'a, E>,
    /// Batch row, head, first query.
    at: [usize; 3],
    keys: Range<usize>,
    key: Rows<'a, E::Real>,
}

impl<E: Element> Spoilt<'_, E> {
    /// Adds what spoilt queries give to keys and values, and spoilt keys to queries.
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        scores: &Scores<E::Real>,
        weights: &Scores<E::Real>,
        queries: QuerySet,
        keys: KeySet,
        inverses: &[E::Real],
        d_query: &mut [E::Real],
        d_key: &mut [E::Real],
        d_value: &mut [E::Real],
    ) {
        let Problem { head_dim, value_dim, .. } = *self.plan.problem;
        let [batch, head, first] = self.at;
        let longest = KEY_TILE.min(self.plan.problem.keys);
        let (key_pad, value_pad) = (d_key.len() / longest, d_value.len() / longest);
        let product = |mut a: E::Real, b: E::Real| {
            a *= b;
            a
        };
        for lane in 0..scores.queries {
            let at = [batch, head, first + lane];
            let (query, d_out) = (self.plan.inputs.query.row(at), self.plan.d_out.row(at));
            for index in 0..scores.keys {
                let (by_query, by_key) = (queries >> lane & 1 == 1, keys >> index & 1 == 1);
                let key = self.keys.start + index;
                if !(by_query || by_key) || !self.plan.problem.is_visible(batch, head, at[2], key) {
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
