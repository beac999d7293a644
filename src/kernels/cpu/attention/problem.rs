//! What the kernel is asked: sizes, the rule of visibility and what changes a score on its way.
//!
//! Nothing here is of size `queries x keys`, except dense parts that the caller already holds.

use crate::kernels::SeededDropout;
use crate::mask::{Grid, HiddenCells, Span};

/// One attention: sizes, score options, and which cells are visible.
///
/// A cell is visible if it lies in its query's span, its key is not hidden, and the cell itself is
/// not hidden; a part that is `None` hides nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a> {
    pub(crate) batch: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub(crate) heads: usize,
    /// Query head `h` reads key/value head `h / (heads / kv_heads)`.
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) scale: f64,
    /// `cap * tanh(score / cap)` after the scale.
    pub(crate) softcap: Option<f64>,
    /// `[batch or 1, queries]`: the visible keys of each query.
    pub(crate) spans: Option<&'a [Span]>,
    /// `[batch or 1, keys]`, true = hidden from every query.
    pub(crate) hidden_keys: Option<&'a [bool]>,
    /// Broadcasts to `[batch, heads, queries, keys]`.
    pub(crate) hidden_cells: Option<&'a HiddenCells>,
    pub(crate) alibi: Option<Alibi<'a>>,
    /// One logit for each head that takes part in the softmax like a key whose value is zero.
    pub(crate) sinks: Option<&'a [f64]>,
    pub(crate) dropout: Option<SeededDropout>,
}

/// A bias of `-slope * |query position - key position|`, computed cell by cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alibi<'a> {
    /// `[heads]`
    pub(crate) slopes: &'a [f64],
    /// Where queries and keys stand.
    pub(crate) grid: &'a Grid,
}

impl Problem<'_> {
    /// The key/value head that query head `head` reads.
    pub(super) fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// The keys that the span of a query leaves visible; empty ranges are `0..0`.
    #[inline]
    pub(super) fn span(&self, batch: usize, query: usize) -> (usize, usize) {
        let Some(spans) = self.spans else { return (0, self.keys) };
        let row = if spans.len() == self.queries { 0 } else { batch };
        let span = spans[row * self.queries + query];
        let (start, end) = (span.start as usize, (span.end as usize).min(self.keys));
        if start < end { (start, end) } else { (0, 0) }
    }

    /// The keys of a batch row that no query sees.
    #[inline]
    pub(super) fn hidden_keys(&self, batch: usize) -> Option<&[bool]> {
        self.hidden_keys.map(|hidden| {
            let row = if hidden.len() == self.keys { 0 } else { batch };
            &hidden[row * self.keys..][..self.keys]
        })
    }

    /// Whether a query sees a key, asked cell by cell.
    pub(super) fn is_visible(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let (start, end) = self.span(batch, query);
        let cell_hidden = self.hidden_cells.is_some_and(|cells| {
            cells.hidden[offset(&broadcast_strides(&cells.shape), [batch, head, query, key])]
        });
        (start..end).contains(&key)
            && !self.hidden_keys(batch).is_some_and(|hidden| hidden[key])
            && !cell_hidden
    }

    /// Panics where the sizes of the parts do not fit each other.
    pub(super) fn check(&self) {
        let Self { batch, heads, kv_heads, queries, keys, .. } = *self;
        assert!(kv_heads > 0 && heads % kv_heads == 0, "{heads} heads, {kv_heads} key/value heads");
        assert!(keys < u32::MAX as usize && queries < u32::MAX as usize, "too long");
        let fits = |got: usize, row: usize| got == row || got == batch * row;
        if let Some(spans) = self.spans {
            assert!(fits(spans.len(), queries), "spans: {} for {queries} queries", spans.len());
        }
        if let Some(hidden) = self.hidden_keys {
            assert!(fits(hidden.len(), keys), "hidden keys: {} for {keys} keys", hidden.len());
        }
        if let Some(cells) = self.hidden_cells {
            let full = [batch, heads, queries, keys];
            assert!(
                (0..4).all(|axis| cells.shape[axis] == 1 || cells.shape[axis] == full[axis])
                    && cells.hidden.len() == cells.shape.iter().product::<usize>(),
                "hidden cells: {:?} for {full:?}",
                cells.shape
            );
        }
        if let Some(alibi) = &self.alibi {
            assert_eq!(alibi.slopes.len(), heads, "one slope for each head");
            assert_eq!(alibi.grid.queries(), queries, "one position for each query");
            assert_eq!(alibi.grid.keys(), keys, "one position for each key");
        }
        if let Some(sinks) = self.sinks {
            assert_eq!(sinks.len(), heads, "one sink for each head");
        }
    }
}

/// Row-major strides of `shape`, 0 on axes of size 1, so that they broadcast.
pub(super) fn broadcast_strides(shape: &[usize; 4]) -> [usize; 4] {
    let mut strides = [0; 4];
    let mut step = 1;
    for axis in (0..4).rev() {
        strides[axis] = if shape[axis] == 1 { 0 } else { step };
        step *= shape[axis];
    }
    strides
}

#[inline]
pub(super) fn offset(strides: &[usize; 4], index: [usize; 4]) -> usize {
    (0..4).map(|axis| strides[axis] * index[axis]).sum()
}

/// Where row `row` of a head starts in a result, `[batch, rows, heads, width]` row-major: heads
/// stand inside, so that merging them costs no copy.
#[inline]
pub(super) fn result_row(sizes: [usize; 3], [batch, head, row]: [usize; 3]) -> usize {
    let [heads, rows, width] = sizes;
    ((batch * rows + row) * heads + head) * width
}

/// A tensor `[batch, heads, rows, width]` read by strides; an expanded axis has stride 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a, T> {
    pub(super) data: &'a [T],
    pub(super) shape: [usize; 4],
    pub(super) strides: [usize; 4],
}

impl<'a, T> Strided<'a, T> {
    /// # Panics
    ///
    /// If an index within `shape` would read outside of `data`.
    pub(crate) fn new(data: &'a [T], shape: [usize; 4], strides: [usize; 4]) -> Self {
        if shape.iter().all(|&size| size > 0) {
            let last = offset(&strides, shape.map(|size| size - 1));
            assert!(last < data.len(), "{shape:?} by {strides:?} in {} elements", data.len());
        }
        Self { data, shape, strides }
    }

    /// A row-major tensor.
    #[cfg(test)]
    pub(crate) fn contiguous(data: &'a [T], shape: [usize; 4]) -> Self {
        let [_, b, c, d] = shape;
        Self::new(data, shape, [b * c * d, c * d, d, 1])
    }

    #[cfg(test)]
    pub(super) fn get(&self, index: [usize; 4]) -> T
    where
        T: Copy,
    {
        self.data[offset(&self.strides, index)]
    }
}
