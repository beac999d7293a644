//! The rotation of pairs of channels, for rotary positions.
//!
//! ```text
//! (a, b)  becomes  (c a - s b, c b + s a)
//! ```
//!
//! with cosines and sines that the caller has computed for each token. The gradient is rotated back:
//! the same with `-s`.

use std::sync::Arc;

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

use super::arithmetic::{BLOCK, vectorized};
use super::host::{Flat, Host};
use super::memory::in_blocks;
use super::operation::HostOperation;
use crate::kernels::autodiff::{Operation, OperationInputs};

/// The angles of each token, and where its pairs lie.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// The batch, or 1 if all its rows are rotated alike.
    pub(crate) rows: usize,
    /// Pairs in each head; channels behind them stay.
    pub(crate) pairs: usize,
    pub(crate) head_dim: usize,
    /// The first heads of a token, which are turned; all if not given.
    pub(crate) heads: Option<usize>,
    /// Whether neighbours pair up, instead of halves.
    pub(crate) interleaved: bool,
    /// Cosines and sines of each pair, `[rows, tokens, pairs]` row-major each.
    pub(crate) table: [Arc<[f32]>; 2],
}

/// Rotates `x`, `[batch, tokens, heads * head_dim]`, of f32 on a CPU.
pub(crate) fn rotate(x: Tensor<3>, rotation: Rotation) -> Tensor<3> {
    HostOperation::Rotate(rotation).run(x, None::<Tensor<1>>, None::<Tensor<1>>)
}

impl<B: Host> Operation<B, 3> for Rotation {
    const CHEAP: bool = true;

    fn forward(&self, [x, ..]: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        (self.apply::<B>(x.expect("x"), 1.0), vec![])
    }

    fn backward(
        &self,
        _: OperationInputs<B, 3>,
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        _: [bool; 3],
    ) -> OperationInputs<B, 3> {
        [Some(self.apply::<B>(d_output, -1.0)), None, None]
    }
}

impl Rotation {
    /// Rotates forward (1) or back (-1).
    fn apply<B: Host>(&self, x: FloatTensor<B>, direction: f32) -> FloatTensor<B> {
        let [batch, _, width] = x.shape().dims();
        assert!([1, batch].contains(&self.rows), "{} rows of positions for {batch}", self.rows);
        let x = Flat::<B>::new(x);
        if x.data().is_empty() {
            return x.like(vec![]);
        }
        let [cos, sin] = &self.table;
        let turned = self.heads.map_or(width, |heads| heads * self.head_dim);
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
                        for head in x[..turned].chunks_exact_mut(self.head_dim) {
                            self.rotate_head(head, cos, sin, direction);
                        }
                    }
                },
            );
        };
        x.like(in_blocks(x.data().len(), tokens_in_a_block * width, fill).0)
    }

    #[inline(always)]
    fn rotate_head(&self, head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
        let rotated = |a: f32, b: f32, c: f32, s: f32| {
            let s = direction * s;
            (c * a - s * b, c * b + s * a)
        };
        let angles = cos.iter().zip(sin);
        if self.interleaved {
            for (pair, (c, s)) in head.chunks_exact_mut(2).zip(angles) {
                (pair[0], pair[1]) = rotated(pair[0], pair[1], *c, *s);
            }
        } else {
            let (first, rest) = head.split_at_mut(self.pairs);
            for ((a, b), (c, s)) in first.iter_mut().zip(rest).zip(angles) {
                (*a, *b) = rotated(*a, *b, *c, *s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::tests::{cpus, numbers, scattered};

    #[test]
    fn heads_behind_the_first_ones_stay() {
        for device in cpus() {
            let angles = |side: usize| (0..3 * 4).map(move |i| ((i + 5 * side) as f32).cos());
            let rotation = |heads| Rotation {
                rows: 1,
                pairs: 4,
                head_dim: 11,
                heads,
                interleaved: false,
                table: [0, 1].map(|side| angles(side).collect()),
            };
            let x = scattered([2, 3, 5 * 11], &device);
            let [first, rest] = [x.clone().narrow(2, 0, 22), x.clone().narrow(2, 22, 33)];
            let expected = Tensor::cat(vec![rotate(first, rotation(None)), rest], 2);
            assert_eq!(numbers(rotate(x, rotation(Some(2)))), numbers(expected));
        }
    }
}
