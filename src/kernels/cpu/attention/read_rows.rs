//! Rows of keys or values that are read once, or a few times: what stands in fewer bits becomes numbers
//! in the registers, without a copy in between.
//!
//! Every form gives the numbers that [`Source::copy_rows`] gives, and the products take them in the
//! same order, so that their sums are the same bits.

use pulp::Simd;

use super::panel::KeySet;
use super::row_product::{add_weighted, dots};
use super::rows::{MANY_READERS, TensorRows};
use super::strided::{Strided, offset};
use super::{Real, Source};
use crate::kernels::coding::{self, BLOCK, SCALE};
use crate::kernels::cpu::simd::{caches_read_ahead, prefetch};

/// Rows as a product reads them: vector by vector, and the rest number by number.
pub(super) trait ReadRows<T: Real>: Copy {
    /// A row, or its beginning.
    type Row: Copy;

    /// The first `width` numbers of a row, at least.
    fn row(&self, row: usize, width: usize) -> Self::Row;

    /// Vector `at` of a row.
    ///
    /// # Safety
    ///
    /// It ends within the `width` that [`row`](Self::row) was asked for.
    unsafe fn vector<S: Simd>(simd: S, row: Self::Row, at: usize) -> T::Vector<S>;

    /// Number `column` of a row.
    fn number(row: Self::Row, column: usize) -> T;
}

impl<'a, T: Real> ReadRows<T> for TensorRows<'a, T> {
    type Row = &'a [T];

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> &'a [T] {
        &self.data[row * self.step..][..width]
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(_: S, row: &'a [T], at: usize) -> T::Vector<S> {
        T::vectors::<S>(row)[at]
    }

    #[inline(always)]
    fn number(row: &'a [T], column: usize) -> T {
        row[column]
    }
}

/// Rows of bf16, the numbers of each side by side.
#[derive(Clone, Copy)]
pub(super) struct Bf16Rows<'a> {
    data: &'a [u16],
    step: usize,
}

impl<'a, T: Real> ReadRows<T> for Bf16Rows<'a> {
    type Row = &'a [u16];

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> &'a [u16] {
        &self.data[row * self.step..][..width]
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(_: S, row: &'a [u16], at: usize) -> T::Vector<S> {
        let mut lanes = [T::ZERO; MOST];
        for lane in 0..T::lanes::<S>() {
            // SAFETY: the caller's word; `row` has the width that it was asked for.
            let bits = unsafe { *row.get_unchecked(at * T::lanes::<S>() + lane) };
            lanes[lane] = T::of_f32(coding::of_bf16(bits));
        }
        T::vectors::<S>(&lanes)[0]
    }

    #[inline(always)]
    fn number(row: &'a [u16], column: usize) -> T {
        T::of_f32(coding::of_bf16(row[column]))
    }
}

/// Rows of Q8_0, with the scales of their blocks.
#[derive(Clone, Copy)]
pub(super) struct Q8Rows<'a, T> {
    data: &'a [u8],
    step: usize,
    /// `[rows][blocks]`
    scales: &'a [T],
    blocks: usize,
}

impl<'a, T: Real> ReadRows<T> for Q8Rows<'a, T> {
    type Row = (&'a [u8], &'a [T]);

    #[inline(always)]
    fn row(&self, row: usize, width: usize) -> Self::Row {
        let blocks = width.div_ceil(BLOCK);
        let bytes = &self.data[row * self.step..][..width + SCALE * blocks];
        (bytes, &self.scales[row * self.blocks..][..blocks])
    }

    #[inline(always)]
    unsafe fn vector<S: Simd>(simd: S, (bytes, scales): Self::Row, at: usize) -> T::Vector<S> {
        // The lanes of a vector divide a block, so that it lies in one.
        let first = at * T::lanes::<S>();
        let block = first / BLOCK;
        // SAFETY: the caller's word; `row` has given the bytes and the scales of that width.
        let (numbers, scale) = unsafe {
            (bytes.as_ptr().add(first + SCALE * (block + 1)), *scales.get_unchecked(block))
        };
        // SAFETY: the vector's bytes are among them.
        T::mul(simd, T::splat(simd, scale), unsafe { whole_numbers::<T, S>(numbers) })
    }

    #[inline(always)]
    fn number((bytes, scales): Self::Row, column: usize) -> T {
        let block = column / BLOCK;
        let mut number = T::of_f32(f32::from(bytes[column + SCALE * (block + 1)] as i8));
        number *= scales[block];
        number
    }
}

/// The most lanes of a vector.
const MOST: usize = 16;

