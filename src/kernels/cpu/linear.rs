//! The affine map of a projection, `y = x W + b`, with its gradient.
//!
//! ```text
//! dx = dy Wᵀ,   dW = xᵀ dy,   db = Σ dy over all rows
//! ```
//!
//! `x` is taken as one matrix of all rows of all sequences. Products of small matrices, one for each
//! sequence, pack the weights again each time; and a product that starts from the bias needs no
//! second pass to add it.

use std::sync::OnceLock;

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Tensor, assert_shape, module};

use super::arithmetic::{BLOCK, add_to, vectorized};
use super::host::{Flat, Host, read, readable};
use super::matrix::Matrix;
use super::operation::HostOperation;
use super::product::{product, products_and};
use super::{runs_on, threads};
use crate::kernels::autodiff::{Operation, OperationInputs};
use crate::kernels::supports;

/// [`Linear::forward`].
pub(crate) fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    project(x, layer.weight.val(), layer.bias.as_ref().map(Param::val))
}

/// `x weight + bias`; the weight is read as it lies, so a transposed one costs no copy.
///
/// # Shapes
///
/// - x: `[..., d_input]`
/// - weight: `[d_input, d_output]`
/// - output: `[..., d_output]`
pub(crate) fn project<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [d_input, _] = weight.dims();
    assert_shape!(x, [.., d_input]);
    if D == 1 || !runs_on(&x) || !runs_on(&weight) {
        let (dtype, device) = (x.dtype(), x.device());
        // Burn's own products of half precision take five times as long (flex, 0.22.1).
        let half = matches!(dtype, DType::F16 | DType::BF16) && supports(&device, dtype);
        if half && !device.is_autodiff() {
            let wide = |x: Tensor<1>| x.cast(DType::F32);
            return project(x.cast(DType::F32), weight.cast(DType::F32), bias.map(wide))
                .cast(dtype);
        }
        return module::linear(x, weight, bias);
    }
    HostOperation::Project(Projection).run(x, Some(weight), bias)
}

/// The operation of `x`, weight and perhaps bias.
#[derive(Clone, Debug)]
pub(crate) struct Projection;

impl<B: Host> Operation<B, 3> for Projection {
    const CHEAP: bool = false;

    fn forward(&self, inputs: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let [Some(x), Some(weight), bias] = inputs else {
            unreachable!("a projection without x or weight")
        };
        let mut shape = x.shape();
        let x = Flat::<B>::new(x);
        let weight = readable::<B, f32, 2>(weight);
        let bias = bias.map(Flat::<B>::new);
        let weight = Matrix::of(read::<B, f32, 2>(&weight));
        let x = Matrix::rows(x.data(), weight.rows);
        let output = product(x, weight, bias.as_ref().map(Flat::data));
        let last = shape.num_dims() - 1;
        shape[last] = weight.columns;
        (B::tensor(output, shape), vec![])
    }

    fn backward(
        &self,
        inputs: OperationInputs<B, 3>,
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; 3],
    ) -> OperationInputs<B, 3> {
        let [Some(x), Some(weight), _] = inputs else {
            unreachable!("a projection without x or weight")
        };
        let x = Flat::<B>::new(x);
        let weight = readable::<B, f32, 2>(weight);
        let weight = Matrix::of(read::<B, f32, 2>(&weight));
        let d_output = Flat::<B>::new(d_output);
        let d_y = Matrix::rows(d_output.data(), weight.columns);

        let x_rows = Matrix::rows(x.data(), weight.rows);
        // The gradient lies as its weight does: where that is transposed it goes back through the
        // transposition, and nothing is copied there.
        let turned = weight.is_transposed();
        let of_weight = match turned {
            true => (d_y.transposed(), x_rows),
            false => (x_rows.transposed(), d_y),
        };
        let of_x = (d_y, weight.transposed());
        let factors = [wanted[0].then_some(of_x), wanted[1].then_some(of_weight)];
        let sums = ColumnSums::new(if wanted[2] { d_output.data() } else { &[] }, weight.columns);
        let [d_x, d_weight] = products_and(factors, sums.blocks(), |block| sums.sum_up(block));
        let d_bias = wanted[2].then(|| sums.total());
        let d_weight = d_weight.map(|d_weight| match turned {
            true => B::float_transpose(B::tensor(d_weight, [weight.columns, weight.rows])),
            false => B::tensor(d_weight, [weight.rows, weight.columns]),
        });
        let d_bias = d_bias.map(|d_bias| B::tensor(d_bias, [weight.columns]));
        [d_x.map(|d_x| x.like(d_x)), d_weight, d_bias]
    }
}

/// The sum of each column of a row-major matrix.
pub(super) fn column_sums(data: &[f32], columns: usize) -> Vec<f32> {
    let sums = ColumnSums::new(data, columns);
    threads::for_each(sums.blocks(), usize::MAX, |block| sums.sum_up(block));
    sums.total()
}

