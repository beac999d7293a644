//! The product of a few rows with a matrix, as for one token of each sequence.
//!
//! Reading the matrix is what takes the time, so memory gives it once, in the order in which it
//! lies, and it is not packed. Each number of the result is a sum in a fixed order, whatever the
//! number of threads.

use pulp::{Simd, WithSimd};

use super::arithmetic::add_to;
use super::matrix::Matrix;
use super::memory::SharedSlice;
use super::{simd, threads};

/// Up to this many rows this way is faster than the gemm crate's, if the matrix is row-major.
const MOST_ROWS: usize = 16;
/// The same if it is column-major.
const MOST_ROWS_BY_COLUMNS: usize = 8;
/// Elements of the matrix in the largest and the smallest task.
const LARGEST_TASK: usize = 1 << 15;
const SMALLEST_TASK: usize = 1 << 13;
/// Tasks that keep a few threads busy.
const ENOUGH_TASKS: usize = 4;
/// Elements of the matrix for which it pays to wake other threads up, at the few rows that take no
/// longer than reading it.
const WORTH_WAKING: usize = 1 << 20;
const ROWS_WHILE_READING: usize = 4;
/// Sums up to which a row-major matrix is cut between its rows, so that each task reads one piece of
/// memory. Then every task has sums of its own for the whole result.
const MOST_SUMS: usize = 4096;
/// Columns of other tasks are a multiple of this: whole vectors, whole cache lines.
const COLUMNS: usize = 64;
/// Rows of a row-major matrix that are read side by side, and columns, which the smallest cache keeps
/// for all rows of the left factor.
const ROWS_ABREAST: usize = 4;
const COLUMNS_AT_ONCE: usize = 512;
/// Columns of a column-major one.
const COLUMNS_ABREAST: usize = 4;

/// Whether [`add_product`] can multiply these, faster than others can.
pub(super) fn fit(a: Matrix, b: Matrix) -> bool {
    let most = match (b.column_stride, b.row_stride) {
        (1, _) => MOST_ROWS,
        (_, 1) => MOST_ROWS_BY_COLUMNS,
        _ => 0,
    };
    a.rows <= most && a.column_stride == 1
}

/// `a b` added to `sum`, which is row-major. Nothing is empty.
pub(super) fn add_product(a: Matrix, b: Matrix, sum: &mut [f32]) {
    if b.column_stride == 1 && sum.len() <= MOST_SUMS {
        cut_between_rows(a, b, sum);
    } else {
        cut_between_columns(a, b, sum);
    }
}

/// Elements of the matrix in a task: by its size alone, so that no result depends on the number of
/// threads.
fn elements(b: Matrix) -> usize {
    (b.rows * b.columns / ENOUGH_TASKS).clamp(SMALLEST_TASK, LARGEST_TASK)
}

fn cut_between_rows(a: Matrix, b: Matrix, sum: &mut [f32]) {
    let rows = (elements(b) / b.columns).next_multiple_of(ROWS_ABREAST);
    // `[tasks, rows of a, columns of b]`
    let mut sums = vec![0.0; b.rows.div_ceil(rows) * sum.len()];
    in_tasks(&mut sums, a.rows, sum.len(), |task, sums| {
        let range = task * rows..b.rows.min((task + 1) * rows);
        GemvTask { a: a.columns_of(&range), b: b.rows_of(&range), sums }
    });
    sums.chunks_exact(sum.len()).for_each(|part| add_to(sum, part));
}

fn cut_between_columns(a: Matrix, b: Matrix, sum: &mut [f32]) {
    let width = (elements(b) / b.rows).max(1).next_multiple_of(COLUMNS);
    // `[tasks, rows of a, columns of the task]`
    let mut sums = vec![0.0; sum.len()];
    in_tasks(&mut sums, a.rows, a.rows * width, |task, sums| {
        let range = task * width..b.columns.min((task + 1) * width);
        GemvTask { a, b: b.columns_of(&range), sums }
    });
    for (task, sums) in sums.chunks(a.rows * width).enumerate() {
        for (row, part) in sums.chunks_exact(sums.len() / a.rows).enumerate() {
            add_to(&mut sum[row * b.columns + task * width..][..part.len()], part);
        }
    }
}

/// Runs the part of each task, which has `of_task` sums for so many rows.
fn in_tasks<'a>(
    sums: &'a mut [f32],
    rows: usize,
    of_task: usize,
    part: impl Fn(usize, &'a mut [f32]) -> GemvTask<'a> + Sync,
) {
    let arch = simd::arch();
    let tasks = sums.len().div_ceil(of_task);
    let work = tasks * LARGEST_TASK * rows.div_ceil(ROWS_WHILE_READING);
    let threads = if threads::has_helpers() || work >= WORTH_WAKING { usize::MAX } else { 1 };
    let length = sums.len();
    let shared = SharedSlice::new(sums);
    threads::for_each(tasks, threads, |task| {
        let start = task * of_task;
        // SAFETY: every task has sums of its own.
        let sums = unsafe { shared.slice(start, of_task.min(length - start)) };
        arch.dispatch(part(task, sums));
    });
}

