//! Rows of queries, keys and values as they lie in memory: in the numbers that the kernel computes
//! in, or in fewer bits, which it reads a tile at a time.

use pulp::Simd;

use super::Real;
use super::read_rows::whole_numbers;
use super::strided::{Strided, offset};
use crate::kernels::coding::{self, BLOCK, Coding, SCALE};

/// `[batch, heads, rows, width]`
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a, T> {
    Real(Strided<'a, T>),
    Bf16(Strided<'a, u16>),
    F16(Strided<'a, u16>),
    /// Bytes, of rows of so many numbers.
    Q8_0(Strided<'a, u8>, usize),
}

impl<'a, T: Real> Source<'a, T> {
    /// Codes of two bytes.
    ///
    /// # Panics
    ///
    /// If there are none in this coding.
    pub(super) fn halves(coding: Coding, bits: Strided<'a, u16>) -> Self {
        match coding {
            Coding::Bf16 => Self::Bf16(bits),
            Coding::F16 => Self::F16(bits),
            Coding::Q8_0 => panic!("codes of two bytes: expected bf16 or f16, got Q8_0"),
        }
    }

    /// Rows of Q8_0, of `width` numbers each.
    ///
    /// # Panics
    ///
    /// If the bytes of a row are of another number or stand apart.
    pub(super) fn q8_0(bytes: Strided<'a, u8>, width: usize) -> Self {
        let [.., row_len] = bytes.shape;
        assert_eq!(row_len, Coding::Q8_0.row_len(width), "bytes of a row of {width} numbers");
        assert!(bytes.strides[3] == 1 || row_len <= 1, "bytes of a row side by side");
        Self::Q8_0(bytes, width)
    }

    /// # Panics
    ///
    /// If it stands in fewer bits.
    pub(super) fn real(&self) -> &Strided<'a, T> {
        match self {
            Self::Real(strided) => strided,
            other => panic!("expected numbers as the kernel computes in them, got {other:?}"),
        }
    }

    /// `count` rows from `[batch, head, first]` on, each followed by zeros to the width of `padded`.
    #[inline(always)]
    pub(super) fn copy_rows<S: Simd>(
        &self,
        simd: S,
        [batch, head, first]: [usize; 3],
        count: usize,
        padded: usize,
        to: &mut [T],
    ) {
        if padded == 0 {
            return;
        }
        let rows = to.chunks_exact_mut(padded).take(count).enumerate();
        match self {
            Self::Real(from) => {
                for (row, to) in rows {
                    from.row([batch, head, first + row]).copy_to(from.shape[3], to, T::ONE);
                }
            }
            Self::Bf16(from) => {
                for (row, to) in rows {
                    halves(from, [batch, head, first + row], to, coding::of_bf16);
                }
            }
            Self::F16(from) => {
                for (row, to) in rows {
                    halves(from, [batch, head, first + row], to, coding::of_f16);
                }
            }
            Self::Q8_0(from, width) => {
                for (row, to) in rows {
                    let at = offset(&from.strides, [batch, head, first + row, 0]);
                    let (used, rest) = to.split_at_mut(*width);
                    q8_0(simd, &from.data[at..][..from.shape[3]], used);
                    rest.fill(T::ZERO);
                }
            }
        }
    }
}

#[inline(always)]
fn halves<T: Real>(
    from: &Strided<u16>,
    [batch, head, row]: [usize; 3],
    to: &mut [T],
    number: impl Fn(u16) -> f32,
) {
    let [.., width] = from.shape;
    let [.., step] = from.strides;
    let at = offset(&from.strides, [batch, head, row, 0]);
    let (used, rest) = to.split_at_mut(width);
    if step == 1 {
        let from = &from.data[at..][..width];
        for column in 0..width {
            used[column] = T::of_f32(number(from[column]));
        }
    } else {
        for (column, to) in used.iter_mut().enumerate() {
            *to = T::of_f32(number(from.data[at + column * step]));
        }
    }
    rest.fill(T::ZERO);
}

/// A row of blocks.
#[inline(always)]
fn q8_0<T: Real, S: Simd>(simd: S, bytes: &[u8], to: &mut [T]) {
    let (whole, last) = to.as_chunks_mut::<BLOCK>();
    let (blocks, last_block) = bytes.as_chunks::<{ SCALE + BLOCK }>();
    for (to, block) in whole.iter_mut().zip(blocks) {
        let scale = T::splat(simd, T::of_f32(coding::scale(block)));
        // The lanes of a vector divide a block.
        for (at, to) in T::vectors_mut::<S>(to).iter_mut().enumerate() {
            let first = SCALE + at * T::lanes::<S>();
            // SAFETY: the vectors of `to` have a block's numbers in all.
            let numbers = unsafe { whole_numbers::<T, S>(block.as_ptr().add(first)) };
            *to = T::mul(simd, scale, numbers);
        }
    }
    if !last.is_empty() {
        let scale = T::of_f32(coding::scale(last_block));
        for (to, &q) in last.iter_mut().zip(&last_block[SCALE..]) {
            *to = T::of_f32(f32::from(q as i8));
            *to *= scale;
        }
    }
}
