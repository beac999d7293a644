//! Which keys a panel of neighbouring queries sees: none, all or some of a tile.

use std::ops::Range;

use pulp::Simd;

use super::problem::{broadcast_strides, offset};
use super::{Problem, Real};
use crate::kernels::SeededDropout;

/// Most queries in a panel: two vectors of sixteen `f32`.
pub(super) const MOST_LANES: usize = 32;
/// Keys in a tile; a set of them fits a [`KeySet`].
pub(super) const KEY_TILE: usize = 128;
/// Keys of a tile, bit `j` for the tile's key `j`.
pub(super) type KeySet = u128;

/// The visible keys of the queries of one panel, one query a lane. Lanes behind the last query
/// repeat it.
pub(super) struct Panel<'a> {
    problem: &'a Problem<'a>,
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) queries: usize,
    /// First visible key of each lane, and one past the last.
    starts: [u32; MOST_LANES],
    ends: [u32; MOST_LANES],
    /// Outside of these keys nothing is visible.
    pub(super) seen: Range<usize>,
    /// Within these keys no span hides anything.
    full: Range<usize>,
}

impl<'a> Panel<'a> {
    pub(super) fn new(
        problem: &'a Problem<'a>,
        [batch, head, first]: [usize; 3],
        queries: usize,
        key_bounds: &Range<usize>,
    ) -> Self {
        let (mut starts, mut ends) = ([0; MOST_LANES], [0; MOST_LANES]);
        let (mut seen, mut full) = ((usize::MAX, 0), (0, usize::MAX));
        for lane in 0..queries {
            let (start, end) = problem.span(batch, first + lane);
            (starts[lane], ends[lane]) = (start as u32, end as u32);
            full = (full.0.max(start), full.1.min(end));
            if start < end {
                seen = (seen.0.min(start), seen.1.max(end));
            }
        }
        let last = queries - 1;
        let (start, end) = (starts[last], ends[last]);
        starts[queries..].fill(start);
        ends[queries..].fill(end);
        let seen = seen.0.max(key_bounds.start)..seen.1.min(key_bounds.end);
        Self { problem, batch, head, first, queries, starts, ends, seen, full: full.0..full.1 }
    }

    /// The query of a lane.
    pub(super) fn query(&self, lane: usize) -> usize {
        self.first + lane.min(self.queries - 1)
    }

    /// Sets hidden scores to minus infinity in a tile of `scores`, `[keys][width]`. Returns the
    /// keys that are hidden from some query.
    #[inline(always)]
    pub(super) fn hide<T: Real, S: Simd>(
        &self,
        simd: S,
        keys: Range<usize>,
        width: usize,
        scores: &mut [T],
    ) -> KeySet {
        let mut partial: KeySet = 0;
        let hidden = T::splat(simd, T::NEG_INFINITY);
        let within = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
        let full = within(self.full.start)..within(self.full.end.max(self.full.start));
        if full.len() < keys.len() {
            let (mut starts, mut ends) = ([T::ZERO; MOST_LANES], [T::ZERO; MOST_LANES]);
            // in 32 bits and a plain loop, or the compiler takes lane by lane
            let (from, to) = (keys.start as u32, keys.end as u32);
            for lane in 0..MOST_LANES {
                let within = |key: u32| T::of_f64(f64::from((key.clamp(from, to) - from) as i32));
                starts[lane] = within(self.starts[lane]);
                ends[lane] = within(self.ends[lane]);
            }
            let (starts, ends) = (T::vectors::<S>(&starts), T::vectors::<S>(&ends));
            for index in (0..full.start).chain(full.end..keys.len()) {
                partial |= 1 << index;
                let key = T::splat(simd, T::of_f64(index as f64));
                let row = T::vectors_mut::<S>(&mut scores[index * width..][..width]);
                for (score, (&start, &end)) in row.iter_mut().zip(starts.iter().zip(ends)) {
                    let before_end = T::if_less(simd, key, end, *score, hidden);
                    *score = T::if_less(simd, key, start, hidden, before_end);
                }
            }
        }
        if let Some(hidden_keys) = self.problem.hidden_keys(self.batch) {
            for (index, &hidden) in hidden_keys[keys.clone()].iter().enumerate() {
                if hidden {
                    partial |= 1 << index;
                    scores[index * width..][..width].fill(T::NEG_INFINITY);
                }
            }
        }
        if let Some(cells) = self.problem.hidden_cells {
            let strides = broadcast_strides(&cells.shape);
            for lane in 0..self.queries {
                let at = offset(&strides, [self.batch, self.head, self.first + lane, keys.start]);
                for index in 0..keys.len() {
                    if cells.hidden[at + index * strides[3]] {
                        partial |= 1 << index;
                        scores[index * width + lane] = T::NEG_INFINITY;
                    }
                }
            }
        }
        partial
    }

    /// Whether nothing of a tile is hidden from any query of the panel.
    pub(super) fn sees_all(&self, keys: &Range<usize>) -> bool {
        self.full.start <= keys.start
            && keys.end <= self.full.end
            && self.problem.hidden_keys.is_none()
            && self.problem.hidden_cells.is_none()
    }

    /// Whether hidden keys or hidden cells leave nothing of a tile visible.
    pub(super) fn is_hidden(&self, keys: Range<usize>) -> bool {
        let hidden_keys = self.problem.hidden_keys(self.batch);
        if hidden_keys.is_some_and(|hidden| hidden[keys.clone()].iter().all(|&hidden| hidden)) {
            return true;
        }
        let Some(cells) = self.problem.hidden_cells else { return false };
        let strides = broadcast_strides(&cells.shape);
        (0..self.queries).all(|lane| {
            let at = offset(&strides, [self.batch, self.head, self.first + lane, keys.start]);
            match strides[3] {
                0 => cells.hidden[at],
                _ => cells.hidden[at..][..keys.len()].iter().all(|&hidden| hidden),
            }
        })
    }

    /// Sets what dropout drops to zero in a tile, `[keys][row]`.
    #[inline(always)]
    pub(super) fn drop_some<T: Real>(
        &self,
        dropout: &SeededDropout,
        keys: Range<usize>,
        row: usize,
        tile: &mut [T],
    ) {
        let threshold = dropout.threshold();
        for lane in 0..self.queries {
            let numbers = dropout.row(self.batch, self.head, self.first + lane);
            for (index, key) in keys.clone().enumerate() {
                if numbers.bits(key as u32) < threshold {
                    tile[index * row + lane] = T::ZERO;
                }
            }
        }
    }

    /// Whether the query of a lane sees a key.
    pub(super) fn is_visible(&self, lane: usize, key: usize) -> bool {
        self.problem.is_visible(self.batch, self.head, self.query(lane), key)
    }
}

/// The keys of a batch row from the first to the last that is not hidden from every query.
pub(super) fn key_bounds(problem: &Problem, batch: usize) -> Range<usize> {
    let Some(hidden) = problem.hidden_keys(batch) else { return 0..problem.keys };
    let first = hidden.iter().position(|&hidden| !hidden).unwrap_or(0);
    let last = hidden.iter().rposition(|&hidden| !hidden).map_or(0, |last| last + 1);
    first..last
}
