//! The same two products by the matrix units (tensor cores) of a card, for f16 and bf16: products of
//! 16 x 16 x 16, summed in f32.
//!
//! A cube of four planes holds a panel of 64 rows, a plane 16 of them, and walks over the same tiles of
//! 32 columns. What a matrix unit keeps can't be looked into, so that scores go through shared memory,
//! where two units share a row: unit `n` of a plane has row `n % 16` and every column of the first or the
//! second half. Weights go back through shared memory as f16 or bf16.
//!
//! A matrix unit multiplies hidden cells, too: their weights are 0, and what they are multiplied with
//! must be a number. Where a tile hides anything, values that are no numbers are left out of the
//! product ([`clear_odd`]), and added to the rows that see them one by one.

use cubecl::prelude::*;

use super::COLUMNS;

/// Rows, columns and depth of one product.
pub const EDGE: usize = 16;
/// Rows of a panel.
pub const ROWS: usize = PLANES * EDGE;
/// Planes of a cube, and units of a plane.
pub const PLANES: usize = 4;
pub const PLANE: usize = 32;
/// Units of a cube.
pub const UNITS: usize = PLANES * PLANE;
/// What is added to the length of a row in shared memory, so that neighbouring rows stand in different
/// banks: 16 bytes.
const PAD: usize = 8;
const PAD_F32: usize = 4;

/// The matrices of a plane's rows.
pub type Fragments<C> = Sequence<cmma::Matrix<C>>;

/// Tiles that are taken at once, and their columns.
pub const TILES: usize = 2;
pub const WIDE: usize = TILES * COLUMNS;
/// Columns of a row that a unit has.
pub const OWN: usize = WIDE / 2;
/// Lengths of a row of scores and of weights.
pub const SCORES: usize = WIDE + PAD_F32;
pub const WEIGHTS: usize = WIDE + PAD;

/// Length of a row of an input whose width is so many chunks of 32.
pub fn input_row(chunks: usize) -> usize {
    chunks * COLUMNS + PAD
}

/// Numbers of shared memory that a tile takes.
pub fn tile(chunks: usize) -> usize {
    WIDE * input_row(chunks)
}

/// Bytes of shared memory for so many staged tiles, scores, weights and some numbers a row.
pub fn bytes(chunks: usize, tiles: usize) -> usize {
    2 * tiles * tile(chunks) + ROWS * (4 * SCORES + 2 * WEIGHTS) + (2 << 10)
}

/// What a unit has of the scores.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Own {
    /// Its row of the panel.
    pub row: usize,
    /// Its half of the columns: its tile.
    pub half: usize,
    /// The column that it begins with, so that neighbours read from different banks.
    pub turn: usize,
}

/// What this unit has.
#[cube]
pub fn own() -> Own {
    let unit = UNIT_POS as usize;
    let plane = unit / comptime!(PLANE);
    let row = unit % comptime!(EDGE);
    let half = unit % comptime!(PLANE) / comptime!(EDGE);
    Own { row: plane * comptime!(EDGE) + row, half, turn: row / 8 + 2 * half }
}

/// The `n`-th column of its tile that a unit looks at.
#[cube]
pub fn own_column(own: Own, #[comptime] n: usize) -> usize {
    (n + own.turn) % comptime!(COLUMNS)
}

/// Whether a number is infinite or none.
#[cube]
pub fn is_odd(x: f32) -> bool {
    u32::reinterpret(x) & 0x7f80_0000u32 == 0x7f80_0000u32
}

/// Copies 32 rows of a tensor, `first` and those after it, to shared memory, as tile `h`. What lies
/// outside of the tensor is 0. Where `watches`, the flag is set if some are no numbers.
#[cube]
pub fn stage<F: Float>(
    from: &Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    to: &mut Shared<[F]>,
    watches: bool,
    flag: &mut Shared<[u32]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let width = comptime!(chunks * COLUMNS);
    let row_length = comptime!(input_row(chunks));
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    let columns = from.shape(3);
    // Neighbouring units take neighbouring columns, four rows at once.
    let mut cell = UNIT_POS as usize;
    while cell < comptime!(COLUMNS * width) {
        #[unroll]
        for n in 0..4usize {
            let at = cell + comptime!(n * UNITS);
            let row = at / width;
            let column = at % width;
            let mut x = F::from_int(0);
            if first + row < limit && column < columns {
                x = from[base + (first + row) * row_stride + column * column_stride];
            }
            if watches && is_odd(f32::cast_from(x)) {
                flag[0] = 1u32;
            }
            to[(comptime!(h * COLUMNS) + row) * row_length + column] = x;
        }
        cell += comptime!(4 * UNITS);
    }
}

