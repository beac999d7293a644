//! The algebra that lowering works in: a mask as the AND of spans, hidden keys and hidden cells, and
//! what `&`, `|` and `!` make of such parts.
//!
//! - `&`: spans intersect, flags are OR-ed; each part stays what it is. Only where a row of spans
//!   would fall into more than two, one side becomes cells.
//! - `|` and `!`: stay spans, or hidden keys, where the result can be said so for every row;
//!   else they become cells.

use super::array::BroadcastArray;
use super::{Grid, HiddenCells, LoweredMask, RowSpans, Span};
use crate::Result;
use crate::kernels::Visibility;

/// The AND of what is there. RowSpans are `[batch, 1, queries, 1]`, hidden keys `[batch, 1, 1, keys]`
/// with the axis of the keys always full.
#[derive(Clone, Default)]
pub(super) struct MaskParts {
    pub(super) spans: Option<BroadcastArray<RowSpans>>,
    pub(super) hidden_keys: Option<BroadcastArray<bool>>,
    pub(super) hidden_cells: Option<BroadcastArray<bool>>,
}

impl MaskParts {
    /// The parts of a mask that was lowered before.
    pub(super) fn of(mask: &LoweredMask) -> Self {
        let (queries, keys) = (mask.grid.queries(), mask.grid.keys());
        let Visibility { spans, hidden_keys, hidden_cells } = mask.visibility.clone();
        Self {
            spans: spans.map(|data| {
                let shape = [data.len() / queries, 1, queries, 1];
                BroadcastArray { shape, data }
            }),
            hidden_keys: hidden_keys.map(|data| {
                let shape = [data.len() / keys, 1, 1, keys];
                BroadcastArray { shape, data }
            }),
            hidden_cells: hidden_cells
                .map(|HiddenCells { shape, hidden }| BroadcastArray { shape, data: hidden }),
        }
    }

    pub(super) fn spans(spans: BroadcastArray<RowSpans>) -> Self {
        Self { spans: Some(spans), ..Self::default() }
    }

