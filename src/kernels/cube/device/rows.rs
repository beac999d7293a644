//! What a row sees: its words, and which tiles a panel visits.

use cubecl::prelude::*;

use super::{COLUMNS, Config, LANES, OWN, header};

/// A number of the map.
#[cube]
pub fn entry(map: &Tensor<i32>, at: usize) -> usize {
    usize::cast_from(map[at])
}

/// A number of the map's header.
#[cube]
pub fn from_header(map: &Tensor<i32>, #[comptime] at: usize) -> usize {
    usize::cast_from(map[at])
}

/// The two ranges of a query, by their starts and ends.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Ranges {
    pub start: u32,
    pub end: u32,
    pub second_start: u32,
    pub second_end: u32,
}

/// The ranges of a query; of one outside of the grid, nothing.
#[cube]
pub fn ranges(
    map: &Tensor<i32>,
    batch: usize,
    query: usize,
    queries: usize,
    keys: usize,
) -> Ranges {
    let mut start = 0u32;
    let mut end = 0u32;
    let mut second_start = 0u32;
    let mut second_end = 0u32;
    if query < queries {
        let spans = from_header(map, header::SPANS);
        if spans == 0 {
            end = keys as u32;
        } else {
            let row = batch * from_header(map, header::SPANS_BATCH) + 2 * query;
            start = u32::cast_from(map[spans + row]);
            end = u32::cast_from(map[spans + row + 1]);
            let second = from_header(map, header::SECOND);
            if second != 0 {
                second_start = u32::cast_from(map[second + row]);
                second_end = u32::cast_from(map[second + row + 1]);
            }
        }
    }
    Ranges { start, end, second_start, second_end }
}

/// The lowest `count` bits; all of them from 32 on.
#[cube]
pub fn low_bits(count: u32) -> u32 {
    let mut bits = 0xffff_ffffu32;
    if count < 32u32 {
        bits = (1u32 << count) - 1u32;
    }
    bits
}

/// The bits of `start..end` in the word of the 32 keys from `first` on.
#[cube]
fn range_bits(start: u32, end: u32, first: u32) -> u32 {
    let from = min(max(start, first) - first, 32u32);
    let to = min(max(end, first) - first, 32u32);
    low_bits(to) & !low_bits(from)
}

/// The keys of a tile that the map hides from a query besides its ranges.
#[cube]
fn hidden_bits(map: &Tensor<i32>, batch: usize, head: usize, query: usize, tile: usize) -> u32 {
    let mut bits = 0u32;
    let keys = from_header(map, header::KEYS);
    if keys != 0 {
        bits |= u32::cast_from(map[keys + batch * from_header(map, header::KEYS_BATCH) + tile]);
    }
    let cells = from_header(map, header::CELLS);
    if cells != 0 {
        let at = cells
            + batch * from_header(map, header::CELLS_BATCH)
            + head * from_header(map, header::CELLS_HEAD)
            + query * from_header(map, header::CELLS_QUERY)
            + tile;
        bits |= u32::cast_from(map[at]);
    }
    bits
}

/// The keys of a tile that a query sees.
#[cube]
pub fn word(
    map: &Tensor<i32>,
    ranges: Ranges,
    batch: usize,
    head: usize,
    query: usize,
    tile: usize,
) -> u32 {
    let first = (tile * comptime!(COLUMNS)) as u32;
    let mut bits = range_bits(ranges.start, ranges.end, first)
        | range_bits(ranges.second_start, ranges.second_end, first);
    if bits != 0u32 {
        bits &= !hidden_bits(map, batch, head, query, tile);
    }
    bits
}

/// What the queries of a panel see: tiles `tile..tile_end` and, behind them, `second..last`; and the
/// keys that all of them see by their first ranges, and by their second ones.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Bounds {
    pub tile: usize,
    pub tile_end: usize,
    pub second: usize,
    pub last: usize,
    pub full_start: usize,
    pub full_end: usize,
    pub second_full_start: usize,
    pub second_full_end: usize,
}

/// The bounds of a panel of `rows` queries.
#[cube]
pub fn bounds(
    map: &Tensor<i32>,
    batch: usize,
    panel: usize,
    queries: usize,
    keys: usize,
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
    Bounds {
        tile,
        tile_end,
        second,
        last,
        full_start,
        full_end,
        second_full_start,
        second_full_end,
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

/// [`agreed`] on the tiles that a panel visits, with four cells.
#[cube]
pub fn agreed_bounds(bounds: Bounds, cells: &mut Shared<[u32]>) -> Bounds {
    if UNIT_POS == 0u32 {
        cells[0] = bounds.tile as u32;
        cells[1] = bounds.tile_end as u32;
        cells[2] = bounds.second as u32;
        cells[3] = bounds.last as u32;
    }
    Bounds {
        tile: workgroup_uniform_load::<u32>(&cells[0]) as usize,
        tile_end: workgroup_uniform_load::<u32>(&cells[1]) as usize,
        second: workgroup_uniform_load::<u32>(&cells[2]) as usize,
        last: workgroup_uniform_load::<u32>(&cells[3]) as usize,
        full_start: bounds.full_start,
        full_end: bounds.full_end,
        second_full_start: bounds.second_full_start,
        second_full_end: bounds.second_full_end,
    }
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

/// Whether every query of a panel sees every key of a tile, which may lie outside of the grid.
#[cube]
pub fn is_full(map: &Tensor<i32>, bounds: Bounds, batch: usize, tile: usize, keys: usize) -> bool {
    let first = tile * comptime!(COLUMNS);
    let last = first + comptime!(COLUMNS);
    let mut full = (bounds.full_start <= first && last <= bounds.full_end)
        || (bounds.second_full_start <= first && last <= bounds.second_full_end);
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
