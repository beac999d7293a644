//! The keys that one query sees, as a set: what `&`, `|` and `!` make of one or two spans, where the
//! result is no more than that.

use super::{RowSpans, Span};

impl RowSpans {
    /// All keys of any of these; `None` if that takes more than two spans.
    fn union_of<const N: usize>(mut spans: [Span; N]) -> Option<Self> {
        spans.sort_unstable_by_key(|span| span.start);
        let (mut first, mut second) = (Span::default(), Span::default());
        for span in spans.into_iter().filter(|span| !span.is_empty()) {
            if first.is_empty() {
                first = span;
            } else if second.is_empty() && span.start <= first.end {
                first.end = first.end.max(span.end);
            } else if second.is_empty() {
                second = span;
            } else if span.start <= second.end {
                second.end = second.end.max(span.end);
            } else {
                return None;
            }
        }
        Some(Self::two(first, second))
    }

    /// The keys in both; `None` if that takes more than two spans.
    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        let both = |a: Span, b: Span| Span::of(a.start.max(b.start), a.end.min(b.end));
        let [a, b] = [self, other].map(|spans| [spans.first(), spans.second()]);
        if a[1].is_empty() && b[1].is_empty() {
            return Some(Self::one(both(a[0], b[0])));
        }
        Self::union_of([both(a[0], b[0]), both(a[0], b[1]), both(a[1], b[0]), both(a[1], b[1])])
    }

    /// The keys in either; `None` if that takes more than two spans.
    pub(super) fn union(self, other: Self) -> Option<Self> {
        Self::union_of([self.first(), self.second(), other.first(), other.second()])
    }

    /// The other ones of so many keys; `None` if that takes more than two spans.
    pub(super) fn complement(self, keys: u32) -> Option<Self> {
        let (first, second) = (self.first(), self.second());
        if first.is_empty() {
            return Some(Self::one(Span::of(0, keys)));
        }
        let before = Span::of(0, first.start);
        if second.is_empty() {
            return Some(Self::two(before, Span::of(first.end, keys)));
        }
        Self::union_of([before, Span::of(first.end, second.start), Span::of(second.end, keys)])
    }

    /// The keys whose flag is not true; `None` if that takes more than two spans.
    pub(super) fn of_hidden(hidden: &[bool]) -> Option<Self> {
        let mut spans = [Span::default(); 2];
        let (mut at, mut found) = (0, 0);
        for run in hidden.chunk_by(|a, b| a == b) {
            if !run[0] {
                *spans.get_mut(found)? = Span::of(at as u32, (at + run.len()) as u32);
                found += 1;
            }
            at += run.len();
        }
        Some(Self::two(spans[0], spans[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: usize = 7;

    /// Every set of keys, as flags of what is hidden.
    fn sets() -> impl Iterator<Item = [bool; KEYS]> {
        (0..1_u32 << KEYS).map(|bits| std::array::from_fn(|key| bits >> key & 1 == 1))
    }

    fn flags(spans: RowSpans) -> [bool; KEYS] {
        std::array::from_fn(|key| !spans.contains(key))
    }

    /// Every set of at most two spans has one form, and the operations are those of sets, as long as
    /// their result is such a set.
    #[test]
    fn spans_are_sets() {
        let all: Vec<RowSpans> = sets().filter_map(|hidden| RowSpans::of_hidden(&hidden)).collect();
        assert_eq!(all.len(), 99, "1 empty, 28 of one span, 70 of two");
        for a in &all {
            assert_eq!(RowSpans::of_hidden(&flags(*a)), Some(*a));
            assert_eq!(a.is_empty(), flags(*a) == [true; KEYS]);
            let opposite = flags(*a).map(|hidden| !hidden);
            assert_eq!(a.complement(KEYS as u32), RowSpans::of_hidden(&opposite), "{a:?}");
            for b in &all {
                let pairs = |f: fn(bool, bool) -> bool| {
                    let (a, b) = (flags(*a), flags(*b));
                    RowSpans::of_hidden(&std::array::from_fn::<_, KEYS, _>(|key| f(a[key], b[key])))
                };
                assert_eq!(a.intersection(*b), pairs(|a, b| a || b), "{a:?} and {b:?}");
                assert_eq!(a.union(*b), pairs(|a, b| a && b), "{a:?} or {b:?}");
            }
        }
    }
}
