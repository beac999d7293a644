//! Few queries against many keys, as every step of generation asks.
//!
//! A panel of 64 queries would be mostly padding, and one cube a head leaves a GPU idle. Here the rows
//! of a panel are the queries of all heads that share keys, which are read once for them; and the tiles
//! that are seen are divided among as many cubes as there are parts. A second kernel puts the parts
//! together, in order, so that the same inputs give the same bits.

use cubecl::prelude::*;

use super::bounds::{SHARED_BOUNDS, bounds};
use super::rows::{ranges, word};
use super::score::{Bias, added, bias_base, capped, slope_of};
use super::staging::{stage_columns, stage_rows};
use super::tile::clear;
use super::{COLUMNS, Config, LANES, LOWEST, OWN, Quad, UNITS};

/// Rows of a panel: queries times the heads of a group. A line of 8 units for each.
pub const ROWS: usize = UNITS / LANES;

/// One cube a part: `CubeCount(parts, kv_heads, batch)`.
///
/// Writes `partial`, `[batch * heads * queries * parts * (2 + value_dim)]`: of each row and part the
/// maximum, the sum of `exp(score - maximum)`, and the sum of the values weighted so. The other
/// tensors are those of `forward`.
#[cube(launch_unchecked)]
pub fn decode_parts<F: Float, K: Float>(
    query: &Tensor<F>,
    key: &Tensor<K>,
    value: &Tensor<K>,
    map: &Tensor<i32>,
    partial: &mut Tensor<f32>,
    bias: &Bias<F>,
    scale: f32,
    cap: f32,
    #[comptime] cfg: Config,
    #[define(F, K)] _dtypes: [ElemType; 2],
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let row = unit / comptime!(LANES);

    let batch = CUBE_POS_Z as usize;
    let kv_head = CUBE_POS_Y as usize;
    let part = CUBE_POS_X as usize;
    let parts = CUBE_COUNT_X as usize;
    let heads = query.shape(1);
    let queries = query.shape(2);
    let head_dim = query.shape(3);
    let keys = key.shape(2);
    let group = heads / key.shape(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);

    // Rows beyond the last one see nothing.
    let mut head = kv_head * group;
    let mut own_query = queries;
    if row < group * queries {
        head += row / queries;
        own_query = row % queries;
    }
    let query_base = batch * query.stride(0) + head * query.stride(1) + own_query * query.stride(2);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);
    let own_ranges = ranges(map, batch, own_query, queries, keys);

    // A chunk of keys or values; a chunk of the rows, `[column][row]`, or their weights, `[row][key]`;
    // one number a unit.
    let mut pool = Shared::<[Quad]>::new_slice(comptime!(COLUMNS * (LANES + 1)));
    let mut rows = Shared::<[f32]>::new_slice(comptime!(COLUMNS * (ROWS + 1)));
    let mut shared = Shared::<[f32]>::new_slice(UNITS);

    // This part's share of the tiles that some query sees.
    let mut cells = Shared::<[u32]>::new_slice(SHARED_BOUNDS);
    let seen = bounds(map, batch, 0usize, queries, keys, &mut cells, COLUMNS);
    let of_first = seen.tile_end - seen.tile;
    let tiles = of_first + (seen.last - seen.second);
    let mut index = part * tiles / parts;
    let end = (part + 1) * tiles / parts;

    let mut maximum = f32::new(LOWEST);
    let mut sum = 0.0f32;
    let mut sums = Array::<Quad>::new(comptime!(cfg.value_chunks));
    clear(&mut sums, comptime!(cfg.value_chunks));

    while index < end {
        let mut tile = seen.tile + index;
        if index >= of_first {
            tile = seen.second + (index - of_first);
        }
        let first_key = tile * comptime!(COLUMNS);
        let mut dots = Quad::new(0.0f32);
        for chunk in 0..comptime!(cfg.head_chunks) {
            let at = chunk * comptime!(COLUMNS);
            // Each line the row that it keeps.
            #[unroll]
            for k in 0..OWN {
                let own = lane * comptime!(OWN) + k;
                let mut x = 0.0f32;
                if own_query < queries && at + own < head_dim {
                    x = f32::cast_from(query[query_base + (at + own) * query.stride(3)]);
                }
                rows[own * comptime!(ROWS + 1) + row] = x;
            }
            stage_columns::<K>(
                key,
                key_base,
                first_key,
                keys,
                at,
                &mut pool,
                0usize,
                comptime!(LANES + 1),
                COLUMNS,
                UNITS,
            );
            sync_cube();
            for c in 0..comptime!(COLUMNS) {
                let x = rows[c * comptime!(ROWS + 1) + row];
                dots += Quad::new(x) * pool[c * comptime!(LANES + 1) + lane];
            }
            sync_cube();
        }

        // The row's greatest score so far, by its eight units.
        let bits = word(map, own_ranges, batch, head, own_query, tile);
        let mut scores = Quad::new(0.0f32);
        let mut tile_maximum = f32::new(LOWEST);
        #[unroll]
        for k in 0..OWN {
            let own = lane * comptime!(OWN) + k;
            if (bits >> (own as u32)) & 1u32 == 1u32 {
                let score = capped(dots.extract(k), scale, cap, cfg)
                    + added::<F>(bias, bias_at, map, slope, own_query, first_key + own, cfg);
                scores.insert(k, score);
                tile_maximum = max(tile_maximum, score);
            }
        }
        shared[unit] = tile_maximum;
        sync_cube();
        let mut next = maximum;
        #[unroll]
        for n in 0..LANES {
            next = max(next, shared[row * comptime!(LANES) + n]);
        }
        let mut factor = 0.0f32;
        if maximum > f32::new(LOWEST) {
            factor = (maximum - next).exp();
        }
        sum *= factor;
        #[unroll]
        for k in 0..OWN {
            let own = lane * comptime!(OWN) + k;
            let mut weight = 0.0f32;
            if (bits >> (own as u32)) & 1u32 == 1u32 {
                weight = (scores.extract(k) - next).exp();
                sum += weight;
            }
            rows[row * comptime!(COLUMNS + 1) + own] = weight;
        }
        maximum = next;
        let full = bits == 0xffff_ffffu32;
        #[unroll]
        for chunk in 0..comptime!(cfg.value_chunks) {
            sums[chunk] *= Quad::new(factor);
            let first_column = chunk * COLUMNS;
            stage_rows::<K>(
                value,
                value_base,
                first_key,
                keys,
                first_column,
                &mut pool,
                0usize,
                LANES,
                UNITS,
            );
            sync_cube();
            if full {
                for j in 0..comptime!(COLUMNS) {
                    let x = rows[row * comptime!(COLUMNS + 1) + j];
                    sums[chunk] += Quad::new(x) * pool[j * comptime!(LANES) + lane];
                }
            } else {
                for j in 0..comptime!(COLUMNS) {
                    if (bits >> (j as u32)) & 1u32 == 1u32 {
                        let x = rows[row * comptime!(COLUMNS + 1) + j];
                        sums[chunk] += Quad::new(x) * pool[j * comptime!(LANES) + lane];
                    }
                }
            }
            sync_cube();
        }
        index += 1;
    }

    shared[unit] = sum;
    sync_cube();
    if own_query < queries {
        let width = value.shape(3);
        let at = (((batch * heads + head) * queries + own_query) * parts + part) * (width + 2);
        if lane == 0 {
            let mut total = 0.0f32;
            #[unroll]
            for n in 0..LANES {
                total += shared[unit + n];
            }
            partial[at] = maximum;
            partial[at + 1] = total;
        }
        #[unroll]
        for chunk in 0..comptime!(cfg.value_chunks) {
            #[unroll]
            for k in 0..OWN {
                let own = chunk * COLUMNS + lane * comptime!(OWN) + k;
                if own < width {
                    partial[at + 2 + own] = sums[chunk].extract(k);
                }
            }
        }
    }
}

