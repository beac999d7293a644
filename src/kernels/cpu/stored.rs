//! Products with a matrix that is stored in blocks, row by row: `x Wᵀ`.
//!
//! For a few rows of `x` reading the matrix is what takes the time. Memory gives it once, in the order
//! in which it lies, and a block becomes f32 in registers; with VNNI it stays whole numbers, which are
//! multiplied with `x` to 21 bits. A number of the result is a sum in a fixed order, whatever the number
//! of threads, off by no more than a sum of products of f32 may be.
//!
//! For many rows multiplying is what takes the time. Whole numbers are faster there too (`many`); else a
//! panel of the matrix becomes f32.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Int, Tensor, assert_shape};

use super::arithmetic::add_to;
use super::blocks::{ABREAST, Factor, Format, expand};
use super::host::{Flat, Host};
use super::linear::column_sums;
#[cfg(target_arch = "x86_64")]
use super::many::product_of_many;
use super::matrix::Matrix;
use super::memory::SharedSlice;
use super::operation::HostOperation;
use super::product::{product, product_by_panels};
use super::threads;
use crate::kernels::autodiff::{Operation, OperationInputs};
use crate::kernels::backends::HostBytes;
use crate::kernels::supports;

/// Up to this many rows expanding each block anew for a few of them is faster than expanding the
/// matrix for all.
pub(super) const MOST_ROWS: usize = 8;
/// Numbers of the matrix in the smallest and the largest task: memory gives a long piece faster than
/// some short ones.
const SMALLEST_TASK: usize = 1 << 15;
const LARGEST_TASK: usize = 1 << 17;
/// Tasks that keep a few threads busy: those of a small matrix, and of others.
const ENOUGH_TASKS: usize = 4;
const EVEN_TASKS: usize = 8;
/// Numbers of the matrix for which it pays to wake other threads up, at one row.
const WORTH_WAKING: usize = 1 << 19;

/// A matrix in blocks.
#[derive(Clone, Copy)]
pub(super) struct StoredMatrix<'a> {
    pub format: Format,
    /// `rows` times the bytes of a row.
    pub bytes: &'a [u8],
    pub rows: usize,
    /// Numbers of a row.
    pub columns: usize,
}

impl StoredMatrix<'_> {
    /// Bytes of a row.
    fn row_bytes(self) -> usize {
        self.format.row_bytes(self.columns).expect("whole blocks in a row")
    }

    /// The bytes of some rows.
    pub fn bytes_of(&self, rows: Range<usize>) -> &[u8] {
        let row_bytes = self.row_bytes();
        &self.bytes[rows.start * row_bytes..rows.end * row_bytes]
    }

    /// The numbers of some rows, `[rows, columns]`.
    pub fn expanded(self, rows: Range<usize>) -> Vec<f32> {
        let mut numbers = vec![0.0; rows.len() * self.columns];
        self.expand_rows(rows, &mut numbers);
        numbers
    }

    /// All its numbers where they lie, if they are f32 and memory has them in place for that.
    fn floats(&self) -> Option<Matrix<'_>> {
        if self.format != Format::F32 || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: all bits are an f32.
        let (before, numbers, behind) = unsafe { self.bytes.align_to::<f32>() };
        let fits = before.is_empty() && behind.is_empty();
        fits.then(|| Matrix::rows(numbers, self.columns))
    }

    /// Writes them to `numbers`.
    fn expand_rows(self, rows: Range<usize>, numbers: &mut [f32]) {
        expand(self.format, self.bytes_of(rows), numbers);
    }
}

/// How many threads are worth it for so many products of numbers.
pub(super) fn threads_for(products: usize) -> usize {
    if threads::has_helpers() || products >= WORTH_WAKING { usize::MAX } else { 1 }
}

/// A part of a product: some rows of one of the matrices, and where theirs stand among all of them.
struct Task {
    matrix: usize,
    rows: Range<usize>,
    first: usize,
}

