//! The forward pass: one task for each batch row, head and tile of queries.
//!
//! A task goes over the tiles of keys that its queries see. Queries stand in the lanes of the
//! vectors, so that a row's maximum and sum are lane by lane and keys and values are only read
//! number by number, in whatever layout they lie:
//!
//! ```text
//! St = K Qt         [keys, queries]    dot products, then scores, then hidden ones to -inf
//! m' = max(m, St)   [queries]
//! Pt = exp(St - m')
//! l  = exp(m - m') l + sum of Pt
//! Ot = exp(m - m') Ot + Vt Pt          [value_dim, queries]
//! ```
//!
//! (Milakov and Gimelshein 2018; Dao et al. 2022, section 3.1; Dao 2023, section 3.1.)

use std::mem::MaybeUninit;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::online_softmax::{OnlineSoftmax, update};
use super::panel::{KEY_TILE, KeySet, MOST_LANES, QueryPanel};
use super::rows::{TensorRows, rows_of_columns, transpose_source};
use super::score::ScoreRule;
use super::strided::result_row;
use super::tasks::{Workspace, for_each};
use super::tile_product::{Init, Left, LeftLayout, Product, Right};
use super::{Inputs, Real};
use crate::kernels::Plan;
use crate::kernels::cpu::memory::SharedSlice;
use crate::kernels::tiles::{TileBounds, key_bounds};

/// Queries in a task, the largest that leaves at least [`ENOUGH_TASKS`]: keys and values are read
/// once a task. No result depends on it.
const QUERY_TILES: [usize; 3] = [384, 192, 96];
/// Tasks that keep many threads busy to the end.
const ENOUGH_TASKS: usize = 64;

pub(super) fn forward<T: Real>(
    arch: Arch,
    plan: &Plan,
    inputs: &Inputs<T>,
    out: &mut [MaybeUninit<T>],
    statistics: &mut [T],
) {
    let Plan { batch, heads, queries, .. } = *plan;
    let rows = batch * heads * queries;
    let enough = |tile: &&usize| batch * heads * queries.div_ceil(**tile) >= ENOUGH_TASKS;
    let [.., smallest] = QUERY_TILES;
    let query_tile = *QUERY_TILES.iter().find(enough).unwrap_or(&smallest);
    let tiles = queries.div_ceil(query_tile);
    let bounds: Vec<_> = (0..batch).map(|batch| key_bounds(plan, batch)).collect();
    let out = SharedSlice::new(out);
    let (maxima, sums) = statistics.split_at_mut(rows);
    let (maxima, sums) = (SharedSlice::new(maxima), SharedSlice::new(sums));
    let rule = ScoreRule::new(plan, inputs);
    let work = rows * plan.keys * (plan.head_dim + plan.value_dim);
    for_each(batch * heads * tiles, work, |workspace, task| {
        // head after head: rows of two heads share cache lines of the output; the last queries first:
        // under look-ahead they see most
        let (tile, of_head) = (tiles - 1 - task % tiles, task / tiles);
        let (batch, head) = (of_head / heads, of_head % heads);
        let first = tile * query_tile;
        let count = query_tile.min(queries - first);
        let at = of_head * queries + first;
        // SAFETY: rows `first..first + count` of this batch row and head belong to this task alone.
        let (maxima, sums) = unsafe { (maxima.slice(at, count), sums.slice(at, count)) };
        arch.dispatch(QueryTile {
            plan,
            inputs,
            rule,
            bounds: &bounds[batch],
            batch,
            head,
            first,
            count,
            out: &out,
            maxima,
            sums,
            workspace,
        });
    });
}

struct QueryTile<'a, T: Real> {
    plan: &'a Plan,
    inputs: &'a Inputs<'a, T>,
    rule: ScoreRule<'a, T>,
    bounds: &'a Range<usize>,
    batch: usize,
    head: usize,
    first: usize,
    count: usize,
    out: &'a SharedSlice<'a, MaybeUninit<T>>,
    maxima: &'a mut [T],
    sums: &'a mut [T],
    workspace: &'a mut Workspace<T>,
}

