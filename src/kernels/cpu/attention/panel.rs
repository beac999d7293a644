//! Which keys a panel of neighbouring queries sees: none, all or some of a tile.

use std::ops::Range;

use pulp::Simd;

use super::Real;
use super::strided::{broadcast_strides, offset};
use crate::kernels::tiles::TileBounds;
use crate::kernels::{Plan, SeededDropout};

/// Most queries in a panel: two vectors of sixteen `f32`.
pub(super) const MOST_LANES: usize = 32;
/// Keys in a tile; a set of them fits a [`KeySet`].
pub(super) const KEY_TILE: usize = 128;
/// Keys of a tile, bit `j` for the tile's key `j`.
pub(super) type KeySet = u128;

/// The visible keys of the queries of one panel, one query a lane. Lanes behind the last query
/// repeat it.
pub(super) struct Panel<'a> {
    plan: &'a Plan,
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) first: usize,
    pub(super) queries: usize,
    pub(super) bounds: TileBounds,
    /// The ranges of each lane.
    ranges: [LaneRanges; 2],
}

/// First key of one range of each lane, and one past the last.
#[derive(Clone, Copy)]
struct LaneRanges {
    starts: [u32; MOST_LANES],
    ends: [u32; MOST_LANES],
}

impl<'a> Panel<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        [batch, head, first]: [usize; 3],
        queries: usize,
        key_bounds: &Range<usize>,
    ) -> Self {
        let bounds = TileBounds::new(plan, batch, first..first + queries, key_bounds);
        let mut ranges = [LaneRanges { starts: [0; MOST_LANES], ends: [0; MOST_LANES] }; 2];
        let used = if bounds.two_ranges() { 2 } else { 1 };
        for lane in 0..MOST_LANES {
            let of_lane = plan.ranges(batch, first + lane.min(queries - 1));
            for (lanes, (start, end)) in ranges.iter_mut().zip(of_lane).take(used) {
                (lanes.starts[lane], lanes.ends[lane]) = (start as u32, end as u32);
            }
        }
        Self { plan, batch, head, first, queries, bounds, ranges }
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
        let mut partial = match self.bounds.ranges_in(&keys) {
            [true, true] => self.hide_outside_both::<T, S>(simd, &keys, width, scores),
            [first, _] => {
                let range = usize::from(!first);
                self.hide_outside::<T, S>(simd, range, &keys, width, scores)
            }
        };
        if let Some(hidden_keys) = self.plan.hidden_keys(self.batch) {
            for (index, &hidden) in hidden_keys[keys.clone()].iter().enumerate() {
                if hidden {
                    partial |= 1 << index;
                    scores[index * width..][..width].fill(T::NEG_INFINITY);
                }
            }
        }
        if let Some(cells) = &self.plan.visibility.hidden_cells {
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

    /// The part of [`hide`](Self::hide) that one range of each lane does.
    #[inline(always)]
    fn hide_outside<T: Real, S: Simd>(
        &self,
        simd: S,
        range: usize,
        keys: &Range<usize>,
        width: usize,
        scores: &mut [T],
    ) -> KeySet {
        let mut partial: KeySet = 0;
        let full = within(self.bounds.full(range), keys);
        if full.len() < keys.len() {
            let hidden = T::splat(simd, T::NEG_INFINITY);
            let (starts, ends) = self.ranges[range].within(keys);
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
        partial
    }

    /// The same where keys of both ranges stand side by side.
    #[inline(always)]
    fn hide_outside_both<T: Real, S: Simd>(
        &self,
        simd: S,
        keys: &Range<usize>,
        width: usize,
        scores: &mut [T],
    ) -> KeySet {
        let mut partial: KeySet = 0;
        let hidden = T::splat(simd, T::NEG_INFINITY);
        let full = [0, 1].map(|range| within(self.bounds.full(range), keys));
        let [first, second] = self.ranges.each_ref().map(|lanes| lanes.within(keys));
        let [first, second] =
            [&first, &second].map(|(starts, ends)| [starts, ends].map(|x| T::vectors::<S>(x)));
        for index in (0..keys.len()).filter(|index| !full.iter().any(|full| full.contains(index))) {
            partial |= 1 << index;
            let key = T::splat(simd, T::of_f64(index as f64));
            let row = T::vectors_mut::<S>(&mut scores[index * width..][..width]);
            for (lane, score) in row.iter_mut().enumerate() {
                let mut visible = hidden;
                for [starts, ends] in [first, second] {
                    let before_end = T::if_less(simd, key, ends[lane], *score, visible);
                    visible = T::if_less(simd, key, starts[lane], visible, before_end);
                }
                *score = visible;
            }
        }
        partial
    }

    /// Whether nothing of a tile is hidden from any query of the panel.
    pub(super) fn sees_all(&self, keys: &Range<usize>) -> bool {
        self.bounds.all_of(keys)
            && self.plan.visibility.hidden_keys.is_none()
            && self.plan.visibility.hidden_cells.is_none()
    }

    /// Whether hidden keys or hidden cells leave nothing of a tile visible.
    pub(super) fn is_hidden(&self, keys: Range<usize>) -> bool {
        let hidden_keys = self.plan.hidden_keys(self.batch);
        if hidden_keys.is_some_and(|hidden| hidden[keys.clone()].iter().all(|&hidden| hidden)) {
            return true;
        }
        let Some(cells) = &self.plan.visibility.hidden_cells else { return false };
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
        self.plan.is_visible(self.batch, self.head, self.query(lane), key)
    }
}

impl LaneRanges {
    /// Counted from the first of `keys`, as numbers to compare with.
    #[inline(always)]
    fn within<T: Real>(&self, keys: &Range<usize>) -> ([T; MOST_LANES], [T; MOST_LANES]) {
        let (mut starts, mut ends) = ([T::ZERO; MOST_LANES], [T::ZERO; MOST_LANES]);
        // in 32 bits and a plain loop, or the compiler takes lane by lane
        let (from, to) = (keys.start as u32, keys.end as u32);
        for lane in 0..MOST_LANES {
            let within = |key: u32| T::of_f64(f64::from((key.clamp(from, to) - from) as i32));
            starts[lane] = within(self.starts[lane]);
            ends[lane] = within(self.ends[lane]);
        }
        (starts, ends)
    }
}

/// The part of `range` among `keys`, counted from their first.
#[inline(always)]
fn within(range: &Range<usize>, keys: &Range<usize>) -> Range<usize> {
    let within = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
    within(range.start)..within(range.end.max(range.start))
}