/// A vector of signed bytes.
///
/// # Safety
///
/// As many bytes as it has lanes can be read.
#[inline(always)]
pub(super) unsafe fn whole_numbers<T: Real, S: Simd>(bytes: *const u8) -> T::Vector<S> {
    let mut lanes = [T::ZERO; MOST];
    for lane in 0..T::lanes::<S>() {
        // SAFETY: the caller's word.
        lanes[lane] = T::of_f32(f32::from(unsafe { *bytes.add(lane) } as i8));
    }
    T::vectors::<S>(&lanes)[0]
}

/// Rows in one of these forms.
#[derive(Clone, Copy)]
pub(super) enum AnyRows<'a, T> {
    Numbers(TensorRows<'a, T>),
    Bf16(Bf16Rows<'a>),
    Q8_0(Q8Rows<'a, T>),
}

impl<'a, T: Real> AnyRows<'a, T> {
    /// `count` rows from `at` on, for so many `readers`. `copy` has room for their numbers.
    #[inline(always)]
    pub(super) fn read<'b, S: Simd>(
        simd: S,
        source: &Source<'a, T>,
        at: [usize; 3],
        count: usize,
        width: usize,
        readers: usize,
        copy: &'b mut [T],
    ) -> AnyRows<'b, T>
    where
        'a: 'b,
    {
        match source {
            Source::Bf16(from) if readers < MANY_READERS && from.strides[3] == 1 => {
                AnyRows::Bf16(Bf16Rows { data: rows_from(from, at), step: from.strides[2] })
            }
            Source::Q8_0(from, _) if readers < MANY_READERS => {
                let (data, step) = (rows_from(from, at), from.strides[2]);
                let blocks = width.div_ceil(BLOCK);
                for row in 0..count {
                    for block in 0..blocks {
                        let scale = &data[row * step + block * (SCALE + BLOCK)..];
                        copy[row * blocks + block] = T::of_f32(coding::scale(scale));
                    }
                }
                AnyRows::Q8_0(Q8Rows { data, step, scales: copy, blocks })
            }
            _ => AnyRows::Numbers(TensorRows::read(simd, source, at, count, width, 1, copy)),
        }
    }

    #[inline(always)]
    pub(super) fn skip(self, rows: usize) -> Self {
        match self {
            Self::Numbers(numbers) => Self::Numbers(numbers.skip(rows)),
            Self::Bf16(Bf16Rows { data, step }) => {
                Self::Bf16(Bf16Rows { data: &data[rows * step..], step })
            }
            Self::Q8_0(Q8Rows { data, step, scales, blocks }) => Self::Q8_0(Q8Rows {
                data: &data[rows * step..],
                scales: &scales[rows * blocks..],
                step,
                blocks,
            }),
        }
    }

    /// Asks memory for `count` rows of this width from `first` on, whether they exist or not; not for
    /// numbers where caches find them by themselves.
    #[inline(always)]
    pub(super) fn prefetch(self, first: usize, count: usize, width: usize) {
        match self {
            Self::Numbers(_) if caches_read_ahead() => {}
            Self::Numbers(TensorRows { data, step }) => {
                for row in first..first + count {
                    prefetch(data.as_ptr().wrapping_add(row * step), width * size_of::<T>());
                }
            }
            Self::Bf16(Bf16Rows { data, step }) => {
                for row in first..first + count {
                    prefetch(data.as_ptr().wrapping_add(row * step), width * 2);
                }
            }
            Self::Q8_0(Q8Rows { data, step, blocks, .. }) => {
                for row in first..first + count {
                    prefetch(data.as_ptr().wrapping_add(row * step), blocks * (SCALE + BLOCK));
                }
            }
        }
    }

    /// See [`dots`].
    #[inline(always)]
    pub(super) fn dots<S: Simd>(self, simd: S, query: &[T], out: &mut [T]) {
        match self {
            Self::Numbers(rows) => dots(simd, query, rows, out),
            Self::Bf16(rows) => dots(simd, query, rows, out),
            Self::Q8_0(rows) => dots(simd, query, rows, out),
        }
    }

    /// See [`add_weighted`].
    #[inline(always)]
    pub(super) fn add_weighted<S: Simd, const M: usize>(
        self,
        simd: S,
        weights: [&[T]; M],
        skipped: KeySet,
        out: [&mut [T]; M],
    ) {
        match self {
            Self::Numbers(rows) => add_weighted(simd, weights, rows, skipped, out),
            Self::Bf16(rows) => add_weighted(simd, weights, rows, skipped, out),
            Self::Q8_0(rows) => add_weighted(simd, weights, rows, skipped, out),
        }
    }
}

#[inline(always)]
fn rows_from<'a, U>(from: &Strided<'a, U>, [batch, head, first]: [usize; 3]) -> &'a [U] {
    &from.data[offset(&from.strides, [batch, head, first, 0])..]
}
