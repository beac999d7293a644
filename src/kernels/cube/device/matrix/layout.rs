//! Where what the kernels share stands: in shared memory, and among the units.

use cubecl::prelude::*;

use super::super::{COLUMNS, OWN};

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
