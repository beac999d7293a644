//! Layer norm and RMS norm over the last axis, one pass forward and one backward.
//!
//! ```text
//! n = (x - mean(x)) / √(var(x) + ε)      layer norm (Ba et al. 2016)
//! n = x / √(mean(x²) + ε)                RMS norm (Zhang and Sennrich 2019)
//! y = n γ + β
//! ```
//!
//! With `g = dy γ`, one over the root called `r`, and the means taken over the last axis:
//!
//! ```text
//! dx = r (g - mean(g) - n mean(g n))     RMS norm: without mean(g)
//! dγ = Σ dy n,  dβ = Σ dy                over all rows
//! ```

use std::mem::MaybeUninit;

use burn::backend::tensor::FloatTensor;
use burn::tensor::{Tensor, module};

use super::arithmetic::{BLOCK, fill, sum_of, update, vectorized};
use super::host::{Flat, Host};
use super::memory::{in_blocks, written_in_blocks};
use super::operation::HostOperation;
use super::runs_on;
use crate::kernels::autodiff::{Operation, OperationInputs};

/// Layer norm of the last axis.
pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    if !runs_on(&x) {
        return module::layer_norm(x, gamma, beta, epsilon);
    }
    let norm = NormOperation { centered: true, epsilon };
    HostOperation::Normalize(norm).run(x, Some(gamma), beta)
}

/// RMS norm of the last axis.
pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    if !runs_on(&x) {
        let mean_square = x.clone().square().mean_dim(D - 1); // [..., 1]
        return x / (mean_square + epsilon).sqrt() * gamma.unsqueeze();
    }
    let norm = NormOperation { centered: false, epsilon };
    HostOperation::Normalize(norm).run(x, Some(gamma), None::<Tensor<1>>)
}

/// Which norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormOperation {
    /// Whether the mean is taken off: layer norm, not RMS norm.
    centered: bool,
    epsilon: f64,
}

/// Of `x`, gamma and perhaps beta.
impl<B: Host> Operation<B, 3> for NormOperation {
    const CHEAP: bool = true;

    fn forward(&self, inputs: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let [Some(x), Some(gamma), beta] = inputs.map(|input| input.map(Flat::<B>::new)) else {
            unreachable!("a norm without x or gamma")
        };
        let beta = beta.as_ref().map(Flat::data);
        (x.like(self.apply(x.data(), gamma.data(), beta)), vec![])
    }

    fn backward(
        &self,
        inputs: OperationInputs<B, 3>,
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        _: [bool; 3],
    ) -> OperationInputs<B, 3> {
        let [Some(x), Some(gamma), beta] = inputs.map(|input| input.map(Flat::<B>::new)) else {
            unreachable!("a norm without x or gamma")
        };
        let d_output = Flat::<B>::new(d_output);
        let (d_x, d_gamma, d_beta) = self.gradients(x.data(), gamma.data(), d_output.data());
        let d_beta = beta.map(|beta| beta.like(d_beta));
        [Some(x.like(d_x)), Some(gamma.like(d_gamma)), d_beta]
    }
}

impl NormOperation {
    /// The mean that is taken off `row`, and one over its root.
    #[inline(always)]
    fn statistics(self, row: &[f32]) -> (f32, f32) {
        let len = row.len() as f32;
        let mean = if self.centered { sum_of([row], |[x]| x) / len } else { 0.0 };
        let squares = sum_of([row], |[x]| (x - mean) * (x - mean));
        (mean, 1.0 / (squares / len + self.epsilon as f32).sqrt())
    }

    fn apply(self, x: &[f32], gamma: &[f32], beta: Option<&[f32]>) -> Vec<f32> {
        let width = gamma.len();
        let block = |start: usize, output: &mut [MaybeUninit<f32>]| {
            vectorized(
                #[inline(always)]
                || {
                    let x = x[start..start + output.len()].chunks_exact(width);
                    for (x, y) in x.zip(output.chunks_exact_mut(width)) {
                        let (mean, root) = self.statistics(x);
                        match beta {
                            None => fill([x, gamma], y, |[x, g]| (x - mean) * root * g),
                            Some(beta) => {
                                fill([x, gamma, beta], y, |[x, g, b]| (x - mean) * root * g + b);
                            }
                        }
                    }
                },
            );
        };
        assert!(x.len().is_multiple_of(width), "rows that do not fit");
        assert!(beta.is_none_or(|beta| beta.len() == width), "a shift that does not fit");
        // SAFETY: blocks are whole rows, of which `fill` writes each element.
        unsafe { written_in_blocks(x.len(), rows_of(width) * width, block).0 }
    }

