//! Where the numbers of the map stand, see `map`: places of offsets (0: not there) and strides.

/// Numbers before the first part.
pub const LEN: usize = 16;

/// First ranges, their batch stride (that of the second ones, too), and second ranges.
pub const SPANS: usize = 0;
pub const SPANS_BATCH: usize = 1;
pub const SECOND: usize = 2;

/// Bounds of each 32 queries.
pub const BOUNDS: usize = 3;
pub const BOUNDS_BATCH: usize = 4;

/// Keys hidden from every query, as bits.
pub const KEYS: usize = 5;
pub const KEYS_BATCH: usize = 6;

/// Hidden cells, as bits.
pub const CELLS: usize = 7;
pub const CELLS_BATCH: usize = 8;
pub const CELLS_HEAD: usize = 9;
pub const CELLS_QUERY: usize = 10;

/// Slopes of the heads; positions of the keys, or that of the first one where they are consecutive.
pub const SLOPES: usize = 11;
pub const POSITIONS: usize = 12;
pub const FIRST_KEY: usize = 13;
