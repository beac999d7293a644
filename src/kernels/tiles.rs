//! Which tiles of keys a tile of queries visits, and where its spans hide nothing: the one schedule
//! of every pass.
//!
//! A row sees one range of keys or two. Neighbouring rows see much the same, so what a tile of queries
//! sees is the hull of their first ranges and the hull of their second ones; a tile of keys outside of
//! both is never read. Hulls that meet are one.

use std::ops::Range;

use super::Plan;

/// What a tile of queries sees by its spans. Fields that are empty are `0..0` or end before they
/// begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TileBounds {
    /// Outside of these keys nothing is visible. In order and apart; the second is mostly empty.
    visible: [Range<usize>; 2],
    /// Within the keys of either no span hides anything.
    full: [Range<usize>; 2],
    /// Whether some row has two ranges.
    two_ranges: bool,
}

impl TileBounds {
    /// The bounds of `queries`, of which there is one at least, within the keys of [`key_bounds`].
    pub(crate) fn new(
        plan: &Plan,
        batch: usize,
        queries: Range<usize>,
        key_bounds: &Range<usize>,
    ) -> Self {
        let mut visible = [usize::MAX..0, usize::MAX..0];
        let mut full = [0..usize::MAX, 0..usize::MAX];
        for query in queries {
            for (range, (start, end)) in plan.ranges(batch, query).into_iter().enumerate() {
                let (visible, full) = (&mut visible[range], &mut full[range]);
                *full = full.start.max(start)..full.end.min(end);
                if start < end {
                    *visible = visible.start.min(start)..visible.end.max(end);
                }
            }
        }
        let [first, second] = visible;
        let two_ranges = !second.is_empty();
        let clip = |keys: Range<usize>| {
            let keys = keys.start.max(key_bounds.start)..keys.end.min(key_bounds.end);
            if keys.is_empty() { 0..0 } else { keys }
        };
        let visible = if !two_ranges || first.is_empty() || first.end < second.start {
            let [first, second] = [first, second].map(clip);
            if first.is_empty() { [second, 0..0] } else { [first, second] }
        } else {
            [clip(first.start.min(second.start)..first.end.max(second.end)), 0..0]
        };
        Self { visible, full, two_ranges }
    }

    /// The keys of a tile that some query may see, and those between them.
    #[inline]
    pub(crate) fn within(&self, tile: &Range<usize>) -> Range<usize> {
        let [first, second] = [0, 1].map(|range| {
            let visible = &self.visible[range];
            tile.start.max(visible.start)..tile.end.min(visible.end)
        });
        match (first.is_empty(), second.is_empty()) {
            (_, true) => first,
            (true, false) => second,
            (false, false) => first.start..second.end,
        }
    }

    /// The indices of the tiles of `size` keys that hold a key that some query may see, ascending.
    pub(crate) fn tiles(&self, size: usize) -> impl Iterator<Item = usize> + use<> {
        let [first, second] = [0, 1].map(|range| {
            let Range { start, end } = self.visible[range];
            if start < end { start / size..end.div_ceil(size) } else { 0..0 }
        });
        let rest = second.start.max(first.end)..second.end;
        first.chain(rest)
    }

    /// Whether [`tiles`](Self::tiles) holds `tile`.
    pub(crate) fn visits(&self, tile: usize, size: usize) -> bool {
        !self.within(&(tile * size..(tile + 1) * size)).is_empty()
    }

    /// Whether no span hides any of these keys from any query.
    #[inline]
    pub(crate) fn all_of(&self, keys: &Range<usize>) -> bool {
        self.full.iter().any(|full| full.start <= keys.start && keys.end <= full.end)
    }

    /// Which of a row's ranges may have keys among these.
    #[inline]
    pub(crate) fn ranges_in(&self, keys: &Range<usize>) -> [bool; 2] {
        if !self.two_ranges {
            return [true, false];
        }
        let [first, second] = &self.visible;
        let apart = !second.is_empty();
        [!apart || keys.start < first.end, !apart || second.start < keys.end]
    }

    /// The keys within which the spans' ranges `range` hide nothing.
    #[inline]
    pub(crate) fn full(&self, range: usize) -> &Range<usize> {
        &self.full[range]
    }

    /// Whether some row has two ranges.
    pub(crate) fn two_ranges(&self) -> bool {
        self.two_ranges
    }
}

/// The keys of a batch row from the first to the last that is not hidden from every query.
pub(crate) fn key_bounds(plan: &Plan, batch: usize) -> Range<usize> {
    let Some(hidden) = plan.hidden_keys(batch) else { return 0..plan.keys };
    let first = hidden.iter().position(|&hidden| !hidden).unwrap_or(0);
    let last = hidden.iter().rposition(|&hidden| !hidden).map_or(0, |last| last + 1);
    first..last
}
