//! The affine map of a projection, `y = x W + b`, with its gradient.
//!
//! ```text
//! dx = dy Wᵀ,   dW = xᵀ dy,   db = Σ dy over all rows
//! ```
//!
//! `x` is taken as one matrix of all rows of all sequences. Products of small matrices, one for each
//! sequence, pack the weights again each time; and a product that starts from the bias needs no
//! second pass to add it.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use std::ops::Range;

use burn::backend::{
    Backend, Dispatch, TensorMetadata,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    tensor::FloatTensor,
};
use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Tensor, assert_shape, module};
use rayon::prelude::*;

use super::arithmetic::BLOCK;
use super::runs_on;
use crate::host::{Flat, Host, Operation, View, read, readable, record};

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
        return module::linear(x, weight, bias);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::project(x, weight),
        Some(bias) => Dispatch::project_shifted(x, weight, bias.into_dispatch()),
    })
}

#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff
)]
pub(crate) trait Project: Backend {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    fn project_shifted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl<B: Host> Project for B {
    fn project(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
        Projection.forward::<B>([x, weight]).0
    }

    fn project_shifted(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
    ) -> FloatTensor<B> {
        Projection.forward::<B>([x, weight, bias]).0
    }
}

impl<B: Host, C: CheckpointStrategy> Project for Autodiff<B, C> {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        record::<B, C, _, _>(Projection, [x, weight])
    }

    fn project_shifted(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        record::<B, C, _, _>(Projection, [x, weight, bias])
    }
}

#[derive(Clone, Debug)]
struct Projection;

/// `x`, `weight` and, with `N = 3`, `bias`.
impl<const N: usize> Operation<N> for Projection {
    const CHEAP: bool = false;

    fn forward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let mut inputs = inputs.into_iter();
        let mut shape = inputs.as_slice()[0].shape();
        let x = Flat::<B>::new(inputs.next().expect("x"));
        let weight = readable::<B, f32, 2>(inputs.next().expect("weight"));
        let bias = inputs.next().map(Flat::<B>::new);
        let weight = Matrix::of(read::<B, f32, 2>(&weight));
        let x = Matrix::rows(x.data(), weight.rows);
        let output = match &bias {
            None => vec![0.0; x.rows * weight.columns],
            Some(bias) => bias.data().repeat(x.rows),
        };
        let output = product(x, weight, output);
        let last = shape.num_dims() - 1;
        shape[last] = weight.columns;
        (B::tensor(output, shape), vec![])
    }

    fn backward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let mut inputs = inputs.into_iter();
        let x = Flat::<B>::new(inputs.next().expect("x"));
        let weight = readable::<B, f32, 2>(inputs.next().expect("weight"));
        let weight = Matrix::of(read::<B, f32, 2>(&weight));
        let d_output = Flat::<B>::new(d_output);
        let d_y = Matrix::rows(d_output.data(), weight.columns);

        let d_x = || x.like(product(d_y, weight.transposed(), vec![0.0; x.data().len()]));
        let d_weight = || {
            let zeros = vec![0.0; weight.rows * weight.columns];
            let d_weight = product(Matrix::rows(x.data(), weight.rows).transposed(), d_y, zeros);
            B::tensor(d_weight, [weight.rows, weight.columns])
        };
        let d_bias = || B::tensor(column_sums(d_output.data(), weight.columns), [weight.columns]);
        let mut gradients = [
            wanted[0].then(d_x),
            wanted[1].then(d_weight),
            (wanted.get(2) == Some(&true)).then(d_bias),
        ]
        .into_iter();
        std::array::from_fn(|_| gradients.next().flatten())
    }
}

/// A matrix by strides.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn of(view: View<'a, f32, 2>) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (view.shape, view.strides);
        Self { data: view.data, rows, columns, row_stride, column_stride }
    }

    /// `data`, row-major.
    fn rows(data: &'a [f32], columns: usize) -> Self {
        let rows = data.len() / columns.max(1);
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The rows of a range.
    fn rows_of(self, range: &Range<usize>) -> Self {
        // An empty matrix has no element to start from.
        let start = (range.start * self.row_stride).min(self.data.len());
        Self { data: &self.data[start..], rows: range.len(), ..self }
    }

    /// Panics if an element lies outside of the data.
    fn check(self) {
        if self.rows > 0 && self.columns > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
            assert!(last < self.data.len(), "a matrix beyond its data");
        }
    }
}