/// The same, over blocks of rows.
struct ColumnSums<'a> {
    data: &'a [f32],
    columns: usize,
    /// Numbers of a block.
    size: usize,
    of_blocks: Vec<OnceLock<Vec<f32>>>,
}

impl<'a> ColumnSums<'a> {
    fn new(data: &'a [f32], columns: usize) -> Self {
        let size = (BLOCK / columns.max(1)).max(1) * columns.max(1);
        let of_blocks = vec![OnceLock::new(); data.len().div_ceil(size)];
        Self { data, columns, size, of_blocks }
    }

    fn blocks(&self) -> usize {
        self.of_blocks.len()
    }

    fn sum_up(&self, block: usize) {
        let rows = self.data.chunks(self.size).nth(block).expect("a block that is there");
        self.of_blocks[block].get_or_init(|| {
            let mut total = vec![0.0; self.columns];
            vectorized(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(self.columns) {
                        total.iter_mut().zip(row).for_each(|(total, x)| *total += x);
                    }
                },
            );
            total
        });
    }

    /// Of all blocks, in their order, whoever summed them up.
    fn total(self) -> Vec<f32> {
        let mut total = vec![0.0; self.columns];
        for block in self.of_blocks {
            add_to(&mut total, &block.into_inner().expect("every block is summed up"));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::kernels::cpu::tests::{cpus, numbers, scattered};

    /// Output and gradients of input, weight and bias.
    fn run(
        device: &Device,
        [batch, rows, from, to]: [usize; 4],
        bias: bool,
        fused: bool,
    ) -> Vec<Vec<f64>> {
        let device = &device.clone().autodiff();
        let mut layer = LinearConfig::new(from, to).with_bias(bias).init(device);
        layer.weight = layer.weight.map(|_| scattered([from, to], device).require_grad());
        layer.bias = layer.bias.map(|bias| bias.map(|_| scattered([to], device).require_grad()));
        // Half of the width: a layout that is not row-major.
        let wide = scattered([batch, rows, 2 * from], device).require_grad();
        let upstream = scattered([batch, rows, to], device);
        let x: Tensor<3> = wide.clone().slice([0..batch, 0..rows, from..2 * from]);
        let y = if fused { linear(&layer, x) } else { layer.forward(x) };
        let gradients = (y.clone() * upstream).sum().backward();
        let mut results = vec![numbers(y)];
        results.push(numbers(wide.grad(&gradients).unwrap()));
        results.push(numbers(layer.weight.val().grad(&gradients).unwrap()));
        results.extend(layer.bias.map(|bias| numbers(bias.val().grad(&gradients).unwrap())));
        results
    }

    #[test]
    fn projections_agree_with_those_of_burn() {
        // One token, odd sizes, a tall and a wide result over several tasks, and no token at all.
        let sizes =
            [[1, 1, 5, 3], [2, 3, 7, 11], [5, 67, 64, 96], [1, 130, 96, 700], [3, 400, 33, 31]];
        for (device, sizes) in cpus().into_iter().flat_map(|d| sizes.map(|s| (d.clone(), s))) {
            for bias in [true, false] {
                let expected = run(&device, sizes, bias, false);
                let got = run(&device, sizes, bias, true);
                assert_eq!(got.len(), expected.len());
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    assert_eq!(got.len(), expected.len());
                    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                    for (got, expected) in got.iter().zip(expected) {
                        let close = (got - expected).abs() <= 2e-6 * largest;
                        assert!(close, "{sizes:?}, result {i}: {got}, expected {expected}");
                    }
                }
            }
        }
    }

    #[test]
    #[cfg(feature = "flex")]
    fn half_precision_is_computed_in_f32() {
        let device = Device::flex();
        for (dtype, ulp) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
            let [x, weight] =
                [[3, 67], [67, 11]].map(|shape| scattered(shape, &device).cast(dtype));
            let bias: Tensor<1> = scattered([11], &device).cast(dtype);
            let wide = |x: &Tensor<2>| x.clone().cast(DType::F32);
            let expected =
                wide(&x).matmul(wide(&weight)) + bias.clone().cast(DType::F32).unsqueeze();
            let got = project(x, weight, Some(bias));
            assert_eq!(got.dtype(), dtype);
            for (got, expected) in numbers(got.cast(DType::F32)).iter().zip(numbers(expected)) {
                // One rounding, of the result.
                assert!(
                    (got - expected).abs() <= ulp * expected.abs().max(ulp),
                    "{got} {expected}"
                );
            }
        }
    }

    #[test]
    fn no_rows_give_no_rows() {
        for device in cpus() {
            let layer = LinearConfig::new(3, 2).init(&device);
            assert_eq!(linear(&layer, Tensor::<3>::zeros([2, 0, 3], &device)).dims(), [2, 0, 2]);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for device in cpus() {
            for sizes in [[3, 400, 33, 31], [1, 130, 96, 700]] {
                let with = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    pool.build().unwrap().install(|| run(&device, sizes, true, true))
                };
                assert_eq!(with(1), with(2));
            }
        }
    }
}