/// Tasks of about `numbers` numbers.
fn tasks(matrices: &[StoredMatrix], numbers: usize) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(2 * EVEN_TASKS);
    let mut before = 0;
    for (matrix, &StoredMatrix { rows, columns, .. }) in matrices.iter().enumerate() {
        let step = numbers.div_ceil(columns).max(1).next_multiple_of(ABREAST);
        for start in (0..rows).step_by(step) {
            tasks.push(Task { matrix, rows: start..rows.min(start + step), first: before + start });
        }
        before += rows;
    }
    tasks
}

/// `W xᵀ` of each matrix, `[rows of all matrices, rows of x]`. The rows of `x` are in one piece each;
/// nothing is empty.
fn products_of_few(x: Matrix, matrices: &[StoredMatrix]) -> Vec<f32> {
    let rows = matrices.iter().map(|matrix| matrix.rows).sum::<usize>();
    let numbers = rows * x.columns;
    let in_task = (numbers / EVEN_TASKS).clamp(SMALLEST_TASK, LARGEST_TASK);
    let tasks = tasks(matrices, in_task.min(numbers / ENOUGH_TASKS));
    let threads = threads_for(numbers * x.rows);
    let of_x: Vec<&[f32]> = (0..x.rows).map(|row| x.row(row)).collect();
    // One for each format, mostly one.
    let mut factors: Vec<(Format, Factor)> = Vec::with_capacity(1);
    for &StoredMatrix { format, bytes, rows, .. } in matrices {
        let row_bytes = format.row_bytes(x.columns).expect("whole blocks in a row");
        assert!(bytes.len() == rows * row_bytes, "blocks that do not fit");
        if factors.iter().all(|&(known, _)| known != format) {
            factors.push((format, Factor::new(format, &of_x)));
        }
    }
    let mut products = vec![0.0; rows * x.rows];
    let shared = SharedSlice::new(&mut products);
    threads::for_each(tasks.len(), threads, |task| {
        let Task { matrix, rows, first } = &tasks[task];
        let matrix = &matrices[*matrix];
        // SAFETY: every task has products of its own.
        let products = unsafe { shared.slice(first * x.rows, rows.len() * x.rows) };
        let factor = factors.iter().find(|&&(known, _)| known == matrix.format);
        let (bytes, row_bytes) = (matrix.bytes_of(rows.clone()), matrix.row_bytes());
        factor.expect("one for each format").1.dots(bytes, row_bytes, products);
    });
    products
}

/// `x Wᵀ` of each matrix, side by side: `[rows of x, rows of all matrices]`. For up to [`MOST_ROWS`]
/// rows; nothing is empty.
pub(super) fn products_side_by_side(x: Matrix, matrices: &[StoredMatrix]) -> Vec<f32> {
    let products = products_of_few(x, matrices);
    if x.rows == 1 {
        return products;
    }
    let of_row = |row: usize| products.iter().skip(row).step_by(x.rows).copied();
    (0..x.rows).flat_map(of_row).collect()
}