/// Rows and columns of a block: its factors are packed once for many products, and stay in a core's
/// cache.
const BLOCK_SIZE: [usize; 2] = [512, 256];
/// Blocks that keep a few threads busy.
const ENOUGH_BLOCKS: usize = 4;
/// Multiplications that are worth a task.
const TASK: usize = 1 << 20;

/// Into how many rows and columns of blocks a product is cut: by its sizes alone, so that the result
/// does not depend on the number of threads. Powers of two, which threads share evenly.
fn blocks(size: [usize; 2], inner: usize) -> [usize; 2] {
    let mut blocks = [1, 1];
    loop {
        let number = blocks[0] * blocks[1];
        // rows and columns of a block, as multiples of `BLOCK_SIZE`
        let excess =
            [0, 1].map(|axis| size[axis] as f64 / (blocks[axis] * BLOCK_SIZE[axis]) as f64);
        let fits = number >= ENOUGH_BLOCKS && excess[0] <= 1.0 && excess[1] <= 1.0;
        if fits || size[0] * size[1] * inner / (2 * number) < TASK {
            return blocks;
        }
        blocks[usize::from(excess[0] < excess[1])] *= 2;
    }
}

/// `a b` added to `sum`, which is row-major.
fn product(a: Matrix, b: Matrix, mut sum: Vec<f32>) -> Vec<f32> {
    let (rows, inner, columns) = (a.rows, a.columns, b.columns);
    assert!(b.rows == inner && sum.len() == rows * columns, "matrices that do not fit");
    a.check();
    b.check();
    if sum.is_empty() || inner == 0 {
        return sum;
    }
    let blocks = blocks([rows, columns], inner);
    let part = |size: usize, blocks: usize, index: usize| {
        // Whole vectors, but for the last one.
        let length = size.div_ceil(blocks).next_multiple_of(16);
        size.min(index * length)..size.min((index + 1) * length)
    };
    let shared = Shared(sum.as_mut_ptr());
    (0..blocks[0] * blocks[1]).into_par_iter().with_max_len(1).for_each(|block| {
        let rows = part(rows, blocks[0], block / blocks[1]);
        let of_columns = part(columns, blocks[1], block % blocks[1]);
        if rows.is_empty() || of_columns.is_empty() {
            return; // whole vectors left nothing for the last blocks
        }
        let a = a.rows_of(&rows);
        let b = b.transposed().rows_of(&of_columns).transposed();
        // SAFETY: `check` above covers all of `a` and `b`, hence these parts. The task writes
        // `a.rows` rows of `b.columns` numbers from its block's first on, within `sum`, and blocks
        // do not overlap.
        unsafe {
            let first = shared.at(rows.start * columns + of_columns.start);
            add_product(a, b, first, columns);
        }
    });
    sum
}

/// The output, of which each task writes its own block.
struct Shared(*mut f32);

// SAFETY: tasks write disjoint elements, and the vector behind it outlives them.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    ///
    /// `offset` lies within the vector.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// `a b` added to the matrix at `sum` with rows `stride` apart.
///
/// # Safety
///
/// All elements of `a` and `b` lie in their data; `sum` is valid for `a.rows` rows of `b.columns`
/// elements, `stride` apart, which nobody else touches.
unsafe fn add_product(a: Matrix, b: Matrix, sum: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            sum,
            1,
            stride as isize,
            true,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The sum of each column of a row-major matrix, over blocks of rows.
fn column_sums(data: &[f32], columns: usize) -> Vec<f32> {
    let add = |mut total: Vec<f32>, row: &[f32]| {
        total.iter_mut().zip(row).for_each(|(total, x)| *total += x);
        total
    };
    let zeros = || vec![0.0; columns];
    if columns == 0 {
        return zeros();
    }
    let block = (BLOCK / columns).max(1) * columns;
    let blocks: Vec<Vec<f32>> = data
        .par_chunks(block)
        .map(|block| block.chunks_exact(columns).fold(zeros(), add))
        .collect();
    // In the order of the blocks, whoever summed them.
    blocks.iter().fold(zeros(), |total, block| add(total, block))
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    use super::*;
    use crate::ops::tests::{cpus, numbers, scattered};

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
