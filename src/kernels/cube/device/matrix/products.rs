//! The two products, of a plane's rows with staged tiles.

use cubecl::prelude::*;

use super::super::{COLUMNS, OWN, Quad};
use super::layout::{EDGE, Four, Fragments, PLANE, WEIGHTS, WIDE, input_row};
use super::sums::{no_sum, store};

/// The matrices of a plane's 16 rows of what [`stage`] left, over all its columns.
#[cube]
pub fn load_rows<F: Float>(from: &Shared<[Four<F>]>, #[comptime] chunks: usize) -> Fragments<F> {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let row_length = comptime!(input_row(chunks));
    let mut rows = Sequence::<cmma::Matrix<F>>::new();
    #[unroll]
    for k in 0..comptime!(chunks * COLUMNS / EDGE) {
        let at = plane * comptime!(EDGE * row_length) + comptime!(k * EDGE / OWN);
        rows.push(rows_of::<F>(from, at, row_length));
    }
    rows
}

/// A matrix of 16 rows and 16 columns that begins at a place, where a row takes so many places.
#[cube]
fn rows_of<F: Float>(
    from: &Shared<[Four<F>]>,
    at: usize,
    #[comptime] row_length: usize,
) -> cmma::Matrix<F> {
    // SAFETY: the next lines load it, before it is used.
    let mut rows = unsafe {
        cmma::Matrix::<F>::uninitialized(
            cmma::MatrixIdent::A,
            EDGE,
            EDGE,
            EDGE,
            cmma::MatrixLayout::RowMajor,
        )
    };
    let end = at + comptime!((EDGE - 1) * row_length + EDGE / OWN);
    cmma::load(&mut rows, &from[at..end], comptime!((row_length * OWN) as u32).runtime());
    rows
}

/// The second operand of a product, from the place `at` on: its rows are those of shared memory, or,
/// `by_column`, its columns.
#[cube]
fn second_of<F: Float>(
    from: &Shared<[Four<F>]>,
    #[comptime] at: usize,
    #[comptime] row_length: usize,
    #[comptime] by_column: bool,
) -> cmma::Matrix<F> {
    let layout = comptime!(match by_column {
        true => cmma::MatrixLayout::ColMajor,
        false => cmma::MatrixLayout::RowMajor,
    });
    // SAFETY: the next lines load it, before it is used.
    let mut matrix =
        unsafe { cmma::Matrix::<F>::uninitialized(cmma::MatrixIdent::B, EDGE, EDGE, EDGE, layout) };
    let end = comptime!(at + (EDGE - 1) * row_length + EDGE / OWN);
    cmma::load(&mut matrix, &from[at..end], comptime!((row_length * OWN) as u32).runtime());
    matrix
}

/// Leaves the dot products of a plane's rows with the rows of staged tiles in its rows of `scores`.
#[cube]
pub fn dots<F: Float>(
    rows: &Fragments<F>,
    staged: &Shared<[Four<F>]>,
    scores: &mut Shared<[Quad]>,
    #[comptime] chunks: usize,
) {
    let row_length = comptime!(input_row(chunks));
    #[unroll]
    for n in 0..comptime!(WIDE / EDGE) {
        let sum = no_sum();
        #[unroll]
        for k in 0..comptime!(chunks * COLUMNS / EDGE) {
            let at = comptime!(n * EDGE * row_length + k * EDGE / OWN);
            let column = second_of::<F>(staged, at, row_length, true);
            cmma::execute::<F, F, f32, f32, cmma::Plane>(rows.index(k), &column, &sum, &sum);
        }
        store(&sum, scores, n);
    }
}

/// Adds to a plane's sums the products of its rows of `weights` with staged tiles.
#[cube]
pub fn add_weighted<F: Float>(
    weights: &Shared<[Four<F>]>,
    staged: &Shared<[Four<F>]>,
    sums: &Fragments<f32>,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let row_length = comptime!(input_row(chunks));
    #[unroll]
    for k in 0..comptime!(WIDE / EDGE) {
        let at = plane * comptime!(EDGE * WEIGHTS) + comptime!(k * EDGE / OWN);
        let own = rows_of::<F>(weights, at, WEIGHTS);
        #[unroll]
        for n in 0..comptime!(chunks * COLUMNS / EDGE) {
            let at = comptime!(k * EDGE * row_length + n * EDGE / OWN);
            let row = second_of::<F>(staged, at, row_length, false);
            cmma::execute::<F, F, f32, f32, cmma::Plane>(&own, &row, sums.index(n), sums.index(n));
        }
    }
}
