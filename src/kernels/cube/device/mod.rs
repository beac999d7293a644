//! Attention in CubeCL: what runs on the device.
//!
//! A cube holds a panel of 64 or 32 rows, two units a row, and walks over tiles of 32 columns. Forward
//! and for the query's gradient, rows are queries and columns keys; for the gradients of keys and
//! values it is the other way round. Unit `(line, lane)` of `rows / 4` x 8 keeps 4 rows by 4 columns of
//! the scores in registers, and as much of every 32 columns of the sums. Shared memory holds four numbers
//! a place: two reads feed sixteen multiply-adds.
//!
//! Nothing hidden takes part in arithmetic that anything visible reads: each row of a tile has a word,
//! bit `j` for its column `j`, and where a bit is missing, sums are left as they are; zero times NaN
//! is not zero. All units reach every barrier: control flow around one depends on sizes and on numbers
//! that the units have agreed on.
//! There are no infinities, no plane operations, no atomics: the least common denominator of CUDA,
//! Metal, Vulkan and browsers, and the same bits every time.
//!
//! In reading order: `header` and `rows` (what a row sees), `score`, `dropout`, `tile` (the two matrix
//! products); `forward` and `decode`; `row_numbers`, `score_gradients`, `query_gradient`, `key_value_gradients`,
//! `bias_gradient`, `sinks_gradient`.
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
pub mod decode;
mod dropout;
pub mod forward;
pub mod header;
pub mod key_value_gradients;
pub mod query_gradient;
pub mod row_numbers;
mod rows;
mod score;
mod score_gradients;
pub mod sinks_gradient;
mod tile;

use cubecl::prelude::{Const, Vector};

/// Units of a line.
pub const LANES: usize = 8;
/// Rows of a panel, and columns of a tile, that a unit keeps.
pub const OWN: usize = 4;
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

impl Config {
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

    /// Where the second operand of a product stands.
    pub fn second(&self) -> usize {
        COLUMNS * self.column()
    }

    /// Places of shared memory: for a product, 32 columns of a panel's rows and 32 of a tile's. WebGPU
    /// promises 16 KiB; these are 13.
    pub fn pool(&self) -> usize {
        self.second() + COLUMNS * (LANES + 1)
    }
}
