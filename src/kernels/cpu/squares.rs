//! The sum of the squares of a tensor of f32, in one pass over memory.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::arithmetic::{BLOCK, long_sum, vectorized};
use super::host::{Flat, Host, HostFloat};

/// `Σ x²` of a tensor of f32 on a CPU, not tracked by autodiff.
pub(crate) fn sum_of_squares<const D: usize>(x: Tensor<D>) -> f64 {
    let sum: Tensor<1> = Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()));
    sum.into_scalar()
}

#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait SquaresOperation: Backend {
    /// The sum, `[1]` in f64.
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl<B: Host> SquaresOperation for B {
    fn sum_of_squares(x: FloatTensor<B>) -> FloatTensor<B> {
        let x = Flat::<B>::new(x);
        let of_block = |block: &[f32]| {
            let mut sum = 0.0;
            vectorized(
                #[inline(always)]
                || sum = long_sum(block, |x| x * x),
            );
            sum
        };
        let sums: Vec<f64> = x.data().par_chunks(BLOCK).map(of_block).collect();
        // In the order of the blocks, whoever summed them.
        <B as HostFloat<f64>>::tensor(vec![sums.iter().sum()], [1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::tests::{cpus, numbers, scattered};

    #[test]
    fn squares_are_those_of_f64_with_any_number_of_threads() {
        for device in cpus() {
            for shape in [[1, 1], [3, 7], [131, 1031]] {
                let x = scattered(shape, &device);
                let expected: f64 = numbers(x.clone()).iter().map(|x| x * x).sum();
                let with = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| sum_of_squares(x.clone()))
                };
                let got = with(1);
                assert_eq!(got.to_bits(), with(2).to_bits());
                // Roundings of 32 numbers in a lane.
                assert!((got - expected).abs() <= 2e-6 * expected, "{shape:?}: {got}, {expected}");
                // As it lies behind a transposition.
                let turned = sum_of_squares(x.transpose());
                assert!((turned - expected).abs() <= 2e-6 * expected, "{turned}, {expected}");
            }
        }
    }
}
