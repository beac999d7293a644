//! Products of a single row, a query or its weights, with many rows of keys or values.
//!
//! Functions here are loops without closures that go through the standard library: those would be
//! compiled without the vector instructions.

use pulp::Simd;

use super::Real;
use super::panel::KeySet;
use super::read_rows::ReadRows;

/// Rows that are worked on side by side, so that none waits for another's sum.
const ABREAST: usize = 4;

/// The dot product of a query with each of the first rows.
#[inline(always)]
pub(super) fn dots<T: Real, S: Simd, R: ReadRows<T>>(simd: S, query: &[T], rows: R, out: &mut [T]) {
    let (several, rest) = out.as_chunks_mut::<ABREAST>();
    let whole = several.len() * ABREAST;
    for (group, out) in several.iter_mut().enumerate() {
        *out = dots_abreast(simd, query, rows, group * ABREAST);
    }
    for (row, out) in rest.iter_mut().enumerate() {
        [*out] = dots_abreast(simd, query, rows, whole + row);
    }
}

#[inline(always)]
fn dots_abreast<T: Real, S: Simd, R: ReadRows<T>, const N: usize>(
    simd: S,
    query: &[T],
    rows: R,
    first: usize,
) -> [T; N] {
    let vectors = T::vectors::<S>(query);
    let rest = vectors.len() * T::lanes::<S>();
    let mut sums = [T::splat(simd, T::ZERO); N];
    let mut beginnings = [rows.row(first, rest); N];
    for (i, beginning) in beginnings.iter_mut().enumerate() {
        *beginning = rows.row(first + i, rest);
    }
    for (at, &query) in vectors.iter().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `rest` is the width of all `vectors`.
            let row = unsafe { R::vector(simd, beginnings[i], at) };
            *sum = T::mul_add(simd, query, row, *sum);
        }
    }
    let mut dots = [T::ZERO; N];
    for i in 0..N {
        dots[i] = T::sum(simd, sums[i]);
        for at in rest..query.len() {
            let mut part = query[at];
            part *= R::number(rows.row(first + i, query.len()), at);
            dots[i] += part;
        }
    }
    dots
}

/// `out += Σ weights[i] rows[i]` over the rows that are not in `skipped`.
#[inline(always)]
pub(super) fn add_weighted<T: Real, S: Simd, R: ReadRows<T>>(
    simd: S,
    weights: &[T],
    rows: R,
    skipped: KeySet,
    out: &mut [T],
) {
    let width = out.len();
    let rest = width / T::lanes::<S>() * T::lanes::<S>();
    let vectors = T::vectors_mut::<S>(out);
    let (fours, pairs) = (vectors.len() / 4 * 4, vectors.len() / 2 * 2);
    for at in (0..fours).step_by(4) {
        add_columns::<T, S, R, 4>(simd, weights, rows, skipped, &mut vectors[at..at + 4], at);
    }
    for at in (fours..pairs).step_by(2) {
        add_columns::<T, S, R, 2>(simd, weights, rows, skipped, &mut vectors[at..at + 2], at);
    }
    for at in pairs..vectors.len() {
        add_columns::<T, S, R, 1>(simd, weights, rows, skipped, &mut vectors[at..at + 1], at);
    }
    for (at, out) in out.iter_mut().enumerate().skip(rest) {
        for (row, &weight) in weights.iter().enumerate() {
            if skipped >> row & 1 == 0 {
                let mut part = weight;
                part *= R::number(rows.row(row, width), at);
                *out += part;
            }
        }
    }
}

/// The same for `N` vectors, from vector `at` of the rows on; their sums stay in registers.
#[inline(always)]
fn add_columns<T: Real, S: Simd, R: ReadRows<T>, const N: usize>(
    simd: S,
    weights: &[T],
    rows: R,
    skipped: KeySet,
    out: &mut [T::Vector<S>],
    at: usize,
) {
    // Of even and of odd rows, so that none waits for the one before.
    let mut sums = [[T::splat(simd, T::ZERO); N]; 2];
    for first in (0..weights.len()).step_by(2) {
        for (odd, sums) in sums.iter_mut().enumerate() {
            let row = first + odd;
            if row < weights.len() && skipped >> row & 1 == 0 {
                let weight = T::splat(simd, weights[row]);
                let row = rows.row(row, (at + N) * T::lanes::<S>());
                for (i, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the row is asked for as wide as that.
                    let vector = unsafe { R::vector(simd, row, at + i) };
                    *sum = T::mul_add(simd, weight, vector, *sum);
                }
            }
        }
    }
    for i in 0..N {
        out[i] = T::add(simd, out[i], T::add(simd, sums[0][i], sums[1][i]));
    }
}