impl<T: Real> WithSimd for QueryTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Plan { keys, head_dim, value_dim, .. } = *self.plan;
        let lanes = T::lanes::<S>();
        let widest = (2 * lanes).min(self.count.next_multiple_of(lanes));
        let count = self.count.div_ceil(widest);
        let key_tile = KEY_TILE.min(keys);
        let [states, scores, key_rows, value_rows] = self.workspace.slices([
            count * widest * (head_dim + value_dim + 2),
            key_tile * widest,
            key_tile.max(widest) * head_dim,
            key_tile * value_dim,
        ]);
        let mut panels = Vec::with_capacity(count);
        for (index, state) in
            states.chunks_exact_mut(widest * (head_dim + value_dim + 2)).enumerate()
        {
            let first = self.first + index * widest;
            let queries = widest.min(self.first + self.count - first);
            let width = queries.next_multiple_of(lanes);
            let panel =
                QueryPanel::new(self.plan, [self.batch, self.head, first], queries, self.bounds);
            let (query, state) = state.split_at_mut(head_dim * width);
            let (out, state) = state.split_at_mut(value_dim * width);
            let (max, state) = state.split_at_mut(width);
            let sum = &mut state[..width];
            let at = [self.batch, self.head, first];
            transpose_source(simd, &self.inputs.query, at, queries, query, width, key_rows);
            let sink = self.rule.sink(self.head);
            max.fill(sink.map_or(T::NEG_INFINITY, T::of_f64));
            sum.fill(if sink.is_some() { T::ONE } else { T::ZERO });
            out.fill(T::ZERO);
            panels.push((panel, OnlineSoftmax { query, out, max, sum, width }));
        }
        let kv_head = self.plan.kv_head(self.head);
        let of_task = self.first..self.first + self.count;
        let of_task = TileBounds::new(self.plan, self.batch, of_task, self.bounds);
        for tile in of_task.tiles(KEY_TILE) {
            let tile = of_task.within(&(tile * KEY_TILE..(tile + 1) * KEY_TILE));
            let at = [self.batch, kv_head, tile.start];
            let (len, readers) = (tile.len(), panels.len());
            let key =
                TensorRows::read(simd, &self.inputs.key, at, len, head_dim, readers, key_rows);
            let value =
                TensorRows::read(simd, &self.inputs.value, at, len, value_dim, readers, value_rows);
            let non_finite = if panels.iter().all(|(panel, _)| panel.sees_all(&tile)) {
                0
            } else {
                // Brings the values into the cache, too.
                value.non_finite(simd, KeySet::MAX >> (KEY_TILE - tile.len()), value_dim)
            };
            for (panel, state) in &mut panels {
                let seen = panel.bounds.within(&tile);
                if seen.is_empty() || panel.is_hidden(seen.clone()) {
                    continue;
                }
                let skip = seen.start - tile.start;
                let step = PanelTile {
                    plan: self.plan,
                    rule: &self.rule,
                    panel,
                    key: key.skip(skip),
                    value: value.skip(skip),
                    scores: &mut scores[..seen.len() * state.width],
                    keys: seen,
                };
                match state.width / lanes {
                    1 => step.run::<S, 1>(simd, state, non_finite >> skip),
                    _ => step.run::<S, 2>(simd, state, non_finite >> skip),
                }
            }
        }
        let keep = self.plan.dropout.map_or(1.0, |dropout| dropout.scale());
        for (panel, state) in &mut panels {
            let mut inverses = [T::ZERO; MOST_LANES];
            for (lane, inverse) in inverses[..panel.queries].iter_mut().enumerate() {
                let row = panel.first + lane - self.first;
                let (max, mut sum) = (state.max[lane], state.sum[lane]);
                // what a sink alone leaves: perhaps a dead row
                if sum == T::ONE
                    && self.inputs.sinks.is_some()
                    && !self.plan.sees_any(self.batch, self.head, panel.first + lane)
                {
                    sum = T::ZERO;
                }
                *inverse = T::of_f64(if sum == T::ZERO { 0.0 } else { keep / sum.to_f64() });
                self.maxima[row] = max;
                self.sums[row] = sum;
            }
            let inverses = T::vectors::<S>(&inverses);
            for sums in T::vectors_mut::<S>(state.out).chunks_exact_mut(state.width / lanes) {
                for (sum, &inverse) in sums.iter_mut().zip(inverses) {
                    *sum = T::mul(simd, *sum, inverse);
                }
            }
            let at = |lane| {
                let sizes = [self.plan.heads, self.plan.queries, value_dim];
                result_row(sizes, [self.batch, self.head, panel.first + lane])
            };
            // SAFETY: these rows belong to this task alone, and each is borrowed once at a time.
            let row = |lane| unsafe { self.out.slice(at(lane), value_dim) };
            let fours = panel.queries / 4 * 4;
            for lane in (0..fours).step_by(4) {
                let rows = [row(lane), row(lane + 1), row(lane + 2), row(lane + 3)];
                rows_of_columns(state.out, state.width, lane, rows);
            }
            for lane in fours..panel.queries {
                let columns = state.out.chunks_exact(state.width);
                for (out, column) in row(lane).iter_mut().zip(columns) {
                    out.write(column[lane]);
                }
            }
        }
    }
}

