//! Dense masks: bool tensors, on the device that they are used on.
//!
//! A dense mask is true where hidden, as Burn's own masks are; every name says which of the two it
//! gives. Axes that nothing depends on stay 1: padding is `[batch, 1, 1, keys]`, look-ahead
//! `[1, 1, queries, keys]`.
//!
//! Little is uploaded: spans go up as two numbers for each row and are compared with a range of key
//! indices over there. Tensors are always made from host data on their device, since a bool tensor
//! can't be moved between some of Burn's backends.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::{Grid, LoweredMask, Mask, RowSpans, Span};
use crate::Result;

impl Mask {
    /// The dense mask on a grid, **true = hidden**, `[batch or 1, heads or 1, queries or 1, keys]`.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn hidden_tensor(&self, grid: &Grid, device: &Device) -> Result<Tensor<4, Bool>> {
        Ok(self.lower(grid)?.hidden_tensor(device))
    }

    /// The dense mask on a grid turned over, **true = visible**. Shapes as in
    /// [`Mask::hidden_tensor`].
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn visible_tensor(&self, grid: &Grid, device: &Device) -> Result<Tensor<4, Bool>> {
        Ok(self.lower(grid)?.visible_tensor(device))
    }
}

impl LoweredMask {
    /// The dense mask, **true = hidden**, `[batch or 1, heads or 1, queries or 1, keys or 1]`; none
    /// if nothing is hidden.
    ///
    /// The tensor built last is remembered: a stack of layers builds it once.
    pub fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        // With autodiff or without is the same to a bool tensor, and to `==`.
        (!self.is_all_visible())
            .then(|| self.memo.get_or_build(device.clone(), || self.build(device)))
    }

    /// [`LoweredMask::hidden`] with flags for every key, nothing hidden included:
    /// `[batch or 1, heads or 1, queries or 1, keys]`.
    pub fn hidden_tensor(&self, device: &Device) -> Tensor<4, Bool> {
        let keys = self.grid.keys();
        match self.hidden(device) {
            None => flags(vec![false; keys], [1, 1, 1, keys], device),
            Some(hidden) => {
                let [batch, heads, queries, _] = hidden.dims();
                hidden.expand([batch, heads, queries, keys])
            }
        }
    }

    /// The dense mask turned over, **true = visible**. Shapes as in
    /// [`LoweredMask::hidden_tensor`].
    pub fn visible_tensor(&self, device: &Device) -> Tensor<4, Bool> {
        self.hidden_tensor(device).bool_not()
    }

    fn build(&self, device: &Device) -> Tensor<4, Bool> {
        let spans = self.spans().map(|spans| {
            let firsts: Vec<Span> = spans.iter().map(RowSpans::first).collect();
            let seconds: Vec<Span> = spans.iter().map(RowSpans::second).collect();
            let outside = self.outside(&firsts, device);
            match seconds.iter().all(Span::is_empty) {
                true => outside,
                false => outside.bool_and(self.outside(&seconds, device)),
            }
        });
        let keys = self.hidden_keys().map(|hidden| {
            let keys = self.grid.keys();
            flags(hidden.to_vec(), [hidden.len() / keys, 1, 1, keys], device)
        });
        let cells =
            self.hidden_cells().map(|cells| flags(cells.hidden.to_vec(), cells.shape, device));
        [spans, keys, cells]
            .into_iter()
            .flatten()
            .reduce(Tensor::bool_or)
            .expect("a mask that hides something has a part")
    }

    /// The keys outside the spans, `[batch or 1, 1, queries or 1, keys]`.
    fn outside(&self, spans: &[Span], device: &Device) -> Tensor<4, Bool> {
        let (queries, keys) = (self.grid.queries(), self.grid.keys());
        let batch = spans.len() / queries;
        let rows = spans.chunks_exact(queries);
        // The same for every query: padding alone.
        let same = rows.clone().all(|row| row.iter().all(|span| *span == row[0]));
        let spans: Vec<Span> = if same { rows.map(|row| row[0]).collect() } else { spans.to_vec() };
        let shape = [batch, 1, if same { 1 } else { queries }, 1];

        let index = Tensor::<1, Int>::arange(0..keys as i64, device).reshape([1, 1, 1, keys]);
        let edge = |edge: fn(&Span) -> u32| {
            let edges: Vec<i32> = spans.iter().map(|span| edge(span) as i32).collect();
            Tensor::<4, Int>::from_ints(TensorData::new(edges, shape), device)
        };
        // Mostly all spans start at the first key or end at the last: one comparison less.
        let before = spans
            .iter()
            .any(|span| span.start > 0)
            .then(|| index.clone().lower(edge(|span| span.start)));
        let behind = spans
            .iter()
            .any(|span| (span.end as usize) < keys)
            .then(|| index.greater_equal(edge(|span| span.end)));
        match (before, behind) {
            (Some(before), Some(behind)) => before.bool_or(behind),
            (one, other) => one.or(other).expect("spans that hide something have such an edge"),
        }
    }
}

fn flags(flags: Vec<bool>, shape: [usize; 4], device: &Device) -> Tensor<4, Bool> {
    Tensor::from_data(TensorData::new(flags, shape), device)
}
