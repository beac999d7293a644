//! Small matrix products on tiles: `C (+)= A B`.
//!
//! `B` and `C` are read in vectors along their rows, `A` one number at a time, so that `A` may layout
//! in memory by rows or by columns. A block of vectors of `C` stays in registers over the whole
//! depth: 6 x 2 of them hide the latency of the multiply-adds and leave registers for `B` and `A`
//! among the 16 that AVX2 has; AVX-512 and NEON have 32, and read `B` half as often with 12 x 2.

use pulp::{Simd, WithSimd};

use super::Real;

/// The left factor, broadcast number by number.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub(super) data: &'a [T],
    pub(super) layout: Layout,
}

/// How `A` lies in memory: one axis is contiguous, the other has this stride.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// `A[m][k]` is number `m * stride + k`.
    Rows(usize),
    /// `A[m][k]` is number `m + k * stride`.
    Columns(usize),
}

/// The right factor, row `k` at `k * step`, read in vectors.
#[derive(Clone, Copy)]
pub(super) struct Right<'a, T> {
    pub(super) data: &'a [T],
    pub(super) step: usize,
}

/// What the product is added to.
#[derive(Clone, Copy)]
pub(super) enum Accumulate<'a, T> {
    Zero,
    /// What stands in `C`.
    Itself,
    /// What stands in `C`, each column times its factor.
    Scaled(&'a [T]),
}

/// Rows of `C` in a block.
const fn most_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 12 } else { 6 }
}

/// `C = Accumulate + A B` for `C` of `rows` rows, `row` apart, and exactly `N` vectors wide.
pub(super) struct Product<'a, T, const N: usize> {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) left: Left<'a, T>,
    pub(super) right: Right<'a, T>,
    pub(super) out: &'a mut [T],
    pub(super) row: usize,
    pub(super) accumulate: Accumulate<'a, T>,
}

impl<T: Real, const N: usize> WithSimd for Product<'_, T, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // blocks as equal as can be: 64 rows are 9 of 6 and 2 of 5, not 10 of 6 and 1 of 4, whose
        // few sums would wait for each other
        let blocks = self.rows.div_ceil(most_rows::<S>()).max(1);
        let (low, longer) = (self.rows / blocks, self.rows % blocks);
        let mut first = 0;
        for block in 0..blocks {
            let rows = low + usize::from(block < longer);
            match rows {
                0 => {}
                1 => self.block::<S, 1>(simd, first),
                2 => self.block::<S, 2>(simd, first),
                3 => self.block::<S, 3>(simd, first),
                4 => self.block::<S, 4>(simd, first),
                5 => self.block::<S, 5>(simd, first),
                6 => self.block::<S, 6>(simd, first),
                _ if most_rows::<S>() > 6 => self.long_block(simd, first, rows),
                _ => unreachable!("a longer block"),
            }
            first += rows;
        }
    }
}

impl<T: Real, const N: usize> Product<'_, T, N> {
    #[inline(always)]
    fn long_block<S: Simd>(&mut self, simd: S, first: usize, rows: usize) {
        match rows {
            7 => self.block::<S, 7>(simd, first),
            8 => self.block::<S, 8>(simd, first),
            9 => self.block::<S, 9>(simd, first),
            10 => self.block::<S, 10>(simd, first),
            11 => self.block::<S, 11>(simd, first),
            _ => self.block::<S, 12>(simd, first),
        }
    }

    #[inline(always)]
    fn block<S: Simd, const R: usize>(&mut self, simd: S, first: usize) {
        let mut sums = [[T::splat(simd, T::ZERO); N]; R];
        let out = &mut self.out[first * self.row..];
        match self.accumulate {
            Accumulate::Zero => {}
            Accumulate::Itself => {
                for (m, sums) in sums.iter_mut().enumerate() {
                    sums.copy_from_slice(&T::vectors::<S>(&out[m * self.row..])[..N]);
                }
            }
            Accumulate::Scaled(factors) => {
                let factors = &T::vectors::<S>(factors)[..N];
                for (m, sums) in sums.iter_mut().enumerate() {
                    let row = &T::vectors::<S>(&out[m * self.row..])[..N];
                    for n in 0..N {
                        sums[n] = T::mul(simd, row[n], factors[n]);
                    }
                }
            }
        }
        let skip = match self.left.layout {
            Layout::Rows(row) => first * row,
            Layout::Columns(_) => first,
        };
        let left = Left { data: &self.left.data[skip..], ..self.left };
        let sums = accumulate(simd, self.depth, left, self.right, sums);
        for (m, sums) in sums.iter().enumerate() {
            T::vectors_mut::<S>(&mut out[m * self.row..])[..N].copy_from_slice(sums);
        }
    }
}

