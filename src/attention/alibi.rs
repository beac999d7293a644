//! ALiBi: attention with linear biases, instead of position embeddings.
//!
//! Each head adds `-slope · |query position - key position|` to its scores, so far keys weigh less
//! (Press, Smith and Lewis 2022, "Train short, test long", section 3). The distance needs no
//! training and no longest length.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::mask::Grid;

/// One slope for each query head.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    slopes: Arc<[f64]>,
}

impl Alibi {
    /// The slopes of the paper: for a power of two `n` the geometric sequence from `2^(-8/n)` down
    /// to `2^-8`, both included. For other numbers of heads the paper's code takes the sequence of
    /// the next lower power of two, and then every second slope of the next higher one.
    pub fn new(heads: usize) -> Self {
        let geometric = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2());
        let below = if heads == 0 { 0 } else { 1 << heads.ilog2() };
        let slopes = geometric(below).chain(geometric(2 * below).step_by(2));
        Self { slopes: slopes.take(heads).collect() }
    }

    /// Slopes of one's own, one for each query head. A slope of 0 turns the bias off for its head.
    pub fn with_slopes(slopes: impl Into<Arc<[f64]>>) -> Self {
        Self { slopes: slopes.into() }
    }

    /// The slopes, one for each query head.
    pub fn slopes(&self) -> &[f64] {
        &self.slopes
    }

    /// The same, shared.
    pub(super) fn shared_slopes(&self) -> Arc<[f64]> {
        self.slopes.clone()
    }

    /// The bias of every cell of `grid`: `[1, heads, queries, keys]`.
    pub(super) fn bias(&self, grid: &Grid, device: &Device, dtype: DType) -> Tensor<4> {
        // Positions relative to the first query: exact in f32 for 2^24 tokens either way.
        let origin = grid.query_position(0);
        let from_origin = |position: i64| (position - origin) as f64;
        let queries = (0..grid.queries()).map(|i| from_origin(grid.query_position(i))).collect();
        let keys = (0..grid.keys()).map(|j| from_origin(grid.key_position(j))).collect();
        let along = |values: Vec<f64>, shape: [usize; 4]| {
            Tensor::<4>::from_data(TensorData::new(values, shape), (device, dtype))
        };
        let queries = along(queries, [1, 1, grid.queries(), 1]);
        let keys = along(keys, [1, 1, 1, grid.keys()]);
        let slopes = along(self.slopes.to_vec(), [1, self.slopes.len(), 1, 1]);
        (queries - keys).abs() * slopes.neg() // [1, heads, queries, keys]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        let halves: Vec<_> = (1..=8).map(|i| 0.5f64.powi(i)).collect();
        assert_eq!(Alibi::new(8).slopes(), halves);
        assert!(Alibi::new(0).slopes().is_empty());
        assert_eq!(Alibi::new(1).slopes(), [2f64.powi(-8)]);
        // 12 heads: those of 8, then the odd ones of 16.
        let twelve = Alibi::new(12);
        assert_eq!(twelve.slopes()[..8], halves);
        let odd: Vec<_> = [1, 3, 5, 7].iter().map(|&i| (-0.5 * i as f64).exp2()).collect();
        assert_eq!(twelve.slopes()[8..], odd);
    }
}