/// `x Wᵀ`, plus `bias` in each row.
pub(super) fn stored_product(x: Matrix, weight: StoredMatrix, bias: Option<&[f32]>) -> Vec<f32> {
    let StoredMatrix { rows, columns, .. } = weight;
    if x.rows * rows == 0 || columns == 0 {
        return bias.map_or_else(|| vec![0.0; x.rows * rows], |bias| bias.repeat(x.rows));
    }
    if x.rows > MOST_ROWS {
        if let Some(weight) = weight.floats() {
            return product(x, weight.transposed(), bias);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(products) = product_of_many(x, weight, bias) {
            return products;
        }
        // Each panel is expanded by the task that multiplies with it, while it is in its cache.
        return product_by_panels(x, rows, bias, |rows, panel| weight.expand_rows(rows, panel));
    }
    let mut output = products_side_by_side(x, &[weight]);
    if let Some(bias) = bias {
        output.chunks_exact_mut(rows).for_each(|output| add_to(output, bias));
    }
    output
}

/// A matrix in blocks that stands behind a tensor of bytes, on a device whose memory the CPU reads.
#[derive(Clone)]
pub(crate) struct StoredWeight {
    bytes: Arc<HostBytes>,
    format: Format,
    /// `[rows, numbers of a row]`
    shape: [usize; 2],
}

impl StoredWeight {
    /// Of `bytes`, `[rows, bytes of a row]`; nothing on a device without these kernels.
    ///
    /// # Panics
    ///
    /// If a row of so many `columns` has another number of bytes.
    pub fn new(bytes: Tensor<2, Int>, format: Format, columns: usize) -> Option<Self> {
        let [rows, row_bytes] = bytes.dims();
        assert!(format.row_bytes(columns) == Some(row_bytes), "blocks that do not fit");
        let bytes = Arc::new(HostBytes::of(bytes)?);
        Some(Self { bytes, format, shape: [rows, columns] })
    }

    /// `x Wᵀ + bias`, summed up in f32.
    ///
    /// - x: `[..., columns]`
    /// - output: `[..., rows]`
    pub fn project<const D: usize>(self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        let [_, columns] = self.shape;
        assert_shape!(x, [.., columns]);
        let dtype = x.dtype();
        let (x, bias) = (x.cast(DType::F32), bias.map(|bias| bias.cast(DType::F32)));
        debug_assert!(supports(&x.device(), DType::F32));
        HostOperation::ProjectStored(self).run(x, None::<Tensor<1>>, bias).cast(dtype)
    }

    /// The numbers of some rows, one behind the other.
    pub fn rows(&self, rows: impl Iterator<Item = usize>) -> Vec<f32> {
        let matrix = self.matrix();
        rows.flat_map(|row| matrix.expanded(row..row + 1)).collect()
    }

    /// All its numbers, `[rows, columns]`.
    pub fn all(&self) -> Vec<f32> {
        self.matrix().expanded(0..self.shape[0])
    }

    /// Its bytes, row by row.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    pub(super) fn matrix(&self) -> StoredMatrix<'_> {
        let [rows, columns] = self.shape;
        StoredMatrix { format: self.format, bytes: self.bytes.get(), rows, columns }
    }
}

impl fmt::Debug for StoredWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredWeight({} {:?})", self.format, self.shape)
    }
}

impl<B: Host> Operation<B, 3> for StoredWeight {
    const CHEAP: bool = false;

    fn forward(&self, inputs: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let [Some(x), _, bias] = inputs else { unreachable!("a projection without x") };
        let mut shape = x.shape();
        let x = Flat::<B>::new(x);
        let bias = bias.map(Flat::<B>::new);
        let weight = self.matrix();
        let x = Matrix::rows(x.data(), weight.columns);
        let output = stored_product(x, weight, bias.as_ref().map(Flat::data));
        let last = shape.num_dims() - 1;
        shape[last] = weight.rows;
        (B::tensor(output, shape), vec![])
    }