/// Sets what is no number in tile `h` to 0.
#[cube]
pub fn clear_odd<F: Float>(
    tile: &mut Shared<[F]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let length = comptime!(COLUMNS * input_row(chunks));
    let mut cell = UNIT_POS as usize;
    while cell < length {
        if is_odd(f32::cast_from(tile[comptime!(h * length) + cell])) {
            tile[comptime!(h * length) + cell] = F::from_int(0);
        }
        cell += comptime!(UNITS);
    }
}

/// The matrices of a plane's 16 rows of what [`stage`] left, over all its columns.
#[cube]
pub fn load_rows<F: Float>(from: &Shared<[F]>, #[comptime] chunks: usize) -> Fragments<F> {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let row_length = comptime!(input_row(chunks));
    let mut rows = Sequence::<cmma::Matrix<F>>::new();
    #[unroll]
    for k in 0..comptime!(chunks * COLUMNS / EDGE) {
        let at = plane * comptime!(EDGE * row_length) + comptime!(k * EDGE);
        rows.push(cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            EDGE,
            EDGE,
            EDGE,
            cmma::MatrixLayout::RowMajor,
            &from[at..at + comptime!((EDGE - 1) * row_length + EDGE)],
            comptime!(row_length as u32).runtime(),
        ));
    }
    rows
}

/// Sums of 0.
#[cube]
pub fn no_sums(#[comptime] chunks: usize) -> Fragments<f32> {
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _n in 0..comptime!(chunks * COLUMNS / EDGE) {
        sums.push(cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            EDGE,
            EDGE,
            EDGE,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    sums
}

/// Leaves the dot products of a plane's rows with the rows of a staged tile in its rows of `scores`.
#[cube]
pub fn dots<F: Float>(
    rows: &Fragments<F>,
    tile: &Shared<[F]>,
    scores: &mut Shared<[f32]>,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let row_length = comptime!(input_row(chunks));
    #[unroll]
    for n in 0..comptime!(WIDE / EDGE) {
        let sum = cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            EDGE,
            EDGE,
            EDGE,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        );
        #[unroll]
        for k in 0..comptime!(chunks * COLUMNS / EDGE) {
            let at = comptime!(n * EDGE * row_length + k * EDGE);
            // Column by column: its columns are rows of the tile.
            let column = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                EDGE,
                EDGE,
                EDGE,
                cmma::MatrixLayout::ColMajor,
                &tile[at..comptime!(at + (EDGE - 1) * row_length + EDGE)],
                comptime!(row_length as u32).runtime(),
            );
            cmma::execute::<F, F, f32, f32, cmma::Plane>(rows.index(k), &column, &sum, &sum);
        }
        let at = plane * comptime!(EDGE * SCORES) + comptime!(n * EDGE);
        cmma::store(
            &mut scores[at..at + comptime!((EDGE - 1) * SCORES + EDGE)],
            &sum,
            comptime!(SCORES as u32).runtime(),
            cmma::MatrixLayout::RowMajor,
        );
    }
}

/// Adds to a plane's sums the products of its rows of `weights` with a staged tile.
#[cube]
pub fn add_weighted<F: Float>(
    weights: &Shared<[F]>,
    tile: &Shared<[F]>,
    sums: &Fragments<f32>,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let row_length = comptime!(input_row(chunks));
    #[unroll]
    for k in 0..comptime!(WIDE / EDGE) {
        let at = plane * comptime!(EDGE * WEIGHTS) + comptime!(k * EDGE);
        let own = cmma::Matrix::<F>::from_slice(
            cmma::MatrixIdent::A,
            EDGE,
            EDGE,
            EDGE,
            cmma::MatrixLayout::RowMajor,
            &weights[at..at + comptime!((EDGE - 1) * WEIGHTS + EDGE)],
            comptime!(WEIGHTS as u32).runtime(),
        );
        #[unroll]
        for n in 0..comptime!(chunks * COLUMNS / EDGE) {
            let at = comptime!(k * EDGE * row_length + n * EDGE);
            let row = cmma::Matrix::<F>::from_slice(
                cmma::MatrixIdent::B,
                EDGE,
                EDGE,
                EDGE,
                cmma::MatrixLayout::RowMajor,
                &tile[at..comptime!(at + (EDGE - 1) * row_length + EDGE)],
                comptime!(row_length as u32).runtime(),
            );
            cmma::execute::<F, F, f32, f32, cmma::Plane>(&own, &row, sums.index(n), sums.index(n));
        }
    }
}

