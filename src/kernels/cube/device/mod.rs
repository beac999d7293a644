//! Attention in CubeCL: what runs on the device.
//!
//! A cube holds a panel of rows and walks over tiles of 32 columns. Forward and for the query's gradient,
//! rows are queries and columns keys; for the gradients of keys and values it is the other way round.
//! Unit `(line, lane)`, 8 lanes a line, keeps 4 rows by 4 columns of the scores in registers, and as much
//! of every 32 columns of the sums. Shared memory holds four numbers a place: two reads feed sixteen
//! multiply-adds; or three feed 32, where a device has the memory for two tiles at once.
//!
//! Nothing hidden takes part in arithmetic that anything visible reads: each row of a tile has a word,
//! bit `j` for its column `j`, and where a bit is missing, sums are left as they are; zero times NaN
//! is not zero. All units reach every barrier: control flow around one depends on sizes and on numbers
//! that the units have agreed on.
//! But for `matrix`, whose three kernels run where a device has matrix units, there
//! are no plane operations; nowhere are there infinities or atomics: the least common denominator of CUDA,
//! Metal, Vulkan and browsers, and the same bits every time.
//!
//! In reading order: `header` and `rows` (what a row sees), `bounds` and `blocks` (what is visited),
//! `score`, `dropout`, `staging`, `tile` (the two matrix products); `forward` and `decode`; `row_numbers`,
//! `score_gradients`, `query_gradient`, `key_value_gradients`, `bias_gradient`, `sinks_gradient`;
//! `matrix` (the same by matrix units).
//!
//! These files import CubeCL's prelude, and nothing of Burn's.

// Kernels take tensors and scalars one by one.
#![allow(clippy::too_many_arguments)]
// On a device both sides of `&&` are computed: what only one of them may read stands in an `if` of its
// own.
#![allow(clippy::collapsible_if)]
// The constants that stand for CubeCL's indices have values of their own (2).
#![allow(arithmetic_overflow)]

pub mod bias_gradient;
mod blocks;
mod bounds;
pub mod decode;
mod dropout;
pub mod forward;
pub mod header;
pub mod key_value_gradients;
pub mod matrix;
pub mod query_gradient;
pub mod row_numbers;
mod rows;
mod score;
mod score_gradients;
pub mod sinks_gradient;
mod staging;
mod tile;

use cubecl::prelude::{Const, Vector};

/// Units of a line.
pub const LANES: usize = 8;
/// Rows of a panel, and columns of a tile, that a unit keeps.
pub const OWN: usize = 4;
/// Numbers of a square.
const SQUARE: usize = OWN * OWN;
/// Columns of a tile: the bits of a word. Widths are walked over in chunks of as many, too.
pub const COLUMNS: usize = LANES * OWN;
/// Units of the kernels that walk over rows, not over tiles.
pub const UNITS: usize = 128;

/// Four numbers.
pub type Quad = Vector<f32, Const<4>>;

/// Less than every score; no infinity, which WGSL may assume away.
pub const LOWEST: f32 = -3.0e38;

/// What a kernel is compiled for. Sizes are given when it runs, so that few kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Rows of a panel, 64 or 32.
    pub rows: usize,
    /// Fours of columns that a unit keeps: tiles that are taken at once.
    pub column_quads: usize,
    /// Chunks of 32 columns of queries and keys.
    pub head_chunks: usize,
    /// The same of values.
    pub value_chunks: usize,
    /// Whether scores are capped.
    pub softcap: bool,
    /// Whether distances are subtracted (ALiBi).
    pub slopes: bool,
    /// Whether weights are dropped.
    pub dropout: bool,
}

/// Bytes of shared memory that suffice for two tiles at once. WebGPU promises half of it, which one tile
/// keeps within.
const SHARED_FOR_MORE: usize = 32 << 10;

/// Numbers of its scores and sums that a unit keeps in registers at most, of 255 that it has on many
/// devices.
const MOST_NUMBERS: usize = 112;

impl Config {
    /// The same with panels that are filled, and as many tiles at once as fit. `panel` is the length of
    /// the axis that panels divide, `scores` how many numbers a unit keeps of each score, `sums` how many
    /// chunks of 32 columns of sums, and `shared` the device's shared memory in bytes.
    pub fn fitted(self, panel: usize, scores: usize, sums: usize, shared: usize) -> Self {
        let size = |rows, column_quads| Self { rows, column_quads, ..self };
        let fit = SQUARE * (2 * scores + sums) <= MOST_NUMBERS && shared >= SHARED_FOR_MORE;
        match panel {
            // Where 64 rows would be mostly padding.
            0..=32 => size(32, 1),
            65.. if fit => size(64, 2),
            _ => size(64, 1),
        }
    }

    /// Lines of a cube, each of 4 rows.
    pub fn lines(&self) -> usize {
        self.rows / OWN
    }

    /// Units of a cube: lines of 8.
    pub fn units(&self) -> usize {
        self.lines() * LANES
    }

    /// Places in a column of a panel's rows: one more than needed, so that neighbours stand in
    /// different banks.
    pub fn column(&self) -> usize {
        self.rows / OWN + 1
    }

    /// The same of the tiles' columns.
    pub fn tile_column(&self) -> usize {
        self.column_quads * LANES + 1
    }

    /// Where the second operand of a product stands.
    pub fn second(&self) -> usize {
        COLUMNS * self.column()
    }

    /// Places of shared memory: for a product, 32 columns of a panel's rows and of the tiles'.
    pub fn pool(&self) -> usize {
        self.second() + COLUMNS * self.tile_column()
    }
}
