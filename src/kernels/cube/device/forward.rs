//! Output and row statistics, by the online softmax.

use cubecl::prelude::*;

use super::blocks::tiles_seen;
use super::bounds::{SHARED_BOUNDS, bounds, first_tile, is_full, next_tile};
use super::dropout::{Draws, Wide, drops, mix, state};
use super::rows::{ranges, word};
use super::score::{Bias, added, bias_base, capped, slope_of};
use super::tile::{add_dots, add_weighted, clear, write};
use super::{COLUMNS, Config, LANES, LOWEST, OWN, Quad};

/// One cube a panel of queries, head and batch row: `CubeCount(heads, panels, batch)`.
///
/// - `query` `[batch, heads, queries, head_dim]`, `key` `[batch, kv_heads, keys, head_dim]`, `value`
///   `[batch, kv_heads, keys, value_dim]`, by any strides
/// - `out` `[batch, heads, queries, value_dim]`, by any strides
/// - `statistics` `[2 * batch * heads * queries]`: maxima, then sums; a dead row's sum is 0
/// - `sinks` `[heads]`
///
/// Keys and values may be of another type than the rest, as a cache may keep them.
#[cube(launch_unchecked)]
pub fn forward<F: Float, K: Float>(
    query: &Tensor<F>,
    key: &Tensor<K>,
    value: &Tensor<K>,
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
    #[define(F, K)] _dtypes: [ElemType; 2],
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let second = comptime!(cfg.second());
    let column_quads = comptime!(cfg.column_quads);

    let batch = CUBE_POS_Z as usize;
    // Heads first: what begins at once is of all lengths, whatever the mask.
    let head = CUBE_POS_X as usize;
    // The last panels, with most to see under a causal mask, begin first.
    let panel = (CUBE_COUNT_Y - 1 - CUBE_POS_Y) as usize;
    let first = panel * comptime!(cfg.rows);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let query_base = batch * query.stride(0) + head * query.stride(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    let mut pool = Shared::<[Quad]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(comptime!(cfg.rows * column_quads));

    // The first lanes of a line make the words of its rows, one each.
    let word_row = line * comptime!(OWN) + lane % comptime!(OWN);
    let word_ranges = ranges(map, batch, first + word_row, queries, keys);
    let mut cells = Shared::<[u32]>::new_slice(SHARED_BOUNDS);
    let seen = bounds(map, batch, panel, queries, keys, &mut cells, comptime!(cfg.rows));
    let seed = mix(mix(state(draws, seed_low, seed_high), batch), head);
    let mut random_low = Array::<u32>::new(OWN);
    let mut random_high = Array::<u32>::new(OWN);
    if comptime!(cfg.dropout) {
        #[unroll]
        for i in 0..OWN {
            let random = mix(seed, first + line * comptime!(OWN) + i);
            random_low[i] = random.low;
            random_high[i] = random.high;
        }
    }

    // A sink is a key that everyone sees and whose value is 0.
    let mut of_sink = f32::new(LOWEST);
    let mut weight_of_sink = 0.0f32;
    #[comptime]
    match sinks {
        ComptimeOption::Some(sinks) => {
            of_sink = f32::cast_from(sinks[head * sinks.stride(0)]);
            if lane == 0 {
                weight_of_sink = 1.0f32;
            }
        }
        ComptimeOption::None => {}
    }
    let mut maximum = Quad::new(of_sink);
    let mut sum = Quad::new(weight_of_sink);
    let mut any = Array::<u32>::new(OWN);
    #[unroll]
    for i in 0..OWN {
        any[i] = 0u32;
    }
    let mut own_words = Array::<u32>::new(comptime!(OWN * cfg.column_quads));
    let mut sums = Array::<Quad>::new(comptime!(OWN * cfg.value_chunks));
    clear(&mut sums, comptime!(OWN * cfg.value_chunks));
    let mut scores = Array::<Quad>::new(comptime!(OWN * cfg.column_quads));
    let mut tiles = Array::<usize>::new(column_quads);
    let mut first_keys = Array::<usize>::new(column_quads);

    let mut tile = first_tile(seen);
    while tile < seen.last {
        #[unroll]
        for h in 0..column_quads {
            tiles[h] = tile;
            first_keys[h] = tile * comptime!(COLUMNS);
            if lane < comptime!(OWN) {
                words[comptime!(h * cfg.rows) + word_row] =
                    word(map, word_ranges, batch, head, first + word_row, tile);
            }
            tile = next_tile(seen, tile);
        }
        let sees = tiles_seen(map, batch, first, queries, &tiles, cfg);
        clear(&mut scores, comptime!(OWN * cfg.column_quads));
        add_dots::<F, K>(
            query,
            query_base,
            first,
            queries,
            key,
            key_base,
            &first_keys,
            keys,
            sees,
            &mut pool,
            &mut scores,
            cfg,
            comptime!(cfg.head_chunks),
        );

        // The greatest scores so far, of all lanes.
        let mut tile_maximum = Quad::new(LOWEST);
        #[unroll]
        for i in 0..OWN {
            let row = line * comptime!(OWN) + i;
            let mut most = f32::new(LOWEST);
            #[unroll]
            for h in 0..column_quads {
                let at = comptime!(h * OWN + i);
                own_words[at] = words[comptime!(h * cfg.rows) + row];
                any[i] |= own_words[at];
                let mut quad = Quad::new(0.0f32);
                #[unroll]
                for k in 0..OWN {
                    let column = lane * comptime!(OWN) + k;
                    if (own_words[at] >> (column as u32)) & 1u32 == 1u32 {
                        let score = capped(scores[at].extract(k), scale, cap, cfg)
                            + added::<F>(
                                bias,
                                bias_at,
                                map,
                                slope,
                                first + row,
                                first_keys[h] + column,
                                cfg,
                            );
                        most = max(most, score);
                        quad.insert(k, score);
                    }
                }
                scores[at] = quad;
            }
            tile_maximum.insert(i, most);
        }
        pool[second + unit] = tile_maximum;
        sync_cube();

        // Weights, before they are divided by their sum.
        let mut next = maximum;
        #[unroll]
        for n in 0..LANES {
            next = max(next, pool[second + line * comptime!(LANES) + n]);
        }
        let mut factor = Quad::new(0.0f32);
        #[unroll]
        for i in 0..OWN {
            if maximum.extract(i) > f32::new(LOWEST) {
                factor.insert(i, (maximum.extract(i) - next.extract(i)).exp());
            }
        }
        maximum = next;
        let mut of_rows = sum * factor;
        #[unroll]
        for i in 0..OWN {
            let mut of_row = 0.0f32;
            #[unroll]
            for h in 0..column_quads {
                let at = comptime!(h * OWN + i);
                let mut quad = Quad::new(0.0f32);
                #[unroll]
                for k in 0..OWN {
                    let column = lane * comptime!(OWN) + k;
                    if (own_words[at] >> (column as u32)) & 1u32 == 1u32 {
                        let mut weight = (scores[at].extract(k) - next.extract(i)).exp();
                        of_row += weight;
                        if comptime!(cfg.dropout) {
                            let random = Wide { low: random_low[i], high: random_high[i] };
                            if drops(random, first_keys[h] + column, threshold) {
                                weight = 0.0f32;
                            }
                        }
                        quad.insert(k, weight);
                    }
                }
                scores[at] = quad;
            }
            of_rows.insert(i, of_rows.extract(i) + of_row);
            #[unroll]
            for chunk in 0..comptime!(cfg.value_chunks) {
                sums[comptime!(chunk * OWN + i)] *= Quad::new(factor.extract(i));
            }
        }
        sum = of_rows;
        // All have read the maxima.
        sync_cube();

        #[unroll]
        for h in 0..column_quads {
            let full = is_full(map, &cells, batch, tiles[h], keys);
            add_weighted::<K>(
                &scores,
                &own_words,
                sees,
                full,
                value,
                value_base,
                first_keys[h],
                keys,
                &mut pool,
                &mut sums,
                h,
                cfg,
                comptime!(cfg.value_chunks),
            );
        }
    }

    // A row's sum is spread over its lanes. Dead is who sees no key, whatever a sink adds.
    let half = statistics.shape(0) / 2;
    pool[second + unit] = sum;
    sync_cube();
    let mut total = Quad::new(0.0f32);
    #[unroll]
    for n in 0..LANES {
        total += pool[second + line * comptime!(LANES) + n];
    }
    let mut factors = Quad::new(0.0f32);
    #[unroll]
    for i in 0..OWN {
        let row = first + line * comptime!(OWN) + i;
        let mut of_row = total.extract(i);
        if any[i] == 0u32 {
            of_row = 0.0f32;
        }
        if of_row != 0.0f32 {
            factors.insert(i, kept / of_row);
        }
        if lane == 0 && row < queries {
            let at = (batch * query.shape(1) + head) * queries + row;
            statistics[at] = maximum.extract(i);
            statistics[half + at] = of_row;
        }
    }
    let out_base = batch * out.stride(0) + head * out.stride(1);
    write::<F>(&sums, factors, out, out_base, first, queries, comptime!(cfg.value_chunks));
}
