//! The product of a few rows with a matrix, as for one token of each sequence.
//!
//! Reading the matrix is what takes the time, so it is read once, in the order in which it lies, and
//! not packed. Each number of the result is a sum in a fixed order, whatever the number of threads.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::arithmetic::add_to;
use super::product::Matrix;
use crate::host;

/// Up to this many rows this way is faster than packing, if the matrix is row-major.
const MOST_ROWS: usize = 4;
/// The same if it is column-major.
const MOST_ROWS_BY_COLUMNS: usize = 8;
/// Elements of the matrix in the largest and the smallest task.
const LARGEST_TASK: usize = 1 << 15;
const SMALLEST_TASK: usize = 1 << 13;
/// Tasks that keep a few threads busy.
const ENOUGH_TASKS: usize = 4;
/// Elements of the matrix for which it pays to wake other threads up.
const WORTH_WAKING: usize = 1 << 20;
/// Columns up to which a row-major matrix is cut between its rows, so that each task reads one piece
/// of memory. Then every task has sums of its own, which wide ones would make too long.
const WIDEST: usize = 4096;
/// Columns of other tasks are a multiple of this: whole vectors, whole cache lines.
const COLUMNS: usize = 64;
/// Rows of a row-major matrix that are read side by side.
const ROWS_ABREAST: usize = 8;
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
    if b.column_stride == 1 && b.columns <= WIDEST {
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
    in_tasks(&mut sums, sum.len(), |task, sums| {
        let range = task * rows..b.rows.min((task + 1) * rows);
        Part { a: a.columns_of(&range), b: b.rows_of(&range), sums }
    });
    sums.chunks_exact(sum.len()).for_each(|part| add_to(sum, part));
}

fn cut_between_columns(a: Matrix, b: Matrix, sum: &mut [f32]) {
    let width = (elements(b) / b.rows).max(1).next_multiple_of(COLUMNS);
    // `[tasks, rows of a, columns of the task]`
    let mut sums = vec![0.0; sum.len()];
    in_tasks(&mut sums, a.rows * width, |task, sums| {
        let range = task * width..b.columns.min((task + 1) * width);
        Part { a, b: b.columns_of(&range), sums }
    });
    for (task, sums) in sums.chunks(a.rows * width).enumerate() {
        for (row, part) in sums.chunks_exact(sums.len() / a.rows).enumerate() {
            add_to(&mut sum[row * b.columns + task * width..][..part.len()], part);
        }
    }
}

/// Runs the part of each task, which has `of_task` sums.
fn in_tasks<'a>(
    sums: &'a mut [f32],
    of_task: usize,
    part: impl Fn(usize, &'a mut [f32]) -> Part<'a> + Sync,
) {
    let arch = host::arch();
    let tasks = sums.len().div_ceil(of_task);
    // Neighbours in memory go to one thread.
    let least = if host::is_awake() || tasks * LARGEST_TASK >= WORTH_WAKING {
        tasks.div_ceil(4 * rayon::current_num_threads())
    } else {
        tasks
    };
    let sums = sums.par_chunks_mut(of_task).enumerate().with_min_len(least);
    sums.for_each(|(task, sums)| arch.dispatch(part(task, sums)));
}

/// A task: the product of some rows with a piece of the matrix.
struct Part<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    /// `[rows of a, columns of b]`
    sums: &'a mut [f32],
}

impl WithSimd for Part<'_> {
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

impl Part<'_> {
    /// Adds what `N` rows of `b`, each of which lies together, give to all sums.
    #[inline(always)]
    fn add_rows<S: Simd, const N: usize>(&mut self, simd: S, first: usize) {
        let b = self.b;
        let row = |i| &b.data[(first + i) * b.row_stride..][..b.columns];
        let rows: [_; N] = std::array::from_fn(|i| S::as_simd_f32s(row(i)));
        for (row, sum) in self.sums.chunks_exact_mut(b.columns).enumerate() {
            let a = self.a.row(row);
            let factors: [_; N] = std::array::from_fn(|i| simd.splat_f32s(a[first + i]));
            let (sum, rest) = S::as_mut_simd_f32s(sum);
            let vectors = rows.map(|(vectors, _)| &vectors[..sum.len()]);
            for (j, sum) in sum.iter_mut().enumerate() {
                for i in 0..N {
                    *sum = simd.mul_add_e_f32s(factors[i], vectors[i][j], *sum);
                }
            }
            if !rest.is_empty() {
                let mut total = simd.partial_load_f32s(rest);
                for i in 0..N {
                    let row = simd.partial_load_f32s(rows[i].1);
                    total = simd.mul_add_e_f32s(factors[i], row, total);
                }
                simd.partial_store_f32s(rest, total);
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
