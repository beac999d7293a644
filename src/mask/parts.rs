//! The algebra that lowering works in: a mask as the AND of row spans, hidden keys and hidden
//! cells, and what `&`, `|` and `!` make of such parts.
//!
//! - `&`: spans intersect, flags are OR-ed; each part stays what it is.
//! - `|` and `!`: stay spans, or hidden keys, where the result can be said so for every row;
//!   else they become cells.

use super::array::Array;
use super::{Grid, HiddenCells, LoweredMask, RowSpans, Span};
use crate::Result;
use crate::kernels::Visibility;

/// The AND of what is there. Spans are `[batch, 1, queries, 1]`, hidden keys `[batch, 1, 1, keys]`
/// with the axis of the keys always full.
#[derive(Clone, Default)]
pub(super) struct Parts {
    pub(super) spans: Option<Array<Span>>,
    pub(super) hidden_keys: Option<Array<bool>>,
    pub(super) hidden_cells: Option<Array<bool>>,
}

impl Parts {
    /// The parts of a mask that was lowered before.
    pub(super) fn of(mask: &LoweredMask) -> Self {
        let (queries, keys) = (mask.grid.queries(), mask.grid.keys());
        let visibility = &mask.visibility;
        let cells = |cells: &HiddenCells| Array { shape: cells.shape, data: cells.hidden.clone() };
        Self {
            spans: visibility.spans.as_deref().map(|spans| {
                let one = |spans: &RowSpans| {
                    debug_assert!(spans.second().is_empty());
                    spans.first()
                };
                let shape = [spans.len() / queries, 1, queries, 1];
                Array::new(shape, spans.iter().map(one).collect())
            }),
            hidden_keys: visibility.hidden_keys.clone().map(|data| {
                let batch = data.len() / keys;
                Array { shape: [batch, 1, 1, keys], data }
            }),
            hidden_cells: visibility.hidden_cells.as_ref().map(cells),
        }
    }

    pub(super) fn spans(spans: Array<Span>) -> Self {
        Self { spans: Some(spans), ..Self::default() }
    }

    /// Flags `[batch, heads, queries, keys]`: hidden keys if they differ by key and batch only, spans
    /// if every row has but one stretch of visible keys, as a look-ahead given as a tensor has.
    pub(super) fn flags(hidden: Array<bool>, grid: &Grid) -> Self {
        let [batch, heads, queries, _] = hidden.shape;
        if heads == 1 && queries == 1 {
            let hidden_keys = Some(hidden.expand([batch, 1, 1, grid.keys()]));
            Self { hidden_keys, ..Self::default() }
        } else if heads == 1
            && let Some(spans) = stretches(&hidden, grid)
        {
            Self::spans(spans)
        } else {
            Self { hidden_cells: Some(hidden), ..Self::default() }
        }
    }

    /// Visible where both are.
    pub(super) fn and(self, other: Self) -> Result<Self> {
        Ok(Self {
            spans: both(self.spans, other.spans, intersection)?,
            hidden_keys: both(self.hidden_keys, other.hidden_keys, |a, b| a || b)?,
            hidden_cells: both(self.hidden_cells, other.hidden_cells, |a, b| a || b)?,
        })
    }

    /// Visible where either is.
    pub(super) fn or(self, other: Self, grid: &Grid) -> Result<Self> {
        let all_hidden = |parts: &Self| {
            parts.spans.as_ref().is_some_and(|spans| spans.data.iter().all(|span| span.is_empty()))
        };
        if self.is_all_visible() || all_hidden(&other) {
            return Ok(self);
        }
        if other.is_all_visible() || all_hidden(&self) {
            return Ok(other);
        }
        if let (Some(a), Some(b)) = (self.as_spans(), other.as_spans())
            && let Some(spans) = union(a, b)?
        {
            return Ok(Self::spans(spans));
        }
        let a = self.as_hidden_keys(grid).map_or_else(|| self.to_cells(grid), Ok)?;
        let b = other.as_hidden_keys(grid).map_or_else(|| other.to_cells(grid), Ok)?;
        Ok(Self::flags(a.zip(&b, |a, b| a && b)?, grid))
    }

    /// Visible where this is hidden.
    pub(super) fn not(self, grid: &Grid) -> Result<Self> {
        if self.is_all_visible() {
            return Ok(Self::spans(Array::new([1; 4], vec![Span::default()])));
        }
        if let Some(spans) = self.as_spans()
            && let Some(spans) = complement(spans, grid)
        {
            return Ok(Self::spans(spans));
        }
        let hidden = self.as_hidden_keys(grid).map_or_else(|| self.to_cells(grid), Ok)?;
        Ok(Self::flags(hidden.map(|hidden| !hidden), grid))
    }

    fn is_all_visible(&self) -> bool {
        self.spans.is_none() && self.hidden_keys.is_none() && self.hidden_cells.is_none()
    }

    /// The spans, if they say it all.
    fn as_spans(&self) -> Option<&Array<Span>> {
        (self.hidden_keys.is_none() && self.hidden_cells.is_none()).then_some(self.spans.as_ref()?)
    }

    /// The hidden keys that say it all, if there are such: spans that are the same for every query
    /// can be said so too.
    fn as_hidden_keys(&self, grid: &Grid) -> Option<Array<bool>> {
        if self.hidden_cells.is_some() {
            return None;
        }
        let from_spans = match &self.spans {
            Some(spans) if spans.shape[2] != 1 => return None,
            Some(spans) => Some(outside(spans, grid)),
            None => None,
        };
        match (from_spans, &self.hidden_keys) {
            (Some(a), Some(b)) => a.zip(b, |a, b| a || b).ok(),
            (Some(one), None) => Some(one),
            (None, other) => other.clone(),
        }
    }