/// One panel against one tile of keys.
struct PanelTile<'a, T: Real> {
    plan: &'a Plan,
    rule: &'a ScoreRule<'a, T>,
    panel: &'a QueryPanel<'a>,
    keys: Range<usize>,
    key: TensorRows<'a, T>,
    value: TensorRows<'a, T>,
    /// `[keys][width]`
    scores: &'a mut [T],
}

impl<T: Real> PanelTile<'_, T> {
    /// `non_finite`: the keys whose values are not finite. If they are hidden from a query, they must not
    /// even be multiplied by that query's weight of zero.
    #[inline(always)]
    fn run<S: Simd, const N: usize>(
        self,
        simd: S,
        state: &mut OnlineSoftmax<T>,
        non_finite: KeySet,
    ) {
        let width = state.width;
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: self.plan.head_dim,
            left: Left { data: self.key.data, layout: LeftLayout::Rows(self.key.step) },
            right: Right { data: state.query, step: width },
            out: self.scores,
            row: width,
            init: Init::Zero,
        });
        self.rule.apply(simd, self.panel, self.keys.clone(), width, self.scores, None);
        let partial = self.panel.hide::<T, S>(simd, self.keys.clone(), width, self.scores);
        let mut rescale = [T::ZERO; MOST_LANES];
        let factor = T::of_f64(self.rule.factor);
        update::<_, S, N>(simd, factor, self.scores, state, &mut rescale);
        if let Some(dropout) = self.plan.dropout {
            self.panel.drop_some(&dropout, self.keys.clone(), width, self.scores);
        }
        let non_finite = partial & non_finite;
        if non_finite == 0 {
            self.add_values::<S, N>(simd, self.value, &rescale, state);
        } else {
            let clean = self.value.without(non_finite, self.keys.len(), self.plan.value_dim);
            let clean = TensorRows { data: &clean, step: self.plan.value_dim };
            self.add_values::<S, N>(simd, clean, &rescale, state);
            self.add_non_finite(non_finite, state);
        }
    }

    /// The tile's values, weighted, onto the rescaled output.
    #[inline(always)]
    fn add_values<S: Simd, const N: usize>(
        &self,
        simd: S,
        value: TensorRows<T>,
        rescale: &[T],
        state: &mut OnlineSoftmax<T>,
    ) {
        simd.vectorize(Product::<_, N> {
            rows: self.plan.value_dim,
            depth: self.keys.len(),
            left: Left { data: value.data, layout: LeftLayout::Columns(value.step) },
            right: Right { data: self.scores, step: state.width },
            out: state.out,
            row: state.width,
            init: Init::Scaled(rescale),
        });
    }

    /// The values that are not finite, where they are visible: zero times such a value is not zero.
    #[cold]
    #[inline(never)]
    fn add_non_finite(&self, non_finite: KeySet, state: &mut OnlineSoftmax<T>) {
        for index in (0..self.keys.len()).filter(|index| non_finite >> index & 1 == 1) {
            for lane in 0..self.panel.queries {
                if self.panel.is_visible(lane, self.keys.start + index) {
                    let weight = self.scores[index * state.width + lane];
                    for (c, &value) in self.value.row(index, self.plan.value_dim).iter().enumerate()
                    {
                        let mut part = weight;
                        part *= value;
                        state.out[c * state.width + lane] += part;
                    }
                }
            }
        }
    }
}
