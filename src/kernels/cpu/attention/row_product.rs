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

/// `out += Σ weights[i] rows[i]` for each of `M` queries, which read every row together; of one query
/// over the rows that are not in `skipped`, which is empty for more.
#[inline(always)]
pub(super) fn add_weighted<T: Real, S: Simd, R: ReadRows<T>, const M: usize>(
    simd: S,
    weights: [&[T]; M],
    rows: R,
    skipped: KeySet,
    mut out: [&mut [T]; M],
) {
    let width = out[0].len();
    let vectors = width / T::lanes::<S>();
    let (fours, pairs) = (vectors / 4 * 4, vectors / 2 * 2);
    for at in (0..fours).step_by(4) {
        add_columns::<T, S, R, M, 4>(simd, weights, rows, skipped, &mut out, at);
    }
    for at in (fours..pairs).step_by(2) {
        add_columns::<T, S, R, M, 2>(simd, weights, rows, skipped, &mut out, at);
    }
    for at in pairs..vectors {
        add_columns::<T, S, R, M, 1>(simd, weights, rows, skipped, &mut out, at);
    }
    for (weights, out) in weights.into_iter().zip(out) {
        for (at, out) in out.iter_mut().enumerate().skip(vectors * T::lanes::<S>()) {
            for (row, &weight) in weights.iter().enumerate() {
                if skipped >> row & 1 == 0 {
                    let mut part = weight;
                    part *= R::number(rows.row(row, width), at);
                    *out += part;
                }
            }
        }
    }
}

/// The same for `N` vectors, from vector `at` of the rows on; their sums stay in registers.
#[inline(always)]
fn add_columns<T: Real, S: Simd, R: ReadRows<T>, const M: usize, const N: usize>(
    simd: S,
    weights: [&[T]; M],
    rows: R,
    skipped: KeySet,
    out: &mut [&mut [T]; M],
    at: usize,
) {
    let count = weights[0].len();
    let mut of_queries = weights;
    for m in 0..M {
        of_queries[m] = &weights[m][..count];
    }
    // Of one query the sums of even and of odd rows, so that none waits for the one before.
    let abreast = if M == 1 { 2 } else { 1 };
    let mut sums = [[[T::splat(simd, T::ZERO); N]; M]; 2];
    for first in (0..count).step_by(abreast) {
        for (part, sums) in sums.iter_mut().enumerate().take(abreast) {
            let row = first + part;
            if row < count && skipped >> row & 1 == 0 {
                let values = rows.row(row, (at + N) * T::lanes::<S>());
                let mut vectors = [T::splat(simd, T::ZERO); N];
                for (i, vector) in vectors.iter_mut().enumerate() {
                    // SAFETY: the row is asked for as wide as that.
                    *vector = unsafe { R::vector(simd, values, at + i) };
                }
                for m in 0..M {
                    let weight = T::splat(simd, of_queries[m][row]);
                    for i in 0..N {
                        sums[m][i] = T::mul_add(simd, weight, vectors[i], sums[m][i]);
                    }
                }
            }
        }
    }
    for m in 0..M {
        let out = &mut T::vectors_mut::<S>(out[m])[at..at + N];
        for i in 0..N {
            let sum = match abreast {
                2 => T::add(simd, sums[0][m][i], sums[1][m][i]),
                _ => sums[0][m][i],
            };
            out[i] = T::add(simd, out[i], sum);
        }
    }
}