    fn gradients(self, x: &[f32], gamma: &[f32], d_y: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let width = gamma.len();
        let fill = |start: usize, d_x: &mut [f32]| {
            let [x, d_y] = [x, d_y].map(|data| &data[start..start + d_x.len()]);
            let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
            vectorized(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(width).zip(d_y.chunks_exact(width));
                    for ((x, d_y), d_x) in rows.zip(d_x.chunks_exact_mut(width)) {
                        self.row_gradients(x, gamma, d_y, d_x, &mut d_gamma, &mut d_beta);
                    }
                },
            );
            (d_gamma, d_beta)
        };
        let (d_x, sums) = in_blocks(x.len(), rows_of(width) * width, fill);
        let (mut d_gamma, mut d_beta) = (vec![0.0; width], vec![0.0; width]);
        // In the order of the blocks, whoever computed them.
        for (gamma, beta) in &sums {
            d_gamma.iter_mut().zip(gamma).for_each(|(total, part)| *total += part);
            d_beta.iter_mut().zip(beta).for_each(|(total, part)| *total += part);
        }
        (d_x, d_gamma, d_beta)
    }

    #[inline(always)]
    fn row_gradients(
        self,
        x: &[f32],
        gamma: &[f32],
        d_y: &[f32],
        d_x: &mut [f32],
        d_gamma: &mut [f32],
        d_beta: &mut [f32],
    ) {
        let width = x.len();
        let (mean, root) = self.statistics(x);
        let normed = |x: f32| (x - mean) * root;
        let mean_g = match self.centered {
            true => sum_of([d_y, gamma], |[d, g]| d * g) / width as f32,
            false => 0.0,
        };
        let mean_gn = sum_of([d_y, gamma, x], |[d, g, x]| d * g * normed(x)) / width as f32;
        update([x, gamma, d_y], [d_x, d_gamma, d_beta], |[x, g, d], [_, d_gamma, d_beta]| {
            let n = normed(x);
            [root * (d * g - mean_g - n * mean_gn), d_gamma + d * n, d_beta + d]
        });
    }
}

/// Rows that one task works on.
fn rows_of(width: usize) -> usize {
    (BLOCK / width).max(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::kernels::cpu::tests::{cpus, gradient, numbers, scattered};

    /// By tensor operations.
    fn formula(
        centered: bool,
        x: Tensor<3>,
        gamma: Tensor<1>,
        beta: Option<Tensor<1>>,
    ) -> Tensor<3> {
        let x = if centered { x.clone() - x.mean_dim(2) } else { x };
        let root = (x.clone().square().mean_dim(2) + 1e-5).sqrt();
        let y = x / root * gamma.unsqueeze();
        match beta {
            Some(beta) => y + beta.unsqueeze(),
            None => y,
        }
    }

    fn inputs(device: &Device, [batch, rows, width]: [usize; 3]) -> [Tensor<3>; 4] {
        let x = scattered([batch, rows, width], device) * 3.0 + 0.5;
        let [gamma, beta] = [0.5, 1.5].map(|shift| scattered([1, 1, width], device) + shift);
        [x, gamma, beta, scattered([batch, rows, width], device)]
    }

    /// Output and gradients in f32 against the formula in f64, to 2e-6 of the largest entry or 1; the
    /// gradients of the parameters sum over all rows.
    #[test]
    fn norms_agree_with_the_formula_in_f64() {
        // One row, widths around the vector length, and more rows than one block has.
        let shapes = [[1, 1, 3], [2, 3, 7], [2, 5, 16], [3, 1, 17], [2, 37, 64], [5, 11, 1024]];
        for (device, shape) in cpus().into_iter().flat_map(|d| shapes.map(|s| (d.clone(), s))) {
            for (centered, shifted) in [(true, true), (true, false), (false, false)] {
                let narrow = inputs(&device, shape);
                let wide = narrow.each_ref().map(|x| x.clone().cast(DType::F64));
                let fused = |[x, gamma, beta, weight]: [Tensor<3>; 4]| {
                    let (gamma, beta) = (gamma.flatten(0, 2), beta.flatten(0, 2));
                    let y = match centered {
                        true => layer_norm(x, gamma, shifted.then_some(beta), 1e-5),
                        false => rms_norm(x, gamma, 1e-5),
                    };
                    y * weight
                };
                let expected = |[x, gamma, beta, weight]: [Tensor<3>; 4]| {
                    let (gamma, beta) = (gamma.flatten(0, 2), beta.flatten(0, 2));
                    formula(centered, x, gamma, shifted.then_some(beta)) * weight
                };
                let mut got = gradient(narrow.clone(), fused);
                let mut want = gradient(wide.clone(), expected);
                got.push(numbers(fused(narrow)));
                want.push(numbers(expected(wide)));
                assert_eq!(got.len(), want.len());
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let largest = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
                    for (got, want) in got.iter().zip(want) {
                        let close = (got - want).abs() <= 2e-6 * largest;
                        assert!(close, "{shape:?}, {centered}, {shifted}, {i}: {got}, {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for device in cpus() {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let fused = |[x, gamma, beta, weight]: [Tensor<3>; 4]| {
                    let (gamma, beta) = (gamma.flatten(0, 2), beta.flatten(0, 2));
                    layer_norm(x, gamma, Some(beta), 1e-5) * weight
                };
                pool.install(|| gradient(inputs(&device, [7, 61, 100]), fused))
            };
            assert_eq!(run(1), run(2));
        }
    }
}