    /// Everything as cells.
    fn to_cells(&self, grid: &Grid) -> Result<Array<bool>> {
        let mut cells = Array::new([1; 4], vec![false]);
        let spans = self.spans.as_ref().map(|spans| outside(spans, grid));
        for part in [&spans, &self.hidden_keys, &self.hidden_cells].into_iter().flatten() {
            cells = cells.zip(part, |a, b| a || b)?;
        }
        Ok(cells)
    }

    /// The parts as kernels get them: nothing left that hides nothing.
    pub(super) fn finish(self, grid: &Grid) -> Visibility {
        let (queries, keys) = (grid.queries(), grid.keys());
        let full = Span { start: 0, end: keys as u32 };
        let spans = self.spans.filter(|spans| spans.data.iter().any(|span| *span != full));
        let hides = |flags: &Array<bool>| flags.data.contains(&true);
        Visibility {
            spans: spans.map(|spans| {
                let rows = spans.expand([spans.shape[0], 1, queries, 1]).data;
                rows.iter().map(|&span| RowSpans::one(span)).collect()
            }),
            hidden_keys: self.hidden_keys.filter(hides).map(|flags| flags.data),
            hidden_cells: self
                .hidden_cells
                .filter(hides)
                .map(|cells| HiddenCells { shape: cells.shape, hidden: cells.data }),
        }
    }
}

/// What two optional parts say together.
fn both<T: Copy>(
    a: Option<Array<T>>,
    b: Option<Array<T>>,
    f: impl Fn(T, T) -> T,
) -> Result<Option<Array<T>>> {
    match (a, b) {
        (Some(a), Some(b)) => a.zip(&b, f).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

fn intersection(a: Span, b: Span) -> Span {
    Span::of(a.start.max(b.start), a.end.min(b.end))
}

/// The union, if it is one span in every row.
fn union(a: &Array<Span>, b: &Array<Span>) -> Result<Option<Array<Span>>> {
    // A span that is no span marks the rows that have a gap.
    const GAP: Span = Span { start: u32::MAX, end: u32::MAX };
    let union = a.zip(b, |a, b| {
        if a.is_empty() {
            b
        } else if b.is_empty() {
            a
        } else if a.start.max(b.start) <= a.end.min(b.end) {
            Span { start: a.start.min(b.start), end: a.end.max(b.end) }
        } else {
            GAP
        }
    })?;
    Ok((!union.data.contains(&GAP)).then_some(union))
}

/// The complement, if it is one span in every row.
fn complement(spans: &Array<Span>, grid: &Grid) -> Option<Array<Span>> {
    let keys = grid.keys() as u32;
    let touches_an_edge = |span: &Span| span.is_empty() || span.start == 0 || span.end == keys;
    spans.data.iter().all(touches_an_edge).then(|| {
        spans.map(|span| {
            if span.is_empty() {
                Span::of(0, keys)
            } else if span.start == 0 {
                Span::of(span.end, keys)
            } else {
                Span::of(0, span.start)
            }
        })
    })
}

/// The flags `[batch, 1, queries, keys]` of the keys outside the spans `[batch, 1, queries, 1]`.
fn outside(spans: &Array<Span>, grid: &Grid) -> Array<bool> {
    let [batch, heads, queries, _] = spans.shape;
    let keys = grid.keys();
    let mut hidden = vec![true; batch * heads * queries * keys];
    if keys > 0 {
        for (row, span) in hidden.chunks_exact_mut(keys).zip(&*spans.data) {
            row[span.start as usize..span.end as usize].fill(false);
        }
    }
    Array::new([batch, heads, queries, keys], hidden)
}

/// The spans `[batch, 1, queries, 1]` that the flags leave visible, if it is one in every row.
fn stretches(hidden: &Array<bool>, grid: &Grid) -> Option<Array<Span>> {
    let [batch, heads, queries, keys] = hidden.shape;
    let whole =
        |row: &[bool]| if row[0] { Span::default() } else { Span::of(0, grid.keys() as u32) };
    let stretch = |row: &[bool]| {
        let Some(start) = row.iter().position(|&hidden| !hidden) else {
            return Some(Span::default());
        };
        let length = row[start..].iter().position(|&hidden| hidden).unwrap_or(row.len() - start);
        let end = start + length;
        row[end..].iter().all(|&hidden| hidden).then(|| Span::of(start as u32, end as u32))
    };
    let rows = hidden.data.chunks_exact(keys);
    let spans: Option<Vec<Span>> = if keys == 1 {
        rows.map(|row| Some(whole(row))).collect()
    } else {
        rows.map(stretch).collect()
    };
    Some(Array::new([batch, heads, queries, 1], spans?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(start: u32, end: u32) -> Array<Span> {
        Array::new([1; 4], vec![Span::of(start, end)])
    }

    /// Else a prefix in front of a look-ahead would cost `queries * keys` on its way.
    #[test]
    fn the_union_of_touching_spans_is_a_span() {
        let union = |a, b| union(&a, &b).unwrap().map(|spans| spans.data[0]);
        assert_eq!(union(one(0, 2), one(2, 4)), Some(Span::of(0, 4)));
        assert_eq!(union(one(3, 4), one(0, 3)), Some(Span::of(0, 4)));
        assert_eq!(union(one(1, 4), one(2, 3)), Some(Span::of(1, 4)));
        assert_eq!(union(one(0, 0), one(2, 3)), Some(Span::of(2, 3)));
        assert_eq!(union(one(0, 2), one(3, 4)), None);
    }
}
