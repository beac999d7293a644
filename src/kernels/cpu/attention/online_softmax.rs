//! The online softmax of a panel of queries: what was summed up over the tiles so far.

use pulp::Simd;

use super::Real;
use super::real::exp2;

/// What a panel carries from one tile of keys to the next.
pub(super) struct OnlineSoftmax<'a, T> {
    /// `[head_dim][width]`
    pub(super) query: &'a mut [T],
    /// `[value_dim][width]`
    pub(super) out: &'a mut [T],
    /// `[width]`
    pub(super) max: &'a mut [T],
    /// `[width]`
    pub(super) sum: &'a mut [T],
    pub(super) width: usize,
}

/// Scores to weights relative to the new maximum; the sum follows; `rescale` is what older weights
/// are multiplied by.
#[inline(always)]
pub(super) fn update<T: Real, S: Simd, const N: usize>(
    simd: S,
    factor: T,
    scores: &mut [T],
    state: &mut OnlineSoftmax<T>,
    rescale: &mut [T],
) {
    let scores = T::vectors_mut::<S>(scores);
    let max = &mut T::vectors_mut::<S>(state.max)[..N];
    let sum = &mut T::vectors_mut::<S>(state.sum)[..N];
    let rescale = &mut T::vectors_mut::<S>(rescale)[..N];
    let factor = T::splat(simd, factor);
    let mut most = [T::splat(simd, T::NEG_INFINITY); N];
    most.copy_from_slice(max);
    for row in scores.chunks_exact(N) {
        for n in 0..N {
            most[n] = T::max(simd, row[n], most[n]);
        }
    }
    // A row that has seen nothing yet has no maximum to subtract.
    let mut base = most;
    for n in 0..N {
        let zero = T::splat(simd, T::ZERO);
        base[n] = T::if_less(simd, most[n], T::splat(simd, T::LEAST), zero, most[n]);
        rescale[n] = exp2::<T, S>(simd, T::mul(simd, T::sub(simd, max[n], base[n]), factor));
        max[n] = most[n];
    }
    let mut total = [T::splat(simd, T::ZERO); N];
    for row in scores.chunks_exact_mut(N) {
        for n in 0..N {
            let weight = exp2::<T, S>(simd, T::mul(simd, T::sub(simd, row[n], base[n]), factor));
            total[n] = T::add(simd, total[n], weight);
            row[n] = weight;
        }
    }
    for n in 0..N {
        sum[n] = T::mul_add(simd, sum[n], rescale[n], total[n]);
    }
}
