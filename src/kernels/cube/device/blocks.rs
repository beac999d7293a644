//! Which keys the queries of a block of 32 see: of a panel its halves, or what a panel of keys visits.

use cubecl::prelude::*;

use super::rows::{entry, from_header};
use super::{COLUMNS, Config, LANES, OWN, header};

/// Whether some of 32 queries may see some of the keys `first..end`.
#[cube]
pub fn block_visits(
    map: &Tensor<i32>,
    batch: usize,
    block: usize,
    first: usize,
    end: usize,
) -> bool {
    let at = from_header(map, header::BOUNDS)
        + batch * from_header(map, header::BOUNDS_BATCH)
        + 8 * block;
    (entry(map, at) < end && first < entry(map, at + 1))
        || (entry(map, at + 2) < end && first < entry(map, at + 3))
}

/// Whether a block of 32 queries, which may lie outside of the grid, may see some keys of a tile. A panel
/// of two blocks visits what either of them sees; units whose own block sees nothing of a tile don't
/// multiply.
#[cube]
pub fn block_sees(
    map: &Tensor<i32>,
    batch: usize,
    block: usize,
    queries: usize,
    tile: usize,
) -> bool {
    let mut sees = false;
    if block * comptime!(COLUMNS) < queries {
        let first_key = tile * comptime!(COLUMNS);
        sees = block_visits(map, batch, block, first_key, first_key + comptime!(COLUMNS));
    }
    sees
}

/// A bit for each of some tiles of which a unit's block of 32 queries may see some keys.
#[cube]
pub fn tiles_seen(
    map: &Tensor<i32>,
    batch: usize,
    first: usize,
    queries: usize,
    tiles: &Array<usize>,
    #[comptime] cfg: Config,
) -> u32 {
    let row = first + UNIT_POS as usize / comptime!(LANES) * comptime!(OWN);
    let mut sees = 0u32;
    #[unroll]
    for h in 0..comptime!(cfg.column_quads) {
        if block_sees(map, batch, row / comptime!(COLUMNS), queries, tiles[h]) {
            sees |= comptime!(1u32 << h).runtime();
        }
    }
    sees
}

/// The first block of 32 queries from `block` on that may see some of the keys `first..end`; `blocks`
/// if there is none.
#[cube]
pub fn next_block(
    map: &Tensor<i32>,
    batch: usize,
    block: usize,
    blocks: usize,
    first: usize,
    end: usize,
) -> usize {
    let mut next = block;
    let mut visits = false;
    while next < blocks && !visits {
        visits = block_visits(map, batch, next, first, end);
        if !visits {
            next += 1;
        }
    }
    next
}

/// Whether each of 32 queries sees all of the keys `first..end`, where `end` may lie outside of the
/// grid.
#[cube]
pub fn block_is_full(
    map: &Tensor<i32>,
    batch: usize,
    block: usize,
    first: usize,
    keys: usize,
    #[comptime] rows: usize,
) -> bool {
    let at = from_header(map, header::BOUNDS)
        + batch * from_header(map, header::BOUNDS_BATCH)
        + 8 * block;
    let end = first + rows;
    let mut full = (entry(map, at + 4) <= first && end <= entry(map, at + 5))
        || (entry(map, at + 6) <= first && end <= entry(map, at + 7));
    let hidden = from_header(map, header::KEYS);
    if hidden != 0 {
        for n in 0..comptime!(rows / COLUMNS) {
            let word = first / comptime!(COLUMNS) + n;
            if word * comptime!(COLUMNS) < keys {
                if map[hidden + batch * from_header(map, header::KEYS_BATCH) + word] != 0i32 {
                    full = false;
                }
            }
        }
    }
    if from_header(map, header::CELLS) != 0 {
        full = false;
    }
    full
}