    /// Flags `[batch, heads, queries, keys]`: hidden keys if they differ by key and batch only, spans
    /// if every row has at most two stretches of visible keys, as a look-ahead given as a tensor has.
    pub(super) fn flags(hidden: BroadcastArray<bool>, grid: &Grid) -> Self {
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
    pub(super) fn and(self, other: Self, grid: &Grid) -> Result<Self> {
        let hidden_keys = both(self.hidden_keys, other.hidden_keys)?;
        let hidden_cells = both(self.hidden_cells, other.hidden_cells)?;
        let (Some(a), Some(b)) = (&self.spans, &other.spans) else {
            return Ok(Self { spans: self.spans.or(other.spans), hidden_keys, hidden_cells });
        };
        if let Some(spans) = a.zip(b, RowSpans::intersection)?.all() {
            return Ok(Self { spans: Some(spans), hidden_keys, hidden_cells });
        }
        let hidden_cells = both(hidden_cells, Some(outside(b, grid)))?;
        Ok(Self { spans: self.spans, hidden_keys, hidden_cells })
    }

    /// Visible where either is.
    pub(super) fn or(self, other: Self, grid: &Grid) -> Result<Self> {
        let all_hidden = |parts: &Self| {
            parts.spans.as_ref().is_some_and(|spans| spans.data.iter().all(RowSpans::is_empty))
        };
        if self.is_all_visible() || all_hidden(&other) {
            return Ok(self);
        }
        if other.is_all_visible() || all_hidden(&self) {
            return Ok(other);
        }
        if let (Some(a), Some(b)) = (self.as_spans(), other.as_spans())
            && let Some(spans) = a.zip(b, RowSpans::union)?.all()
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
            return Ok(Self::spans(BroadcastArray::new([1; 4], vec![RowSpans::default()])));
        }
        if let Some(spans) = self.as_spans()
            && let Some(spans) = spans.map(|spans| spans.complement(grid.keys() as u32)).all()
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
    fn as_spans(&self) -> Option<&BroadcastArray<RowSpans>> {
        (self.hidden_keys.is_none() && self.hidden_cells.is_none()).then_some(self.spans.as_ref()?)
    }

    /// The hidden keys that say it all, if there are such: spans that are the same for every query
    /// can be said so too.
    fn as_hidden_keys(&self, grid: &Grid) -> Option<BroadcastArray<bool>> {
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
    fn to_cells(&self, grid: &Grid) -> Result<BroadcastArray<bool>> {
        let mut cells = BroadcastArray::new([1; 4], vec![false]);
        let spans = self.spans.as_ref().map(|spans| outside(spans, grid));
        for part in [&spans, &self.hidden_keys, &self.hidden_cells].into_iter().flatten() {
            cells = cells.zip(part, |a, b| a || b)?;
        }
        Ok(cells)
    }

    /// Spans in place of cells, where two in every row say as much.
    fn with_cells_as_spans(self, grid: &Grid) -> Self {
        let Some(cells) = self.hidden_cells.as_ref().filter(|cells| cells.shape[1] == 1) else {
            return self;
        };
        let spans = self.spans.as_ref();
        let [batch, queries] =
            [0, 2].map(|axis| spans.map_or(1, |spans| spans.shape[axis]).max(cells.shape[axis]));
        let mut hidden = vec![false; grid.keys()];
        let rows = (0..batch).flat_map(|b| (0..queries).map(move |q| (b, q))).map(|(b, q)| {
            match cells.row(b, 0, q) {
                [flag] => hidden.fill(*flag),
                row => hidden.copy_from_slice(row),
            }
            let spans = spans.map(|spans| spans.row(b, 0, q)[0]);
            for (key, hidden) in hidden.iter_mut().enumerate() {
                *hidden |= spans.is_some_and(|spans| !spans.contains(key));
            }
            RowSpans::of_hidden(&hidden)
        });
        match rows.collect() {
            Some(rows) => {
                let spans = Some(BroadcastArray::new([batch, 1, queries, 1], rows));
                Self { spans, hidden_cells: None, ..self }
            }
            None => self,
        }
    }

    /// The parts as kernels get them: nothing left that hides nothing.
    pub(super) fn finish(self, grid: &Grid) -> Visibility {
        let parts = self.with_cells_as_spans(grid);
        let full = RowSpans::from(Span::of(0, grid.keys() as u32));
        let spans = parts.spans.filter(|spans| spans.data.iter().any(|spans| *spans != full));
        let hides = |flags: &BroadcastArray<bool>| flags.data.contains(&true);
        Visibility {
            spans: spans.map(|spans| spans.expand([spans.shape[0], 1, grid.queries(), 1]).data),
            hidden_keys: parts.hidden_keys.filter(hides).map(|flags| flags.data),
            hidden_cells: parts
                .hidden_cells
                .filter(hides)
                .map(|cells| HiddenCells { shape: cells.shape, hidden: cells.data }),
        }
    }
}

/// The flags that are true where either's are.
fn both(
    a: Option<BroadcastArray<bool>>,
    b: Option<BroadcastArray<bool>>,
) -> Result<Option<BroadcastArray<bool>>> {
    match (a, b) {
        (Some(a), Some(b)) => a.zip(&b, |a, b| a || b).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}

/// The flags `[batch, 1, queries, keys]` of the keys outside the spans `[batch, 1, queries, 1]`.
fn outside(spans: &BroadcastArray<RowSpans>, grid: &Grid) -> BroadcastArray<bool> {
    let [batch, heads, queries, _] = spans.shape;
    let keys = grid.keys();
    let mut hidden = vec![true; batch * heads * queries * keys];
    if keys > 0 {
        for (row, spans) in hidden.chunks_exact_mut(keys).zip(&*spans.data) {
            for span in [spans.first(), spans.second()] {
                row[span.start as usize..span.end as usize].fill(false);
            }
        }
    }
    BroadcastArray::new([batch, heads, queries, keys], hidden)
}

/// The spans `[batch, 1, queries, 1]` that the flags leave visible, if two will do in every row.
fn stretches(hidden: &BroadcastArray<bool>, grid: &Grid) -> Option<BroadcastArray<RowSpans>> {
    let [batch, heads, queries, keys] = hidden.shape;
    let whole = Span::of(0, grid.keys() as u32);
    let stretches = |row: &[bool]| match row {
        // One flag for all keys.
        [true] => Some(RowSpans::default()),
        [false] => Some(whole.into()),
        row => RowSpans::of_hidden(row),
    };
    let spans: Option<Vec<RowSpans>> = hidden.data.chunks_exact(keys).map(stretches).collect();
    Some(BroadcastArray::new([batch, heads, queries, 1], spans?))
}