/// Puts the parts together: `CubeCount(queries, heads, batch)`. Output and statistics are those of
/// `forward`.
#[cube(launch_unchecked)]
pub fn decode_whole<F: Float>(
    partial: &Tensor<f32>,
    out: &mut Tensor<F>,
    statistics: &mut Tensor<f32>,
    sinks: &ComptimeOption<OwnedTensor<F>>,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let query = CUBE_POS_X as usize;
    let head = CUBE_POS_Y as usize;
    let batch = CUBE_POS_Z as usize;
    let width = out.shape(3);
    let step = width + 2;
    let row = (batch * out.shape(1) + head) * out.shape(2) + query;
    let rows = statistics.shape(0) / 2;
    let parts = partial.shape(0) / (rows * step);
    let base = row * parts * step;

    let mut maximum = f32::new(LOWEST);
    #[comptime]
    match sinks {
        ComptimeOption::Some(sinks) => {
            maximum = f32::cast_from(sinks[head * sinks.stride(0)]);
        }
        ComptimeOption::None => {}
    }
    let sink = maximum;
    for part in 0..parts {
        maximum = max(maximum, partial[base + part * step]);
    }
    let mut total = 0.0f32;
    for part in 0..parts {
        let of_part = partial[base + part * step];
        if of_part > f32::new(LOWEST) {
            total += partial[base + part * step + 1] * (of_part - maximum).exp();
        }
    }
    // Dead is who sees no key, whatever a sink adds.
    let mut inverse = 0.0f32;
    if total != 0.0f32 {
        if sink > f32::new(LOWEST) {
            total += (sink - maximum).exp();
        }
        inverse = 1.0f32 / total;
    }
    if unit == 0 {
        statistics[row] = maximum;
        statistics[rows + row] = total;
    }
    let to = batch * out.stride(0) + head * out.stride(1) + query * out.stride(2);
    let column_stride = out.stride(3);
    let mut column = unit;
    while column < width {
        let mut sum = 0.0f32;
        for part in 0..parts {
            let of_part = partial[base + part * step];
            if of_part > f32::new(LOWEST) {
                sum += partial[base + part * step + 2 + column] * (of_part - maximum).exp();
            }
        }
        out[to + column * column_stride] = F::cast_from(sum * inverse);
        column += comptime!(UNITS);
    }
}