/// `sums += A B` for the first `R` rows of `A` and the first `N` vectors of `B`'s rows.
#[inline(always)]
fn accumulate<T: Real, S: Simd, const R: usize, const N: usize>(
    simd: S,
    depth: usize,
    left: Left<T>,
    right: Right<T>,
    mut sums: [[T::Vector<S>; N]; R],
) -> [[T::Vector<S>; N]; R] {
    if depth == 0 {
        return sums;
    }
    let (row, step) = match left.layout {
        Layout::Rows(row) => (row, 1),
        Layout::Columns(step) => (1, step),
    };
    assert!((R - 1) * row + (depth - 1) * step < left.data.len());
    assert!((depth - 1) * right.step + N * T::lanes::<S>() <= right.data.len());
    let (mut a, mut b) = (left.data.as_ptr(), right.data.as_ptr());
    // SAFETY: in step `k` the vectors end at `k * right.step + N * lanes` of `right.data`, and the
    // numbers layout at `m * row + k * step` of `left.data` with `m < R`; both are largest in the last
    // step, for which the assertions above have compared them with the lengths. A vector is plain
    // data and is read unaligned. The pointers may run past the end after the last step, hence
    // `wrapping_add`; they are not read there.
    unsafe {
        match left.layout {
            Layout::Rows(row) => {
                // One pointer for three rows: the machine multiplies by 1 and 2 on the way. Opaque,
                // or the compiler makes one pointer of them and computes twelve in each step.
                let third = |i: usize| std::hint::black_box(a.wrapping_add(3 * i * row));
                let mut thirds: [_; 4] = std::array::from_fn(third);
                for _ in 0..depth / 4 {
                    for k in 0..4 {
                        let numbers = |m: usize| thirds[m / 3].wrapping_add(m % 3 * row + k);
                        multiply_add(simd, numbers, b, &mut sums);
                        b = b.wrapping_add(right.step);
                    }
                    thirds = thirds.map(|a| a.wrapping_add(4));
                }
                for _ in 0..depth % 4 {
                    multiply_add(simd, |m| thirds[m / 3].wrapping_add(m % 3 * row), b, &mut sums);
                    thirds = thirds.map(|a| a.wrapping_add(1));
                    b = b.wrapping_add(right.step);
                }
            }
            Layout::Columns(step) => {
                for _ in 0..depth / 2 {
                    for _ in 0..2 {
                        multiply_add(simd, |m| a.wrapping_add(m), b, &mut sums);
                        a = a.wrapping_add(step);
                        b = b.wrapping_add(right.step);
                    }
                }
                if depth % 2 == 1 {
                    multiply_add(simd, |m| a.wrapping_add(m), b, &mut sums);
                }
            }
        }
    }
    sums
}

/// `sums[m][n] += number m * vector n of row`.
///
/// # Safety
///
/// `number(m)` for `m < R` and `N` vectors from `row` on can be read.
#[inline(always)]
unsafe fn multiply_add<T: Real, S: Simd, const R: usize, const N: usize>(
    simd: S,
    number: impl Fn(usize) -> *const T,
    row: *const T,
    sums: &mut [[T::Vector<S>; N]; R],
) {
    let mut vectors = [T::splat(simd, T::ZERO); N];
    for (n, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: the caller's word; a vector is plain data of this many lanes.
        *vector = unsafe { row.add(n * T::lanes::<S>()).cast::<T::Vector<S>>().read_unaligned() };
    }
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's word.
        let factor = T::splat(simd, unsafe { *number(m) });
        for n in 0..N {
            sums[n] = T::mul_add(simd, factor, vectors[n], sums[n]);
        }
    }
}
