//! What a mask is to the kernels: one buffer of i32, packed on the host and uploaded once for all
//! layers of a pass.
//!
//! ```text
//! header     16 numbers: where the parts begin (0: not there), and their strides
//! first      [batch or 1, queries, 2]     start and end of each query's first range
//! second     the same of the second ranges, if some query has one
//! bounds     [batch or 1, blocks, 8]      of 32 queries each: the two ranges that hold every key that
//!                                         some query sees, and the two that all queries see
//! keys       [batch or 1, words]          bit = hidden
//! cells      [batch or 1, heads or 1, queries or 1, words]
//! slopes     [heads]                      bits of f32
//! positions  [keys]                       of the keys, counted from the first query
//! ```
//! A word holds 32 keys, which is the width of a tile: what a row sees of a tile is one word. The
//! bounds are those of [`TileBounds`], the schedule of every kernel of the crate.

use std::ops::Range;

use super::device::header;
use crate::kernels::tiles::{TileBounds, key_bounds};
use crate::kernels::{Plan, Slopes};

/// Keys of a word and of a tile, queries of a block of bounds.
pub(crate) const WORD: usize = 32;

/// The buffer of a plan.
pub(crate) fn pack(plan: &Plan) -> Vec<i32> {
    let mut map = vec![0; header::LEN];
    pack_spans(plan, &mut map);
    pack_bounds(plan, &mut map);
    let words = plan.keys.div_ceil(WORD);
    if let Some(hidden) = &plan.visibility.hidden_keys {
        map[header::KEYS] = map.len() as i32;
        map[header::KEYS_BATCH] = stride(hidden.len() / plan.keys, words);
        map.extend(hidden.chunks(plan.keys).flat_map(|row| row.chunks(WORD)).map(word));
    }
    if let Some(cells) = &plan.visibility.hidden_cells {
        let [batches, heads, queries, keys] = cells.shape;
        map[header::CELLS] = map.len() as i32;
        map[header::CELLS_BATCH] = stride(batches, heads * queries * words);
        map[header::CELLS_HEAD] = stride(heads, queries * words);
        map[header::CELLS_QUERY] = stride(queries, words);
        for row in cells.hidden.chunks(keys) {
            if keys == plan.keys {
                map.extend(row.chunks(WORD).map(word));
            } else {
                map.extend(std::iter::repeat_n(if row[0] { -1 } else { 0 }, words));
            }
        }
    }
    if let Some(slopes) = &plan.scoring.slopes {
        pack_slopes(plan, slopes, &mut map);
    }
    map
}

fn pack_spans(plan: &Plan, map: &mut Vec<i32>) {
    let Some(spans) = &plan.visibility.spans else { return };
    let rows = spans.len() / plan.queries;
    map[header::SPANS_BATCH] = stride(rows, 2 * plan.queries);
    let ranges = |range: usize| {
        (0..rows * plan.queries).flat_map(move |row| {
            let (start, end) = plan.ranges(row / plan.queries, row % plan.queries)[range];
            [start as i32, end as i32]
        })
    };
    map[header::SPANS] = map.len() as i32;
    map.extend(ranges(0));
    if spans.iter().any(|row| !row.second().is_empty()) {
        map[header::SECOND] = map.len() as i32;
        map.extend(ranges(1));
    }
}

fn pack_bounds(plan: &Plan, map: &mut Vec<i32>) {
    let visibility = &plan.visibility;
    let by_row = visibility.spans.as_ref().is_some_and(|spans| spans.len() > plan.queries)
        || visibility.hidden_keys.as_ref().is_some_and(|hidden| hidden.len() > plan.keys);
    let rows = if by_row { plan.batch } else { 1 };
    map[header::BOUNDS] = map.len() as i32;
    map[header::BOUNDS_BATCH] = stride(rows, 8 * plan.queries.div_ceil(WORD));
    for batch in 0..rows {
        for bounds in blocks(plan, batch) {
            for Range { start, end } in bounds.visible().iter().chain(bounds.all_full()) {
                map.extend([start, end].map(|&bound| bound.min(plan.keys) as i32));
            }
        }
    }
}

/// The bounds of each 32 queries.
pub(crate) fn blocks(plan: &Plan, batch: usize) -> impl Iterator<Item = TileBounds> {
    let keys = key_bounds(plan, batch);
    (0..plan.queries).step_by(WORD).map(move |first| {
        TileBounds::new(plan, batch, first..plan.queries.min(first + WORD), &keys)
    })
}

fn pack_slopes(plan: &Plan, slopes: &Slopes, map: &mut Vec<i32>) {
    // Far beyond every distance that f32 tells apart, and no sum of two of them overflows.
    let near = |position: i64| position.clamp(-(1 << 29), 1 << 29) as i32;
    map[header::SLOPES] = map.len() as i32;
    map.extend(slopes.slopes.iter().map(|&slope| (slope as f32).to_bits() as i32));
    map[header::FIRST_KEY] = near(slopes.key_position(0).saturating_sub(slopes.first_query));
    if slopes.key_positions.is_some() {
        map[header::POSITIONS] = map.len() as i32;
        map.extend(
            (0..plan.keys)
                .map(|key| near(slopes.key_position(key).saturating_sub(slopes.first_query))),
        );
    }
}

fn stride(rows: usize, step: usize) -> i32 {
    if rows == 1 { 0 } else { step as i32 }
}

fn word(hidden: &[bool]) -> i32 {
    hidden.iter().enumerate().fold(0u32, |word, (i, &hidden)| word | u32::from(hidden) << i) as i32
}
