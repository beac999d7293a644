//! Which tiles a panel visits.

use cubecl::prelude::*;

use super::rows::{entry, from_header};
use super::{COLUMNS, header};

/// The tiles that the queries of a panel see: `tile..tile_end` and, behind them, `second..last`.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Bounds {
    pub tile: usize,
    pub tile_end: usize,
    pub second: usize,
    pub last: usize,
}

/// Numbers that [`bounds`] shares.
pub const SHARED_BOUNDS: usize = 8;

/// The bounds of a panel of `rows` queries, on which all units are known to agree, as [`agreed`] has it.
/// What [`is_full`] asks for, the keys that all of the queries see, stays where it is `shared`, since
/// registers are few.
#[cube]
pub fn bounds(
    map: &Tensor<i32>,
    batch: usize,
    panel: usize,
    queries: usize,
    keys: usize,
    shared: &mut Shared<[u32]>,
    #[comptime] rows: usize,
) -> Bounds {
    let mut start = keys;
    let mut end = 0usize;
    let mut second_start = keys;
    let mut second_end = 0usize;
    let mut full_start = 0usize;
    let mut full_end = keys;
    let mut second_full_start = 0usize;
    let mut second_full_end = keys;
    let base = from_header(map, header::BOUNDS) + batch * from_header(map, header::BOUNDS_BATCH);
    for n in 0..comptime!(rows / COLUMNS) {
        let block = panel * comptime!(rows / COLUMNS) + n;
        if block * comptime!(COLUMNS) < queries {
            let at = base + 8 * block;
            if entry(map, at) < entry(map, at + 1) {
                start = min(start, entry(map, at));
                end = max(end, entry(map, at + 1));
            }
            if entry(map, at + 2) < entry(map, at + 3) {
                second_start = min(second_start, entry(map, at + 2));
                second_end = max(second_end, entry(map, at + 3));
            }
            full_start = max(full_start, entry(map, at + 4));
            full_end = min(full_end, entry(map, at + 5));
            second_full_start = max(second_full_start, entry(map, at + 6));
            second_full_end = min(second_full_end, entry(map, at + 7));
        }
    }
    let mut tile = 0usize;
    let mut tile_end = 0usize;
    if start < end {
        tile = start / comptime!(COLUMNS);
        tile_end = (end + comptime!(COLUMNS - 1)) / comptime!(COLUMNS);
    }
    let mut second = tile_end;
    let mut last = tile_end;
    if second_start < second_end {
        second = max(tile_end, second_start / comptime!(COLUMNS));
        last = max(second, (second_end + comptime!(COLUMNS - 1)) / comptime!(COLUMNS));
    }
    if UNIT_POS == 0u32 {
        shared[0] = tile as u32;
        shared[1] = tile_end as u32;
        shared[2] = second as u32;
        shared[3] = last as u32;
        shared[4] = full_start as u32;
        shared[5] = full_end as u32;
        shared[6] = second_full_start as u32;
        shared[7] = second_full_end as u32;
    }
    Bounds {
        tile: workgroup_uniform_load::<u32>(&shared[0]) as usize,
        tile_end: workgroup_uniform_load::<u32>(&shared[1]) as usize,
        second: workgroup_uniform_load::<u32>(&shared[2]) as usize,
        last: workgroup_uniform_load::<u32>(&shared[3]) as usize,
    }
}

/// A number that all units have computed alike, as one that they are known to agree on: browsers ask for
/// a proof before they let control flow with barriers in it depend on what was read from a buffer.
/// `turn` counts the calls: what one call shares is not overwritten by the next.
#[cube]
pub fn agreed(number: usize, cells: &mut Shared<[u32]>, turn: usize) -> usize {
    let cell = turn % 2;
    if UNIT_POS == 0u32 {
        cells[cell] = number as u32;
    }
    workgroup_uniform_load::<u32>(&cells[cell]) as usize
}

/// The tile that a panel visits first.
#[cube]
pub fn first_tile(bounds: Bounds) -> usize {
    let mut tile = bounds.tile;
    if bounds.tile == bounds.tile_end {
        tile = bounds.second;
    }
    tile
}

/// The tile that a panel visits after `tile`.
#[cube]
pub fn next_tile(bounds: Bounds, tile: usize) -> usize {
    let mut next = tile + 1;
    if next >= bounds.tile_end {
        next = max(next, bounds.second);
    }
    next
}

/// Whether every query of a panel sees every key of a tile, which may lie outside of the grid; of what
/// [`bounds`] has `shared`.
#[cube]
pub fn is_full(
    map: &Tensor<i32>,
    shared: &Shared<[u32]>,
    batch: usize,
    tile: usize,
    keys: usize,
) -> bool {
    let first = tile * comptime!(COLUMNS);
    let last = first + comptime!(COLUMNS);
    let mut full = (shared[4] as usize <= first && last <= shared[5] as usize)
        || (shared[6] as usize <= first && last <= shared[7] as usize);
    let hidden = from_header(map, header::KEYS);
    if hidden != 0 && first < keys {
        if map[hidden + batch * from_header(map, header::KEYS_BATCH) + tile] != 0i32 {
            full = false;
        }
    }
    if from_header(map, header::CELLS) != 0 {
        full = false;
    }
    full
}