    fn backward(
        &self,
        inputs: OperationInputs<B, 3>,
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; 3],
    ) -> OperationInputs<B, 3> {
        let [Some(x), ..] = inputs else { unreachable!("a projection without x") };
        let weight = self.matrix();
        let d_output = Flat::<B>::new(d_output);
        let d_x = || {
            let d_y = Matrix::rows(d_output.data(), weight.rows);
            let d_x = match weight.floats() {
                Some(numbers) => product(d_y, numbers, None),
                None => product(d_y, Matrix::rows(&self.all(), weight.columns), None),
            };
            B::tensor(d_x, x.shape())
        };
        let d_bias = || B::tensor(column_sums(d_output.data(), weight.rows), [weight.rows]);
        [wanted[0].then(d_x), None, wanted[2].then(d_bias)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::kernels::Threads;
    use crate::kernels::cpu::linear::project;
    use crate::kernels::cpu::simd;
    use crate::kernels::cpu::tests::{cpus, gradient, scattered};
    use crate::kernels::cpu::threads::tests::alone;

    /// Numbers from -1 to 1 without a pattern.
    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 31 + seed) as f32 * 12.9898).sin() * 43758.547 % 1.0).collect()
    }

    /// Random bits, with scales of ordinary size.
    fn blocks(format: Format, rows: usize, columns: usize) -> Vec<u8> {
        if !format.is_quantized() {
            let numbers = numbers(rows * columns, 5);
            return match format {
                Format::F16 => {
                    numbers.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()
                }
                Format::Bf16 => {
                    numbers.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect()
                }
                _ => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            };
        }
        let scales: &[usize] = match format {
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
            Format::Q6K => &[208],
            _ => &[0],
        };
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let length = rows * format.row_bytes(columns).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &at in scales {
                let scale = half::f16::from_f32((random() as f32 / 65536.0 - 0.5) / 16.0);
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        bytes
    }

    /// Whether the best that this machine has for a format is whole numbers.
    fn in_whole_numbers(format: Format) -> bool {
        #[cfg(target_arch = "x86_64")]
        return format.is_quantized() && simd::has_vnni();
        #[cfg(not(target_arch = "x86_64"))]
        return false;
    }

    #[test]
    fn products_agree_with_a_loop_over_the_numbers_on_every_instruction_set() {
        // One, two and three blocks more than a multiple of four, units that are not full, rows that are no multiple of sixteen where
        // the format allows it; one row, those that share an expansion and some more, panels.
        for format in Format::ALL {
            for (columns, outputs) in [(1, 3), (37, 5), (17, 7), (18, 67), (19, 6)] {
                let columns = columns * format.block_length();
                let bytes = blocks(format, outputs, columns);
                let weight = StoredMatrix { format, bytes: &bytes, rows: outputs, columns };
                let expanded = format.dequantize(&bytes).unwrap();
                for rows in [1, 4, 7, 8, 11, 29] {
                    let x = numbers(rows * columns, 1);
                    let bias = numbers(outputs, 3);
                    let x = Matrix::rows(&x, columns);
                    let expected = |i: usize, j: usize| {
                        let terms = x.row(i).iter().zip(&expanded[j * columns..]);
                        let terms = terms.map(|(&x, &w)| x as f64 * w as f64);
                        let size: f64 = terms.clone().map(f64::abs).sum();
                        (bias[j] as f64 + terms.sum::<f64>(), size)
                    };
                    let run = || stored_product(x, weight, Some(&bias));
                    let on = |arch| (format!("{arch:?}"), simd::tests::on(arch, run));
                    let mut results: Vec<_> = simd::tests::archs().into_iter().map(on).collect();
                    results.push(("without VNNI".into(), simd::tests::without_vnni(run)));
                    for (path, got) in results {
                        for (at, &got) in got.iter().enumerate() {
                            let (expected, size) = expected(at / outputs, at % outputs);
                            // Roundings of the sums, which with a minimum or an offset are of larger
                            // numbers than the products are.
                            assert!(
                                (got as f64 - expected).abs() <= 2e-6 * (size + 1.0),
                                "{format} on {path}, {rows} x {columns} x {outputs} at {at}: \
                                 {got}, expected {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Of a file where nothing begins at a multiple of four.
    #[test]
    fn floats_at_any_place_of_memory_give_the_same_bits() {
        let (columns, outputs) = (139, 67);
        let bytes = blocks(Format::F32, outputs, columns);
        for rows in [1, 3, 11] {
            let x = numbers(rows * columns, 1);
            let product = |bytes: &[u8]| {
                let weight = StoredMatrix { format: Format::F32, bytes, rows: outputs, columns };
                let is_in_place = weight.floats().is_some();
                (is_in_place, stored_product(Matrix::rows(&x, columns), weight, None))
            };
            let mut shifted = vec![0; bytes.len() + 4];
            let [in_place, others] = [0, 1].map(|excess| {
                let start = (4 - shifted.as_ptr().addr() % 4) % 4 + excess;
                shifted[start..][..bytes.len()].copy_from_slice(&bytes);
                product(&shifted[start..][..bytes.len()])
            });
            assert!(in_place.0 && !others.0);
            assert_eq!(in_place.1, others.1, "{rows} rows");
        }
    }

    /// In whole numbers: the sums of f32 are ordered by how many rows share what is read. A few rows and
    /// many are summed up in two orders.
    #[test]
    fn a_row_among_others_has_the_same_bits() {
        for format in Format::ALL.into_iter().filter(|&format| in_whole_numbers(format)) {
            let (columns, outputs) = (3 * format.block_length(), 67);
            let bytes = blocks(format, outputs, columns);
            let weight = StoredMatrix { format, bytes: &bytes, rows: outputs, columns };
            for (few, many) in [(1, 7), (MOST_ROWS + 1, 5 * (MOST_ROWS + 1))] {
                let x = numbers(many * columns, 1);
                let all = stored_product(Matrix::rows(&x, columns), weight, None);
                for (x, all) in x.chunks(few * columns).zip(all.chunks(few * outputs)) {
                    let alone = stored_product(Matrix::rows(x, columns), weight, None);
                    assert_eq!(alone, all, "{format}");
                }
            }
        }
    }

    /// Where activations are large in one place, small beside it, and where one is no number.
    #[test]
    fn outliers_are_as_exact_as_other_numbers() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let columns = 2 * format.block_length().max(64);
            let bytes = blocks(format, 3, columns);
            let weight = StoredMatrix { format, bytes: &bytes, rows: 3, columns };
            let expanded = format.dequantize(&bytes).unwrap();
            let mut x = numbers(columns, 1);
            (x[1], x[columns - 40]) = (3e4, -1e-9);
            let product = |x: &[f32], rows: usize| {
                let products = stored_product(Matrix::rows(&x.repeat(rows), columns), weight, None);
                products[products.len() - 3..].to_vec()
            };
            for rows in [1, MOST_ROWS + 1] {
                for (got, weights) in product(&x, rows).iter().zip(expanded.chunks(columns)) {
                    let terms = x.iter().zip(weights).map(|(&x, &w)| x as f64 * w as f64);
                    let expected: f64 = terms.sum();
                    // Many rows go through numbers of 8 bits as 20 bits instead of 21.
                    let in_fewer_bits = rows > 1 && format == Format::Q8_0;
                    let tolerance = if in_fewer_bits { 4e-6 } else { 2e-6 };
                    // Of what is summed up: scale times q and offset, which are as large as the largest
                    // weight even where their sum is none.
                    let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
                    let size: f64 = x.iter().map(|x| (x.abs() * largest) as f64).sum();
                    let close = (*got as f64 - expected).abs() <= tolerance * size;
                    assert!(close, "{format}: {got}, expected {expected}");
                }
            }
            for broken in [f32::NAN, f32::INFINITY] {
                x[40] = broken;
                for rows in [1, MOST_ROWS + 1] {
                    let got = product(&x, rows);
                    assert!(got.iter().all(|x| !x.is_finite()), "{format}: {got:?}");
                }
            }
        }
    }

    /// Whole numbers are summed up in 32 bits before they are scaled.
    #[test]
    fn the_largest_sums_do_not_overflow() {
        for (byte, q) in [(0x80, -128.0), (0x7f, 127.0)] {
            let block = [[0x00, 0x3c].as_slice(), &[byte; 32]].concat(); // scale 1
            let (columns, bytes) = (256, block.repeat(3 * 8));
            let weight = StoredMatrix { format: Format::Q8_0, bytes: &bytes, rows: 3, columns };
            for (x, rows) in [(1.0, 1), (-1.0, 1), (1.0, 23), (-1.0, 23)] {
                let x_of_all = vec![x; 256 * rows];
                let got = stored_product(Matrix::rows(&x_of_all, columns), weight, None);
                for got in got {
                    let expected = 256.0 * x * q;
                    assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got}, {expected}");
                }
            }
        }
    }

    /// The same of every format: all bits set, and none, with scales of 1.
    #[test]
    fn the_largest_numbers_of_a_format_do_not_overflow() {
        for format in Format::ALL.into_iter().filter(|format| format.is_quantized()) {
            let scales: &[usize] = match format {
                Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
                Format::Q6K => &[208],
                _ => &[0],
            };
            for byte in [0x00, 0xff] {
                let mut block = vec![byte; format.block_bytes()];
                for &at in scales {
                    block[at..at + 2].copy_from_slice(&[0x00, 0x3c]);
                }
                let (columns, bytes) = (2 * format.block_length(), block.repeat(2 * 3));
                let weight = StoredMatrix { format, bytes: &bytes, rows: 3, columns };
                let weights = format.dequantize(&block).unwrap();
                let sum_of = |f: fn(f32) -> f32| 2.0 * weights.iter().map(|&w| f(w)).sum::<f32>();
                for rows in [1, MOST_ROWS + 1] {
                    let x = vec![-1.0; rows * columns];
                    for got in stored_product(Matrix::rows(&x, columns), weight, None) {
                        // Of terms that an offset makes small.
                        let size = sum_of(f32::abs).max(1e4);
                        let error = (got + sum_of(|w| w)).abs();
                        assert!(error <= 1e-5 * size, "{format} of {byte:#x}: {got}");
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_a_product_with_the_numbers() {
        for device in cpus() {
            let device = device.autodiff();
            for (format, rows) in
                [(Format::Q4_1, 1), (Format::Q6K, 7), (Format::F16, 19), (Format::F32, 11)]
            {
                let (columns, outputs) = (256, 37);
                let bytes = blocks(format, outputs, columns);
                let dense = TensorData::new(format.dequantize(&bytes).unwrap(), [outputs, columns]);
                let dense = Tensor::<2>::from_data(dense, &device).transpose();
                let row_bytes = format.row_bytes(columns).unwrap();
                let bytes = TensorData::from_bytes_vec(bytes, [outputs, row_bytes], DType::U8);
                let bytes = Tensor::from_data(bytes, (&device, DType::U8));
                let weight = StoredWeight::new(bytes, format, columns).unwrap();
                let upstream = scattered([rows, outputs], &device) + 0.3;
                let inputs =
                    || [scattered([rows, columns], &device), scattered([1, outputs], &device)];
                let run = |project: &dyn Fn(Tensor<2>, Tensor<1>) -> Tensor<2>| {
                    gradient(inputs(), |[x, bias]| {
                        project(x, bias.reshape([outputs])) * upstream.clone()
                    })
                };
                let got = run(&|x, bias| weight.clone().project(x, Some(bias)));
                let expected = run(&|x, bias| project(x, dense.clone(), Some(bias)));
                assert_eq!((got.len(), expected.len()), (2, 2));
                for (got, expected) in got.concat().iter().zip(expected.concat()) {
                    assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{format}");
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let _alone = alone();
        for format in [Format::Q8_0, Format::Q4K, Format::Bf16] {
            let (columns, outputs) = (256, 577);
            let bytes = blocks(format, outputs, columns);
            let weight = StoredMatrix { format, bytes: &bytes, rows: outputs, columns };
            for rows in [1, 3, 19] {
                let x = numbers(rows * columns, 1);
                let with = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                    let run = || stored_product(Matrix::rows(&x, columns), weight, None);
                    pool.build().unwrap().install(|| [run(), Threads::Spinning(7).run(run)])
                };
                let [one, _] = with(1);
                assert_eq!([&one, &one], with(3).each_ref(), "{format}, {rows} rows");
            }
        }
    }
}
