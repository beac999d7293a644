//! What a row sees: its ranges and words.

use cubecl::prelude::*;

use super::{COLUMNS, header};

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
