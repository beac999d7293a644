//! Output and row statistics, by the online softmax.

use cubecl::prelude::*;

use super::dropout::{Draws, Wide, drops, mix, state};
use super::rows::{
    agreed_bounds, block_sees, bounds, first_tile, is_full, next_tile, ranges, word,
};
use super::score::{Bias, added, bias_base, capped, slope_of};
use super::tile::{add_dots, add_weighted, clear, store_weights, write};
use super::{COLUMNS, Config, LANES, LOWEST, OWN, Quad};

/// One cube a panel of queries, head and batch row: `CubeCount(panels, heads, batch)`.
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

    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_Y as usize;
    // The last panels, with most to see under a causal mask, begin first.
    let panel = (CUBE_COUNT_X - 1 - CUBE_POS_X) as usize;
    let first = panel * comptime!(cfg.rows);
    let own_first = first + line * comptime!(OWN);
    let own_block = own_first / comptime!(COLUMNS);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let query_base = batch * query.stride(0) + head * query.stride(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    let mut pool = Shared::<[Quad]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(comptime!(cfg.rows));

    // The first lanes of a line make the words of its rows, one each.
    let word_row = line * comptime!(OWN) + lane % comptime!(OWN);
    let word_ranges = ranges(map, batch, first + word_row, queries, keys);
    let mut cells = Shared::<[u32]>::new_slice(4usize);
    let seen = bounds(map, batch, panel, queries, keys, comptime!(cfg.rows));
    let seen = agreed_bounds(seen, &mut cells);
    let seed = mix(mix(state(draws, seed_low, seed_high), batch), head);
    let mut random_low = Array::<u32>::new(OWN);
    let mut random_high = Array::<u32>::new(OWN);
    if comptime!(cfg.dropout) {
        #[unroll]
        for i in 0..OWN {
            let random = mix(seed, own_first + i);
            random_low[i] = random.low;
            random_high[i] = random.high;
        }
    }

    // A sink is a key that everyone sees and whose value is 0.
    let mut maximum = Quad::new(LOWEST);
    let mut sum = Quad::new(0.0f32);
    #[comptime]
    match sinks {
        ComptimeOption::Some(sinks) => {
            maximum = Quad::new(f32::cast_from(sinks[head * sinks.stride(0)]));
            if lane == 0 {
                sum = Quad::new(1.0f32);
            }
        }
        ComptimeOption::None => {}
    }
    let mut own_words = Array::<u32>::new(OWN);
    let mut any = Array::<u32>::new(OWN);
    #[unroll]
    for i in 0..OWN {
        any[i] = 0u32;
    }
    let mut sums = Array::<Quad>::new(comptime!(OWN * cfg.value_chunks));
    clear(&mut sums, comptime!(OWN * cfg.value_chunks));
    let mut scores = Array::<Quad>::new(OWN);

    let mut tile = first_tile(seen);
    while tile < seen.last {
        let first_key = tile * comptime!(COLUMNS);
        let sees = block_sees(map, batch, own_block, queries, tile);
        if lane < comptime!(OWN) {
            words[word_row] = word(map, word_ranges, batch, head, first + word_row, tile);
        }
        clear(&mut scores, OWN);
        add_dots::<F, K>(
            query,
            query_base,
            first,
            queries,
            key,
            key_base,
            first_key,
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
            own_words[i] = words[line * comptime!(OWN) + i];
            any[i] |= own_words[i];
            let mut quad = Quad::new(0.0f32);
            let mut most = f32::new(LOWEST);
            #[unroll]
            for k in 0..OWN {
                let column = lane * comptime!(OWN) + k;
                if (own_words[i] >> (column as u32)) & 1u32 == 1u32 {
                    let score = capped(scores[i].extract(k), scale, cap, cfg)
                        + added::<F>(
                            bias,
                            bias_at,
                            map,
                            slope,
                            own_first + i,
                            first_key + column,
                            cfg,
                        );
                    most = max(most, score);
                    quad.insert(k, score);
                }
            }
            scores[i] = quad;
            tile_maximum.insert(i, most);
        }
        pool[second + unit] = tile_maximum;
        sync_cube();
        let mut next = maximum;
        #[unroll]
        for n in 0..LANES {
            next = max(next, pool[second + line * comptime!(LANES) + n]);
        }

        // Weights, before they are divided by their sum.
        let mut factor = Quad::new(0.0f32);
        #[unroll]
        for i in 0..OWN {
            if maximum.extract(i) > f32::new(LOWEST) {
                factor.insert(i, (maximum.extract(i) - next.extract(i)).exp());
            }
        }
        sum *= factor;
        #[unroll]
        for i in 0..OWN {
            let mut quad = Quad::new(0.0f32);
            let mut of_row = 0.0f32;
            #[unroll]
            for k in 0..OWN {
                let column = lane * comptime!(OWN) + k;
                if (own_words[i] >> (column as u32)) & 1u32 == 1u32 {
                    let mut weight = (scores[i].extract(k) - next.extract(i)).exp();
                    of_row += weight;
                    if comptime!(cfg.dropout) {
                        let random = Wide { low: random_low[i], high: random_high[i] };
                        if drops(random, first_key + column, threshold) {
                            weight = 0.0f32;
                        }
                    }
                    quad.insert(k, weight);
                }
            }
            scores[i] = quad;
            sum.insert(i, sum.extract(i) + of_row);
            #[unroll]
            for chunk in 0..comptime!(cfg.value_chunks) {
                sums[chunk * OWN + i] *= Quad::new(factor.extract(i));
            }
        }
        maximum = next;
        store_weights(&scores, &mut pool, cfg);
        sync_cube();

        let full = is_full(map, seen, batch, tile);
        add_weighted::<K>(
            &own_words,
            sees,
            full,
            value,
            value_base,
            first_key,
            keys,
            &mut pool,
            &mut sums,
            cfg,
            comptime!(cfg.value_chunks),
        );
        tile = next_tile(seen, tile);
    }

    // A row's sum is spread over its lanes. Dead is who sees no key, whatever a sink adds.
    pool[second + unit] = sum;
    sync_cube();
    let mut total = Quad::new(0.0f32);
    #[unroll]
    for n in 0..LANES {
        total += pool[second + line * comptime!(LANES) + n];
    }
    let mut factors = Quad::new(0.0f32);
    let half = statistics.shape(0) / 2;
    #[unroll]
    for i in 0..OWN {
        let mut of_row = total.extract(i);
        if any[i] == 0u32 {
            of_row = 0.0f32;
        }
        if of_row != 0.0f32 {
            factors.insert(i, kept / of_row);
        }
        if lane == 0 && own_first + i < queries {
            let at = (batch * query.shape(1) + head) * queries + own_first + i;
            statistics[at] = maximum.extract(i);
            statistics[half + at] = of_row;
        }
    }
    let out_base = batch * out.stride(0) + head * out.stride(1);
    write::<F>(&sums, factors, out, out_base, first, queries, comptime!(cfg.value_chunks));
}
