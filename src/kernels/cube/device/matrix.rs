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

use super::{COLUMNS, OWN, Quad};

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

/// Four numbers in half precision, or as the inputs are.
pub type Four<F> = Vector<F, Const<4>>;

/// The matrices of a plane's rows.
pub type Fragments<C> = Sequence<cmma::Matrix<C>>;

/// Tiles that are taken at once, and their columns.
pub const TILES: usize = 2;
pub const WIDE: usize = TILES * COLUMNS;
/// Fours of columns of a row that a unit has: those of one tile.
pub const OWN_QUADS: usize = COLUMNS / OWN;
/// Places, of four numbers each, of a row of scores and of weights.
pub const SCORES: usize = (WIDE + PAD_F32) / OWN;
pub const WEIGHTS: usize = (WIDE + PAD) / OWN;

/// Places of a row of an input whose width is so many chunks of 32.
pub fn input_row(chunks: usize) -> usize {
    (chunks * COLUMNS + PAD) / OWN
}

/// Places of the tiles of an input.
pub fn staged(chunks: usize) -> usize {
    WIDE * input_row(chunks)
}

/// Bytes of shared memory for the tiles of so many inputs, scores, weights and some numbers a row.
pub fn bytes(chunks: usize, inputs: usize) -> usize {
    let [half, single] = [2, 4].map(|size| size * OWN);
    half * inputs * staged(chunks) + ROWS * (single * SCORES + half * WEIGHTS) + (2 << 10)
}

/// What a unit has of the scores.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Own {
    /// Its row of the panel.
    pub row: usize,
    /// Its half of the columns: its tile.
    pub half: usize,
    /// The place of its first scores, and of its first weights.
    pub scores: usize,
    pub weights: usize,
}

/// What this unit has.
#[cube]
pub fn own() -> Own {
    let unit = UNIT_POS as usize;
    let row = unit / comptime!(PLANE) * comptime!(EDGE) + unit % comptime!(EDGE);
    let half = unit % comptime!(PLANE) / comptime!(EDGE);
    Own {
        row,
        half,
        scores: row * comptime!(SCORES) + half * comptime!(OWN_QUADS),
        weights: row * comptime!(WEIGHTS) + half * comptime!(OWN_QUADS),
    }
}

/// Whether a number is infinite or none.
#[cube]
pub fn is_odd(x: f32) -> bool {
    u32::reinterpret(x) & 0x7f80_0000u32 == 0x7f80_0000u32
}

/// Whether one of four is.
#[cube]
fn are_odd<F: Float>(four: Four<F>) -> bool {
    let mut odd = false;
    #[unroll]
    for k in 0..OWN {
        odd = odd || is_odd(f32::cast_from(four.extract(k)));
    }
    odd
}

/// Four neighbouring numbers of a row, whose first stands at `at` in column `column`. `N` is 4 where such
/// four stand in memory as one, and 1 otherwise.
#[cube]
fn load_four<F: Float, N: Size>(from: &Tensor<Vector<F, N>>, at: usize, column: usize) -> Four<F> {
    let mut four = Four::<F>::new(F::from_int(0));
    let width = from.shape(3);
    let at_once = from.vector_size();
    if comptime!(at_once == OWN) {
        if column < width {
            let read = from[at / OWN];
            #[unroll]
            for k in 0..OWN {
                four.insert(k, read.extract(k));
            }
        }
    } else {
        let column_stride = from.stride(3);
        #[unroll]
        for k in 0..OWN {
            if column + k < width {
                four.insert(k, from[at + k * column_stride].extract(0usize));
            }
        }
    }
    four
}

/// Copies 32 rows of a tensor, `first` and those after it, to shared memory, as tile `h`. What lies
/// outside of the tensor is 0. Where `watches`, the flag is set if some are no numbers.
#[cube]
pub fn stage<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    base: usize,
    first: usize,
    limit: usize,
    to: &mut Shared<[Four<F>]>,
    watches: bool,
    flag: &mut Shared<[u32]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let quads = comptime!(chunks * COLUMNS / OWN);
    let row_length = comptime!(input_row(chunks));
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    // Neighbouring units take neighbouring columns.
    #[unroll]
    for n in 0..comptime!(COLUMNS * quads / UNITS) {
        let cell = UNIT_POS as usize + comptime!(n * UNITS);
        let row = cell / quads;
        let quad = cell % quads;
        let mut four = Four::<F>::new(F::from_int(0));
        if first + row < limit {
            let at = base + (first + row) * row_stride + quad * OWN * column_stride;
            four = load_four::<F, N>(from, at, quad * OWN);
        }
        if watches {
            if are_odd::<F>(four) {
                flag[0] = 1u32;
            }
        }
        to[(comptime!(h * COLUMNS) + row) * row_length + quad] = four;
    }
}

/// Sets what is no number in tile `h` to 0.
#[cube]
pub fn clear_odd<F: Float>(
    staged: &mut Shared<[Four<F>]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let length = comptime!(COLUMNS * input_row(chunks));
    let mut cell = UNIT_POS as usize;
    while cell < length {
        let mut four = staged[comptime!(h * length) + cell];
        #[unroll]
        for k in 0..OWN {
            if is_odd(f32::cast_from(four.extract(k))) {
                four.insert(k, F::from_int(0));
            }
        }
        staged[comptime!(h * length) + cell] = four;
        cell += comptime!(UNITS);
    }
}

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

#[cube]
fn no_sum() -> cmma::Matrix<f32> {
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
fn store(sum: &cmma::Matrix<f32>, scores: &mut Shared<[Quad]>, #[comptime] n: usize) {
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
