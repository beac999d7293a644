//! What a matrix unit keeps: it can't be looked into, but through shared memory.

use cubecl::prelude::*;

use super::super::{COLUMNS, OWN, Quad};
use super::layout::{EDGE, Four, Fragments, OWN_QUADS, Own, PLANE, SCORES, WEIGHTS, WIDE};
use super::staging::{is_odd, load_four};

#[cube]
pub fn no_sum() -> cmma::Matrix<f32> {
    cmma::Matrix::<f32>::from_value(
        cmma::MatrixIdent::Accumulator,
        EDGE,
        EDGE,
        EDGE,
        cmma::MatrixLayout::Undefined,
        0.0f32,
    )
}

/// Sums of 0.
#[cube]
pub fn no_sums(#[comptime] chunks: usize) -> Fragments<f32> {
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _n in 0..comptime!(chunks * COLUMNS / EDGE) {
        sums.push(no_sum());
    }
    sums
}

/// Leaves a matrix of a plane's rows in its columns `n * 16` and following of `scores`.
#[cube]
pub fn store(sum: &cmma::Matrix<f32>, scores: &mut Shared<[Quad]>, #[comptime] n: usize) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let at = plane * comptime!(EDGE * SCORES) + comptime!(n * EDGE / OWN);
    let end = at + comptime!((EDGE - 1) * SCORES + EDGE / OWN);
    cmma::store(
        &mut scores[at..end],
        sum,
        comptime!((SCORES * OWN) as u32).runtime(),
        cmma::MatrixLayout::RowMajor,
    );
}

/// Parts of 64 columns of sums.
pub fn parts(chunks: usize) -> usize {
    (chunks * COLUMNS).div_ceil(WIDE)
}

/// Matrices of a part.
fn of_part(part: usize, chunks: usize) -> usize {
    (chunks * COLUMNS / EDGE - part * WIDE / EDGE).min(WIDE / EDGE)
}

/// Leaves sums of 64 columns, part `part` of them, in a plane's rows of `scores`, where its units may
/// look at them. All units of the plane call it.
#[cube]
pub fn show_sums(
    sums: &Fragments<f32>,
    scores: &mut Shared<[Quad]>,
    #[comptime] part: usize,
    #[comptime] chunks: usize,
) {
    sync_plane();
    #[unroll]
    for n in 0..comptime!(of_part(part, chunks)) {
        store(sums.index(comptime!(part * WIDE / EDGE + n)), scores, n);
    }
    sync_plane();
}

/// Takes sums back that [`show_sums`] showed.
#[cube]
pub fn take_sums(
    sums: &mut Fragments<f32>,
    scores: &Shared<[Quad]>,
    #[comptime] part: usize,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    sync_plane();
    #[unroll]
    for n in 0..comptime!(of_part(part, chunks)) {
        let at = plane * comptime!(EDGE * SCORES) + comptime!(n * EDGE / OWN);
        let end = at + comptime!((EDGE - 1) * SCORES + EDGE / OWN);
        cmma::load_with_layout(
            sums.index_mut(comptime!(part * WIDE / EDGE + n)),
            &scores[at..end],
            comptime!((SCORES * OWN) as u32).runtime(),
            cmma::MatrixLayout::RowMajor,
        );
    }
}

/// Multiplies every row of a plane's sums by its factor.
#[cube]
pub fn scale_sums(
    sums: &mut Fragments<f32>,
    factor: f32,
    scores: &mut Shared<[Quad]>,
    own: Own,
    #[comptime] chunks: usize,
) {
    #[unroll]
    for part in 0..comptime!(parts(chunks)) {
        show_sums(&*sums, scores, part, chunks);
        for j in 0..comptime!(OWN_QUADS) {
            scores[own.scores + j] *= Quad::new(factor);
        }
        take_sums(sums, &*scores, part, chunks);
    }
}

/// Adds to a plane's sums what [`clear_odd`] has left out of tile `h`: of `b`'s rows from `first` on,
/// those that the `word` of this unit's row names, times its weights.
#[cube]
pub fn add_odd<F: Float, N: Size>(
    b: &Tensor<Vector<F, N>>,
    base: usize,
    first: usize,
    limit: usize,
    word: u32,
    weights: &Shared<[Four<F>]>,
    sums: &mut Fragments<f32>,
    scores: &mut Shared<[Quad]>,
    own: Own,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    #[unroll]
    for part in 0..comptime!(parts(chunks)) {
        show_sums(&*sums, scores, part, chunks);
        for quad in 0..comptime!(COLUMNS / OWN) {
            let of_row =
                weights[own.row * comptime!(WEIGHTS) + comptime!(h * COLUMNS / OWN) + quad];
            #[unroll]
            for i in 0..OWN {
                let j = quad * OWN + i;
                if (word >> (j as u32)) & 1u32 == 1u32 && first + j < limit {
                    let weight = f32::cast_from(of_row.extract(i));
                    for n in 0..comptime!(OWN_QUADS) {
                        let column = comptime!(part * WIDE) + own.half * COLUMNS + n * OWN;
                        let at = base + (first + j) * b.stride(2) + column * b.stride(3);
                        let four = load_four::<F, N>(b, at, column);
                        let mut sum = scores[own.scores + n];
                        #[unroll]
                        for k in 0..OWN {
                            let x = f32::cast_from(four.extract(k));
                            if is_odd(x) {
                                sum.insert(k, sum.extract(k) + weight * x);
                            }
                        }
                        scores[own.scores + n] = sum;
                    }
                }
            }
        }
        take_sums(sums, &*scores, part, chunks);
    }
}

/// Writes a plane's sums, each row times its factor.
#[cube]
pub fn write<F: Float>(
    sums: &Fragments<f32>,
    factor: f32,
    scores: &mut Shared<[Quad]>,
    to: &mut Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    own: Own,
    #[comptime] chunks: usize,
) {
    #[unroll]
    for part in 0..comptime!(parts(chunks)) {
        show_sums(sums, scores, part, chunks);
        if first + own.row < limit {
            let at = base + (first + own.row) * to.stride(2);
            for n in 0..comptime!(OWN_QUADS) {
                let quad = scores[own.scores + n] * Quad::new(factor);
                #[unroll]
                for k in 0..OWN {
                    let column = comptime!(part * WIDE) + own.half * COLUMNS + n * OWN + k;
                    if column < to.shape(3) {
                        let to_at = at + column * to.stride(3);
                        to[to_at] = F::cast_from(quad.extract(k));
                    }
                }
            }
        }
    }
}
