//! A matrix by strides, as the products read it.

use std::ops::Range;

use super::attention::Real;
use super::host::HostView;

/// A matrix by strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn of(view: HostView<'a, f32, 2>) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (view.shape, view.strides);
        Self { data: view.data, rows, columns, row_stride, column_stride }
    }

    /// `data`, row-major.
    pub fn rows(data: &'a [f32], columns: usize) -> Self {
        let rows = data.len() / columns.max(1);
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Whether it lies as the transposed of a row-major matrix.
    pub fn is_transposed(self) -> bool {
        self.row_stride == 1 && self.column_stride >= self.rows && self.rows > 1
    }

    /// A row whose elements lie together.
    pub fn row(self, row: usize) -> &'a [f32] {
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// The rows of a range.
    pub fn rows_of(self, range: &Range<usize>) -> Self {
        // An empty matrix has no element to start from.
        let start = (range.start * self.row_stride).min(self.data.len());
        Self { data: &self.data[start..], rows: range.len(), ..self }
    }

    /// The columns of a range.
    pub fn columns_of(self, range: &Range<usize>) -> Self {
        self.transposed().rows_of(range).transposed()
    }

    /// Panics if an element lies outside of the data.
    pub fn check(self) {
        if self.rows > 0 && self.columns > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
            assert!(last < self.data.len(), "a matrix beyond its data");
        }
    }
}

/// Rows that are turned at a time: a cache line of the result.
const TURNED_AT_ONCE: usize = 16;

/// A transposed matrix as rows.
pub(super) fn turned(matrix: Matrix) -> Vec<f32> {
    let from = matrix.transposed(); // row-major
    let (rows, columns) = (from.rows, from.columns);
    let mut to = vec![0.0; rows * columns];
    let whole = columns - columns % 4;
    for first in (0..rows).step_by(TURNED_AT_ONCE) {
        let height = TURNED_AT_ONCE.min(rows - first);
        let squares = height - height % 4;
        let lines: [&[f32]; TURNED_AT_ONCE] =
            std::array::from_fn(|i| from.row(first + i.min(height - 1)));
        for column in (0..whole).step_by(4) {
            for row in (0..squares).step_by(4) {
                let square = std::array::from_fn(|i| {
                    let line = &lines[row + i][column..][..4];
                    [line[0], line[1], line[2], line[3]]
                });
                for (i, turned) in f32::transposed(square).iter().enumerate() {
                    to[(column + i) * rows + first + row..][..4].copy_from_slice(turned);
                }
            }
        }
        // What no square of four covers.
        for column in 0..columns {
            let rest = if column < whole { squares } else { 0 };
            for row in rest..height {
                to[column * rows + first + row] = lines[row][column];
            }
        }
    }
    to
}
