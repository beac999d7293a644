//! The rotation of pairs of channels, for rotary positions.
//!
//! ```text
//! (a, b)  becomes  (c a - s b, c b + s a)
//! ```
//!
//! with cosines and sines that the caller has computed for each token. The gradient is turned back:
//! the same with `-s`.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::sync::Arc;

use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

use super::arithmetic::{BLOCK, vectorized};
use super::host::{Flat, Host};
use super::memory::in_blocks;
use crate::kernels::autodiff::{Operation, record};

/// The angles of each token, and where its pairs lie.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// The batch, or 1 if all its rows are turned alike.
    pub(crate) rows: usize,
    /// Pairs in each head; channels behind them stay.
    pub(crate) pairs: usize,
    pub(crate) head_dim: usize,
    /// Whether neighbours pair up, instead of halves.
    pub(crate) interleaved: bool,
    /// Cosine and sine of each pair, `[rows, tokens, pairs]` row-major.
    pub(crate) turns: Arc<[[f64; 2]]>,
}

/// Turns `x`, `[batch, tokens, heads * head_dim]`, of f32 on a CPU.
pub(crate) fn turn(x: Tensor<3>, turn: Turn) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::turn(x.into_dispatch(), turn))
}

#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff
)]
pub(crate) trait TurnPairs: Backend {
    fn turn(x: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self>;
}

impl<B: Host> TurnPairs for B {
    fn turn(x: FloatTensor<B>, turn: Turn) -> FloatTensor<B> {
        turn.forward::<B>([x]).0
    }
}

impl<B: Host, C: CheckpointStrategy> TurnPairs for Autodiff<B, C> {
    fn turn(x: FloatTensor<Self>, turn: Turn) -> FloatTensor<Self> {
        record::<B, C, _, _>(turn, [x])
    }
}

impl Operation<1> for Turn {
    const CHEAP: bool = true;

    fn forward<B: Host>(&self, [x]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        (self.apply::<B>(x, 1.0), vec![])
    }

    fn backward<B: Host>(
        &self,
        _: [FloatTensor<B>; 1],
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        _: [bool; 1],
    ) -> [Option<FloatTensor<B>>; 1] {
        [Some(self.apply::<B>(d_output, -1.0))]
    }
}

impl Turn {
    /// Turns forward (1) or back (-1).
    fn apply<B: Host>(&self, x: FloatTensor<B>, direction: f64) -> FloatTensor<B> {
        let [batch, _, width] = x.shape().dims();
        assert!([1, batch].contains(&self.rows), "{} rows of positions for {batch}", self.rows);
        let x = Flat::<B>::new(x);
        if x.data().is_empty() {
            return x.like(vec![]);
        }
        let cos: Vec<f32> = self.turns.iter().map(|turn| turn[0] as f32).collect();
        let sin: Vec<f32> = self.turns.iter().map(|turn| (direction * turn[1]) as f32).collect();
        let tokens_in_a_block = (BLOCK / width).max(1);
        let fill = |start: usize, block: &mut [f32]| {
            block.copy_from_slice(&x.data()[start..start + block.len()]);
            vectorized(
                #[inline(always)]
                || {
                    for (token, x) in block.chunks_exact_mut(width).enumerate() {
                        // With one row for the whole batch its angles begin again.
                        let at = (start / width + token) * self.pairs % cos.len();
                        let (cos, sin) = (&cos[at..][..self.pairs], &sin[at..][..self.pairs]);
                        for head in x.chunks_exact_mut(self.head_dim) {
                            self.turn_head(head, cos, sin);
                        }
                    }
                },
            );
        };
        x.like(in_blocks(x.data().len(), tokens_in_a_block * width, fill).0)
    }

    #[inline(always)]
    fn turn_head(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let turned = |a: f32, b: f32, c: f32, s: f32| (c * a - s * b, c * b + s * a);
        let angles = cos.iter().zip(sin);
        if self.interleaved {
            for (pair, (c, s)) in head.chunks_exact_mut(2).zip(angles) {
                (pair[0], pair[1]) = turned(pair[0], pair[1], *c, *s);
            }
        } else {
            let (first, rest) = head.split_at_mut(self.pairs);
            for ((a, b), (c, s)) in first.iter_mut().zip(rest).zip(angles) {
                (*a, *b) = turned(*a, *b, *c, *s);
            }
        }
    }
}