/// Leaves sums of 64 columns, part `part` of them, in a plane's rows of `scores`, where its units may
/// look at them. All units of the plane call it.
#[cube]
pub fn show_sums(
    sums: &Fragments<f32>,
    scores: &mut Shared<[f32]>,
    #[comptime] part: usize,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let first = comptime!(part * WIDE / EDGE);
    sync_plane();
    #[unroll]
    for n in 0..comptime!((chunks * COLUMNS / EDGE - first).min(WIDE / EDGE)) {
        let at = plane * comptime!(EDGE * SCORES) + comptime!(n * EDGE);
        cmma::store(
            &mut scores[at..at + comptime!((EDGE - 1) * SCORES + EDGE)],
            sums.index(comptime!(first + n)),
            comptime!(SCORES as u32).runtime(),
            cmma::MatrixLayout::RowMajor,
        );
    }
    sync_plane();
}

/// Takes sums back that [`show_sums`] showed.
#[cube]
pub fn take_sums(
    sums: &mut Fragments<f32>,
    scores: &Shared<[f32]>,
    #[comptime] part: usize,
    #[comptime] chunks: usize,
) {
    let plane = UNIT_POS as usize / comptime!(PLANE);
    let first = comptime!(part * WIDE / EDGE);
    sync_plane();
    #[unroll]
    for n in 0..comptime!((chunks * COLUMNS / EDGE - first).min(WIDE / EDGE)) {
        let at = plane * comptime!(EDGE * SCORES) + comptime!(n * EDGE);
        cmma::load_with_layout(
            sums.index_mut(comptime!(first + n)),
            &scores[at..at + comptime!((EDGE - 1) * SCORES + EDGE)],
            comptime!(SCORES as u32).runtime(),
            cmma::MatrixLayout::RowMajor,
        );
    }
}

/// Parts of 64 columns of sums.
pub fn parts(chunks: usize) -> usize {
    (chunks * COLUMNS).div_ceil(WIDE)
}

/// Multiplies every row of a plane's sums by its factor.
#[cube]
pub fn scale_sums(
    sums: &mut Fragments<f32>,
    factor: f32,
    scores: &mut Shared<[f32]>,
    own: Own,
    #[comptime] chunks: usize,
) {
    #[unroll]
    for part in 0..comptime!(parts(chunks)) {
        show_sums(&*sums, scores, part, chunks);
        for n in 0..comptime!(OWN) {
            let column = (n + own.turn) % comptime!(COLUMNS);
            scores[own.row * comptime!(SCORES) + own.half * comptime!(OWN) + column] *= factor;
        }
        take_sums(sums, &*scores, part, chunks);
    }
}

/// Adds to a plane's sums what [`clear_odd`] has left out of tile `h`: of `b`'s rows from `first` on,
/// those that the `words` of this unit's row name, times its weights.
#[cube]
pub fn add_odd<F: Float>(
    b: &Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    word: u32,
    weights: &Shared<[F]>,
    sums: &mut Fragments<f32>,
    scores: &mut Shared<[f32]>,
    own: Own,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    #[unroll]
    for part in 0..comptime!(parts(chunks)) {
        show_sums(&*sums, scores, part, chunks);
        for j in 0..comptime!(COLUMNS) {
            if (word >> (j as u32)) & 1u32 == 1u32 && first + j < limit {
                let weight = f32::cast_from(
                    weights[own.row * comptime!(WEIGHTS) + comptime!(h * COLUMNS) + j],
                );
                for n in 0..comptime!(OWN) {
                    let column = own.half * comptime!(OWN) + n;
                    let of_b = comptime!(part * WIDE) + column;
                    if of_b < b.shape(3) {
                        let x = f32::cast_from(
                            b[base + (first + j) * b.stride(2) + of_b * b.stride(3)],
                        );
                        if is_odd(x) {
                            scores[own.row * comptime!(SCORES) + column] += weight * x;
                        }
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
    scores: &mut Shared<[f32]>,
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
            for n in 0..comptime!(OWN) {
                let column = own.half * comptime!(OWN) + (n + own.turn) % comptime!(COLUMNS);
                let of_to = comptime!(part * WIDE) + column;
                if of_to < to.shape(3) {
                    let sum = scores[own.row * comptime!(SCORES) + column];
                    let to_at = at + of_to * to.stride(3);
                    to[to_at] = F::cast_from(sum * factor);
                }
            }
        }
    }
}
