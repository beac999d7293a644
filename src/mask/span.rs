//! Ranges of keys.

/// A range of keys, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First visible key.
    pub start: u32,
    /// One past the last visible key; at most `start` if the range is empty.
    pub end: u32,
}

impl Span {
    /// `start..end`; all empty spans are equal.
    pub(crate) fn of(start: u32, end: u32) -> Self {
        if start < end { Self { start, end } } else { Self::default() }
    }

    /// Whether the range holds no key.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether key `index` lies inside.
    pub fn contains(&self, index: usize) -> bool {
        (self.start as usize..self.end as usize).contains(&index)
    }
}

/// The keys that one query sees: none, one range, or two with a gap between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowSpans {
    first: Span,
    second: Span,
}

impl RowSpans {
    /// One range.
    pub fn one(span: Span) -> Self {
        Self { first: Span::of(span.start, span.end), second: Span::default() }
    }

    /// The union of two ranges, in any order: one range where they touch or overlap.
    pub fn two(a: Span, b: Span) -> Self {
        let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
        if first.is_empty() || second.is_empty() {
            return Self::one(if first.is_empty() { second } else { first });
        }
        if second.start <= first.end {
            return Self::one(Span { start: first.start, end: first.end.max(second.end) });
        }
        Self { first, second }
    }

    /// The first range; empty if the query sees nothing.
    pub fn first(&self) -> Span {
        self.first
    }

    /// The second range, which begins behind the first one; mostly empty.
    pub fn second(&self) -> Span {
        self.second
    }

    /// Whether the query sees nothing.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Whether key `index` lies inside.
    pub fn contains(&self, index: usize) -> bool {
        self.first.contains(index) || self.second.contains(index)
    }
}

impl From<Span> for RowSpans {
    fn from(span: Span) -> Self {
        Self::one(span)
    }
}
