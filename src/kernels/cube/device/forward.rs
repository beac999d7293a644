//! Output and row statistics, by the online softmax.

use cubecl::prelude::*;

use super::dropout::{Draws, drops, mix, state};
use super::rows::{bounds, first_tile, is_full, next_tile, ranges, word};
use super::score::{Bias, added, bias_base, capped, slope_of};
use super::tile::{add_dots, add_weighted, write};
use super::{COLUMNS, Config, LANES, LINES, LOWEST, OWN_COLUMNS, UNITS};

/// One cube a panel of queries, head and batch row: `CubeCount(panels, heads, batch)`.
///
/// - `query` `[batch, heads, queries, head_dim]`, `key` `[batch, kv_heads, keys, head_dim]`, `value`
///   `[batch, kv_heads, keys, value_dim]`, `bias` `[batch, heads, queries, keys]`, by any strides
/// - `sinks` `[heads]`
/// - `out` `[batch, heads, queries, value_dim]`, by any strides
/// - `statistics` `[2 * batch * heads * queries]`: maxima, then sums; a dead row's sum is 0
#[cube(launch_unchecked)]
pub fn forward<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    map: &Tensor<i32>,
    out: &mut Tensor<F>,
    statistics: &mut Tensor<f32>,
    bias: &Bias<F>,
    sinks: &ComptimeOption<OwnedTensor<F>>,
    draws: &Draws,
    scale: f32,
    cap: f32,
    seed_low: u32,
    seed_high: u32,
    threshold: u32,
    kept: f32,
    #[comptime] cfg: Config,
    #[define(F)] _dtype: ElemType,
) {
    let rows = comptime!(cfg.rows);
    let own_rows = comptime!(rows / LINES);
    // Units that share a row, and the columns that each has of a tile.
    let sharers = comptime!(UNITS / rows);
    let share = comptime!(COLUMNS / sharers);
    let chunk_at = comptime!(cfg.chunk_at());

    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let row = unit / sharers;
    let part = unit % sharers;

    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_Y as usize;
    // The last panels, with most to see under a causal mask, begin first.
    let panel = (CUBE_COUNT_X - 1 - CUBE_POS_X) as usize;
    let first = panel * rows;
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let query_base = batch * query.stride(0) + head * query.stride(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    let mut pool = Shared::<[f32]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(rows);
    let mut factors = Shared::<[f32]>::new_slice(rows);

    let own_ranges = ranges(map, batch, first + row, queries, keys);
    let seed = state(draws, seed_low, seed_high);
    let random = mix(mix(mix(seed, batch), head), first + row);
    let seen = bounds(map, batch, panel, queries, keys, rows);

    // A sink is a key that everyone sees and whose value is 0.
    let mut maximum = f32::new(LOWEST);
    let mut sum = 0.0f32;
    #[comptime]
    match sinks {
        ComptimeOption::Some(sinks) => {
            maximum = f32::cast_from(sinks[head * sinks.stride(0)]);
            if part == 0 {
                sum = 1.0f32;
            }
        }
        ComptimeOption::None => {}
    }
    let mut any = 0u32;
    let sums_len = comptime!(OWN_COLUMNS * own_rows * cfg.value_chunks);
    let mut sums = Array::<f32>::new(sums_len);
    #[unroll]
    for i in 0..sums_len {
        sums[i] = 0.0f32;
    }
    let mut dots = Array::<f32>::new(comptime!(OWN_COLUMNS * own_rows));

    let mut tile = first_tile(seen);
    while tile < seen.last {
        let first_key = tile * comptime!(COLUMNS);
        #[unroll]
        for i in 0..comptime!(OWN_COLUMNS * own_rows) {
            dots[i] = 0.0f32;
        }
        add_dots::<F>(
            query,
            query_base,
            first,
            queries,
            key,
            key_base,
            first_key,
            keys,
            &mut pool,
            &mut dots,
            rows,
            comptime!(cfg.head_chunks),
        );
        #[unroll]
        for i in 0..own_rows {
            #[unroll]
            for j in 0..comptime!(OWN_COLUMNS) {
                let own = line * own_rows + i;
                let column = lane + j * comptime!(LANES);
                let score = capped(dots[i * comptime!(OWN_COLUMNS) + j], scale, cap, cfg);
                pool[own * comptime!(COLUMNS + 1) + column] = score
                    + added::<F>(
                        bias,
                        bias_at,
                        map,
                        slope,
                        first + own,
                        first_key + column,
                        queries,
                        keys,
                        cfg,
                    );
            }
        }
        sync_cube();

        // The row's greatest score so far.
        let bits = word(map, own_ranges, batch, head, first + row, tile);
        any |= bits;
        let own = row * comptime!(COLUMNS + 1) + part * share;
        let own_bits = bits >> ((part * share) as u32);
        let mut tile_maximum = f32::new(LOWEST);
        #[unroll]
        for n in 0..share {
            if (own_bits >> (n as u32)) & 1u32 == 1u32 {
                tile_maximum = max(tile_maximum, pool[own + n]);
            }
        }
        pool[chunk_at + unit] = tile_maximum;
        sync_cube();
        let mut next = maximum;
        #[unroll]
        for n in 0..sharers {
            next = max(next, pool[chunk_at + row * sharers + n]);
        }

        // Its weights, before they are divided by their sum.
        let mut factor = 0.0f32;
        if maximum > f32::new(LOWEST) {
            factor = (maximum - next).exp();
        }
        sum *= factor;
        #[unroll]
        for n in 0..share {
            let mut weight = 0.0f32;
            if (own_bits >> (n as u32)) & 1u32 == 1u32 {
                weight = (pool[own + n] - next).exp();
                sum += weight;
                if comptime!(cfg.dropout) {
                    if drops(random, first_key + part * share + n, threshold) {
                        weight = 0.0f32;
                    }
                }
            }
            pool[own + n] = weight;
        }
        maximum = next;
        if part == 0 {
            words[row] = bits;
            factors[row] = factor;
        }
        sync_cube();

        #[unroll]
        for i in 0..own_rows {
            let factor = factors[line * own_rows + i];
            #[unroll]
            for c in 0..comptime!(cfg.value_chunks) {
                #[unroll]
                for k in 0..comptime!(OWN_COLUMNS) {
                    sums[(c * own_rows + i) * comptime!(OWN_COLUMNS) + k] *= factor;
                }
            }
        }
        let full = is_full(map, seen, batch, tile);
        add_weighted::<F>(
            &words,
            full,
            value,
            value_base,
            first_key,
            keys,
            &mut pool,
            &mut sums,
            rows,
            comptime!(cfg.value_chunks),
        );
        tile = next_tile(seen, tile);
    }

    // A row's sum is spread over its sharers. Dead is who sees no key, whatever a sink adds.
    pool[chunk_at + unit] = sum;
    sync_cube();
    if part == 0 {
        let mut total = 0.0f32;
        let mut factor = 0.0f32;
        if any != 0u32 {
            #[unroll]
            for n in 0..sharers {
                total += pool[chunk_at + unit + n];
            }
            if total != 0.0f32 {
                factor = kept / total;
            }
        }
        factors[row] = factor;
        if first + row < queries {
            let at = (batch * query.shape(1) + head) * queries + first + row;
            let half = statistics.shape(0) / 2;
            statistics[at] = maximum;
            statistics[half + at] = total;
        }
    }
    sync_cube();
    let mut own_factors = Array::<f32>::new(own_rows);
    #[unroll]
    for i in 0..own_rows {
        own_factors[i] = factors[line * own_rows + i];
    }
    let out_base = batch * out.stride(0) + head * out.stride(1);
    write::<F>(
        &sums,
        &own_factors,
        out,
        out_base,
        first,
        queries,
        rows,
        comptime!(cfg.value_chunks),
    );
}
