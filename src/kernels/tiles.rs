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
        // (start, end) of the hulls, and of what all rows see
        let (mut hulls, mut full) = ([(usize::MAX, 0); 2], [(0, usize::MAX); 2]);
        for query in queries {
            for (range, (start, end)) in plan.ranges(batch, query).into_iter().enumerate() {
                let (hull, full) = (&mut hulls[range], &mut full[range]);
                *full = (full.0.max(start), full.1.min(end));
                if start < end {
                    *hull = (hull.0.min(start), hull.1.max(end));
                }
            }
        }
        let [first, second] = hulls.map(|(start, end)| start..end);
        let full = full.map(|(start, end)| start..end);
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

    /// The keys outside of which nothing is visible, in order and apart.
    #[cfg(feature = "gpu")]
    pub(crate) fn visible(&self) -> &[Range<usize>; 2] {
        &self.visible
    }

    /// The keys that every query sees by its first range, and by its second one.
    #[cfg(feature = "gpu")]
    pub(crate) fn all_full(&self) -> &[Range<usize>; 2] {
        &self.full
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
}

/// The keys of a batch row from the first to the last that is not hidden from every query.
pub(crate) fn key_bounds(plan: &Plan, batch: usize) -> Range<usize> {
    let Some(hidden) = plan.hidden_keys(batch) else { return 0..plan.keys };
    let first = hidden.iter().position(|&hidden| !hidden).unwrap_or(0);
    let last = hidden.iter().rposition(|&hidden| !hidden).map_or(0, |last| last + 1);
    first..last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{RowSpans, Scoring, Span, Visibility};

    fn plan(keys: usize, rows: &[[[u32; 2]; 2]]) -> Plan {
        let span = |[start, end]: [u32; 2]| Span { start, end };
        let spans = rows.iter().map(|&[a, b]| RowSpans::two(span(a), span(b))).collect();
        Plan {
            batch: 1,
            heads: 1,
            kv_heads: 1,
            queries: rows.len(),
            keys,
            head_dim: 1,
            value_dim: 1,
            visibility: Visibility { spans: Some(spans), ..Visibility::default() },
            scoring: Scoring { scale: 1.0, softcap: None, slopes: None },
            dropout: None,
        }
    }

    fn bounds(keys: usize, rows: &[[[u32; 2]; 2]]) -> TileBounds {
        let plan = plan(keys, rows);
        TileBounds::new(&plan, 0, 0..rows.len(), &key_bounds(&plan, 0))
    }

    #[test]
    fn one_range_visits_its_hull() {
        let bounds = bounds(100, &[[[12, 31], [0, 0]], [[0, 0], [0, 0]], [[15, 44], [0, 0]]]);
        assert_eq!(bounds.tiles(10).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(bounds.within(&(10..20)), 12..20);
        assert_eq!(bounds.within(&(40..50)), 40..44);
        assert!(bounds.within(&(50..60)).is_empty() && !bounds.visits(0, 10));
        // A row that sees nothing leaves nothing full.
        assert!(!bounds.all_of(&(15..31)));
        assert_eq!(bounds.ranges_in(&(15..31)), [true, false]);
    }

    #[test]
    fn nothing_is_hidden_between_the_last_start_and_the_first_end() {
        let bounds = bounds(100, &[[[12, 31], [0, 0]], [[15, 44], [0, 0]]]);
        assert!(bounds.all_of(&(15..31)) && !bounds.all_of(&(14..31)) && !bounds.all_of(&(15..32)));
    }

    #[test]
    fn tiles_between_two_ranges_are_not_visited() {
        let rows = [[[0, 4], [60, 70]], [[0, 4], [61, 71]], [[0, 4], [69, 79]]];
        let bounds = bounds(100, &rows);
        assert_eq!(bounds.tiles(10).collect::<Vec<_>>(), [0, 6, 7]);
        assert!((0..10).all(|tile| bounds.visits(tile, 10) == [0, 6, 7].contains(&tile)));
        assert_eq!(bounds.within(&(0..10)), 0..4);
        assert_eq!(bounds.ranges_in(&(0..4)), [true, false]);
        assert_eq!(bounds.ranges_in(&(60..70)), [false, true]);
        assert!(bounds.all_of(&(0..4)) && bounds.all_of(&(69..70)) && !bounds.all_of(&(60..70)));
        // In one tile they are seen together.
        assert_eq!(bounds.within(&(0..100)), 0..79);
        assert_eq!(bounds.ranges_in(&(0..79)), [true, true]);
    }

    #[test]
    fn ranges_of_two_in_one_tile_are_visited_once() {
        let bounds = bounds(100, &[[[0, 3], [6, 25]]]);
        assert_eq!(bounds.tiles(10).collect::<Vec<_>>(), [0, 1, 2]);
    }

    /// The first rows of a window with sinks have one range, the others two.
    #[test]
    fn hulls_that_meet_are_one() {
        let bounds = bounds(100, &[[[0, 10], [0, 0]], [[0, 4], [5, 12]], [[0, 4], [30, 40]]]);
        assert_eq!(bounds.tiles(10).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(bounds.ranges_in(&(10..20)), [true, true]);
        assert!(bounds.all_of(&(0..4)) && !bounds.all_of(&(5..10)));
    }

    #[test]
    fn keys_hidden_from_all_at_the_ends_are_not_visited() {
        let mut plan = plan(100, &[[[0, 4], [60, 70]], [[0, 4], [61, 71]]]);
        let hidden = (0..100).map(|key| !(20..65).contains(&key));
        plan.visibility.hidden_keys = Some(hidden.collect());
        let bounds = TileBounds::new(&plan, 0, 0..2, &key_bounds(&plan, 0));
        assert_eq!(bounds.tiles(10).collect::<Vec<_>>(), [6]);
        assert_eq!(bounds.within(&(60..70)), 60..65);
        let none = plan.visibility.hidden_keys.insert([true; 100].into());
        assert!(none.iter().all(|&hidden| hidden));
        let bounds = TileBounds::new(&plan, 0, 0..2, &key_bounds(&plan, 0));
        assert_eq!(bounds.tiles(10).count(), 0);
    }
}
