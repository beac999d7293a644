//! Attention in CubeCL: what runs on the device.
//!
//! A cube of 128 units holds a panel of 64 or 32 rows and walks over tiles of 32 columns. Forward and
//! for the query's gradient, rows are queries and columns keys; for the gradients of keys and values
//! it is the other way round. Unit `(line, lane)` of 16 x 8 keeps `rows / 16` rows by 4 columns of the
//! scores in registers, and as much of every 32 columns of the sums.
//!
//! Nothing hidden takes part in arithmetic that anything visible reads: each row of a tile has a word,
//! bit `j` for its column `j`, and where a bit is missing, sums are left as they are; zero times NaN
//! is not zero. All units reach every barrier, whose control flow depends on sizes and the map alone.
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

/// Units of a cube: 16 lines of 8 lanes.
pub const UNITS: usize = 128;
/// Lines of units. A panel has a multiple of them as rows.
pub const LINES: usize = 16;
/// Units of a line.
pub const LANES: usize = 8;
/// Columns of a tile: the bits of a word. Widths are walked over in chunks of as many, too.
pub const COLUMNS: usize = 32;
/// Columns of a tile that a unit keeps: `lane`, `lane + 8`, `lane + 16`, `lane + 24`.
pub const OWN_COLUMNS: usize = COLUMNS / LANES;

/// Less than every score; no infinity, which WGSL may assume away.
pub const LOWEST: f32 = -3.0e38;

/// What a kernel is compiled for. Sizes are given when it runs, so that few kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Rows of a panel, 64 or 32; where there are few, 16.
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
    /// Numbers of shared memory: while scores are computed, a chunk of both operands, transposed, each
    /// row one longer than needed so that neighbours stand in different banks; then the weights of
    /// the tile and a chunk of what they are multiplied with. WebGPU promises 16 KiB.
    pub fn pool(&self) -> usize {
        (COLUMNS * (self.rows + 1 + COLUMNS + 1)).max(self.chunk_at() + COLUMNS * COLUMNS)
    }

    /// Where the chunk begins that weights are multiplied with.
    pub fn chunk_at(&self) -> usize {
        self.rows * (COLUMNS + 1)
    }
}
