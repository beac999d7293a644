//! Ranges of keys: what one query sees, as one range or as two.

/// The visible keys `start..end` of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First visible key.
    pub start: u32,
    /// One past the last visible key; at most `start` if the span is empty.
    pub end: u32,
}

impl Span {
    /// `start..end`; all empty spans are equal.
    pub(super) fn of(start: u32, end: u32) -> Self {
        if start < end { Self { start, end } } else { Self::default() }
    }

    /// Whether no key lies inside.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether key `index` lies inside.
    pub fn contains(&self, index: usize) -> bool {
        (self.start as usize..self.end as usize).contains(&index)
    }

    fn intersection(self, other: Self) -> Self {
        Self::of(self.start.max(other.start), self.end.min(other.end))
    }
}

/// The visible keys of one query: at most two spans, the second behind the first with a gap between
/// them; the second is empty wherever one will do. So equal sets are equal values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    pub(super) first: Span,
    pub(super) second: Span,
}

impl From<Span> for Spans {
    fn from(first: Span) -> Self {
        Self { first, second: Span::default() }
    }
}

impl Spans {
    /// All keys of any of these; `None` if that takes more than two spans.
    pub(super) fn union_of<const N: usize>(mut spans: [Span; N]) -> Option<Self> {
        spans.sort_unstable_by_key(|span| span.start);
        let Self { mut first, mut second } = Self::default();
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
        Some(Self { first, second })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The keys in both; `None` if that takes more than two spans.
    pub(super) fn intersection(self, other: Self) -> Option<Self> {
        if self.second.is_empty() && other.second.is_empty() {
            return Some(self.first.intersection(other.first).into());
        }
        let [a, b] = [self, other].map(|spans| [spans.first, spans.second]);
        Self::union_of([
            a[0].intersection(b[0]),
            a[0].intersection(b[1]),
            a[1].intersection(b[0]),
            a[1].intersection(b[1]),
        ])
    }

    /// The keys in either; `None` if that takes more than two spans.
    pub(super) fn union(self, other: Self) -> Option<Self> {
        Self::union_of([self.first, self.second, other.first, other.second])
    }

    /// The other ones of so many keys; `None` if that takes more than two spans.
    pub(super) fn complement(self, keys: u32) -> Option<Self> {
        let Self { first, second } = self;
        if first.is_empty() {
            return Some(Span::of(0, keys).into());
        }
        let (between, behind) = match second.is_empty() {
            true => (Span::default(), Span::of(first.end, keys)),
            false => (Span::of(first.end, second.start), Span::of(second.end, keys)),
        };
        Self::union_of([Span::of(0, first.start), between, behind])
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
        let [first, second] = spans;
        Some(Self { first, second })
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

    fn flags(spans: Spans) -> [bool; KEYS] {
        std::array::from_fn(|key| !spans.first.contains(key) && !spans.second.contains(key))
    }

    /// Every set of at most two spans has one form, and the operations are those of sets, as long as
    /// their result is such a set.
    #[test]
    fn spans_are_sets() {
        let all: Vec<Spans> = sets().filter_map(|hidden| Spans::of_hidden(&hidden)).collect();
        assert_eq!(all.len(), 99, "1 empty, 28 of one span, 70 of two");
        for a in &all {
            assert_eq!(Spans::of_hidden(&flags(*a)), Some(*a));
            assert_eq!(a.is_empty(), flags(*a) == [true; KEYS]);
            let opposite = flags(*a).map(|hidden| !hidden);
            assert_eq!(a.complement(KEYS as u32), Spans::of_hidden(&opposite), "{a:?}");
            for b in &all {
                let pairs = |f: fn(bool, bool) -> bool| {
                    let (a, b) = (flags(*a), flags(*b));
                    Spans::of_hidden(&std::array::from_fn::<_, KEYS, _>(|key| f(a[key], b[key])))
                };
                assert_eq!(a.intersection(*b), pairs(|a, b| a || b), "{a:?} and {b:?}");
                assert_eq!(a.union(*b), pairs(|a, b| a && b), "{a:?} or {b:?}");
            }
        }
    }
}