/// A task: the product of some rows with a piece of the matrix.
struct GemvTask<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    /// `[rows of a, columns of b]`
    sums: &'a mut [f32],
}

impl WithSimd for GemvTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (step, length) = if self.b.column_stride == 1 {
            (ROWS_ABREAST, self.b.rows)
        } else {
            (COLUMNS_ABREAST, self.b.columns)
        };
        let whole = length - length % step;
        for first in (0..whole).step_by(step) {
            match self.b.column_stride {
                1 => self.add_rows::<S, ROWS_ABREAST>(simd, first),
                _ => self.add_columns::<S, COLUMNS_ABREAST>(simd, first),
            }
        }
        for first in whole..length {
            match self.b.column_stride {
                1 => self.add_rows::<S, 1>(simd, first),
                _ => self.add_columns::<S, 1>(simd, first),
            }
        }
    }
}

impl GemvTask<'_> {
    /// Adds what `N` rows of `b`, each of which lies together, give to all sums.
    #[inline(always)]
    fn add_rows<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let (a, width) = (self.a, self.b.columns);
        for start in (0..width).step_by(COLUMNS_AT_ONCE) {
            let columns = start..width.min(start + COLUMNS_AT_ONCE);
            let b = self.b.columns_of(&columns).rows_of(&(first..first + N));
            for (pair, sums) in self.sums.chunks_mut(2 * width).enumerate() {
                let (sums, others) = sums.split_at_mut(width);
                let (sums, row) = (&mut sums[columns.clone()], &a.row(2 * pair)[first..]);
                if others.is_empty() {
                    add_rows::<S, N, 1>(simd, [row], b, [sums]);
                } else {
                    let rows = [row, &a.row(2 * pair + 1)[first..]];
                    add_rows::<S, N, 2>(simd, rows, b, [sums, &mut others[columns.clone()]]);
                }
            }
        }
    }

    /// Adds the products with `N` columns of `b`, each of which lies together, to their sums.
    #[inline(always)]
    fn add_columns<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let b = self.b;
        let column = |i| &b.data[(first + i) * b.column_stride..][..b.rows];
        let columns: [_; N] = std::array::from_fn(|i| S::as_simd_f32s(column(i)));
        for (row, sum) in self.sums.chunks_exact_mut(b.columns).enumerate() {
            let (a, rest) = S::as_simd_f32s(self.a.row(row));
            let vectors = columns.map(|(vectors, _)| &vectors[..a.len()]);
            let mut totals = [simd.splat_f32s(0.0); N];
            for (k, &a) in a.iter().enumerate() {
                for i in 0..N {
                    totals[i] = simd.mul_add_e_f32s(a, vectors[i][k], totals[i]);
                }
            }
            if !rest.is_empty() {
                let rest = simd.partial_load_f32s(rest);
                for i in 0..N {
                    let column = simd.partial_load_f32s(columns[i].1);
                    totals[i] = simd.mul_add_e_f32s(rest, column, totals[i]);
                }
            }
            for i in 0..N {
                sum[first + i] += simd.reduce_sum_f32s(totals[i]);
            }
        }
    }
}

/// Adds `N` rows of `b`, each times its number in a row of `a`, to `M` sums: two share what is read
/// of `b`, and no sum waits long for itself.
#[allow(clippy::needless_range_loop)] // several slices by the same index
#[inline(always)]
fn add_rows<S: Simd, const N: usize, const M: usize>(
    simd: S,
    a: [&[f32]; M],
    b: Matrix,
    sums: [&mut [f32]; M],
) {
    let mut factors = [[simd.splat_f32s(0.0); N]; M];
    for m in 0..M {
        for n in 0..N {
            factors[m][n] = simd.splat_f32s(a[m][n]);
        }
    }
    let rows: [_; N] = std::array::from_fn(|n| S::as_simd_f32s(b.row(n)));
    let sums = sums.map(|sum| S::as_mut_simd_f32s(sum));
    let vectors = rows.map(|(vectors, _)| &vectors[..sums[0].0.len()]);
    for j in 0..sums[0].0.len() {
        let mut totals = [simd.splat_f32s(0.0); M];
        for m in 0..M {
            totals[m] = sums[m].0[j];
        }
        for n in 0..N {
            for m in 0..M {
                totals[m] = simd.mul_add_e_f32s(factors[m][n], vectors[n][j], totals[m]);
            }
        }
        for m in 0..M {
            sums[m].0[j] = totals[m];
        }
    }
    if !sums[0].1.is_empty() {
        for m in 0..M {
            let mut total = simd.partial_load_f32s(sums[m].1);
            for n in 0..N {
                let row = simd.partial_load_f32s(rows[n].1);
                total = simd.mul_add_e_f32s(factors[m][n], row, total);
            }
            simd.partial_store_f32s(sums[m].1, total);
        }
    }
}
