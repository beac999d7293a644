//! Which keys a query sees, as a kernel reads it: the AND of three optional parts.
//!
//! - *row spans*: for each batch row and query one or two ranges of keys;
//! - *hidden keys*: the same for every query;
//! - *hidden cells*: a dense rest that broadcasts to `[batch, heads, queries, keys]`.
//!
//! A cell is visible if its key lies in one of its row's ranges, the key is not hidden, and the cell
//! is not hidden. A part that is missing hides nothing. Plain data: no mask, no device, no tensor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// A host array of flags that broadcasts to `[batch, heads, queries, keys]`: axes are full or 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "SavedCells", into = "SavedCells")]
pub struct HiddenCells {
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`.
    pub shape: [usize; 4],
    /// Row-major, true = hidden.
    pub hidden: Arc<[bool]>,
}

impl HiddenCells {
    /// Whether the cell is hidden.
    pub fn is_hidden(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let index = [batch, head, query, key].into_iter().zip(self.shape);
        let offset = index
            .fold(0, |offset, (index, size)| offset * size + if size == 1 { 0 } else { index });
        self.hidden[offset]
    }
}

/// [`HiddenCells`] in a file, whose shape and flags may not fit.
#[derive(Serialize, Deserialize)]
struct SavedCells {
    shape: [usize; 4],
    hidden: Vec<bool>,
}

impl TryFrom<SavedCells> for HiddenCells {
    type Error = String;

    fn try_from(SavedCells { shape, hidden }: SavedCells) -> Result<Self, String> {
        let cells = shape.iter().try_fold(1_usize, |cells, &size| cells.checked_mul(size));
        if cells != Some(hidden.len()) {
            return Err(format!(
                "hidden: expected the flags of a shape {shape:?}, got {} flags",
                hidden.len()
            ));
        }
        Ok(Self { shape, hidden: hidden.into() })
    }
}

impl From<HiddenCells> for SavedCells {
    fn from(HiddenCells { shape, hidden }: HiddenCells) -> Self {
        Self { shape, hidden: hidden.to_vec() }
    }
}

/// What hides keys from queries. See the module for its three parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Visibility {
    /// `[batch or 1, queries]`
    pub(crate) spans: Option<Arc<[RowSpans]>>,
    /// `[batch or 1, keys]`, true = hidden
    pub(crate) hidden_keys: Option<Arc<[bool]>>,
    pub(crate) hidden_cells: Option<HiddenCells>,
}

impl Visibility {
    /// Whether nothing is hidden.
    pub(crate) fn is_all_visible(&self) -> bool {
        self.spans.is_none() && self.hidden_keys.is_none() && self.hidden_cells.is_none()
    }

    /// The ranges of a query among `queries`, if there are spans.
    #[inline]
    pub(crate) fn row(&self, queries: usize, batch: usize, query: usize) -> Option<RowSpans> {
        let spans = self.spans.as_deref()?;
        let row = if spans.len() == queries { 0 } else { batch };
        Some(spans[row * queries + query])
    }

    /// The flags of a batch row's `keys` keys, if some key is hidden from every query.
    #[inline]
    pub(crate) fn keys_of(&self, keys: usize, batch: usize) -> Option<&[bool]> {
        self.hidden_keys.as_deref().map(|hidden| {
            let row = if hidden.len() == keys { 0 } else { batch };
            &hidden[row * keys..][..keys]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_are_in_order_and_apart() {
        let two = |a: [u32; 2], b: [u32; 2]| {
            let rows = RowSpans::two(Span::of(a[0], a[1]), Span::of(b[0], b[1]));
            [rows.first(), rows.second()].map(|span| [span.start, span.end])
        };
        assert_eq!(two([5, 9], [0, 2]), [[0, 2], [5, 9]]);
        assert_eq!(two([0, 2], [2, 4]), [[0, 4], [0, 0]]);
        assert_eq!(two([1, 8], [2, 4]), [[1, 8], [0, 0]]);
        assert_eq!(two([0, 0], [2, 4]), [[2, 4], [0, 0]]);
        assert_eq!(two([2, 4], [7, 7]), [[2, 4], [0, 0]]);
        assert_eq!(two([3, 3], [7, 7]), [[0, 0], [0, 0]]);
        let rows = RowSpans::two(Span::of(5, 9), Span::of(0, 2));
        assert!([1, 5, 8].iter().all(|&key| rows.contains(key)));
        assert!([2, 4, 9].iter().all(|&key| !rows.contains(key)) && !rows.is_empty());
    }
}
