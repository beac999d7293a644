//! The gradients of keys and values.

use cubecl::prelude::*;

use super::dropout::{Draws, drops, mix, state};
use super::rows::{block_is_full, block_visits, low_bits, ranges, sees};
use super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::tile::{add_dots, add_weighted, write};
use super::{COLUMNS, Config, LANES, LINES, OWN_COLUMNS, UNITS};

/// One cube a panel of keys: `CubeCount(panels, kv_heads, batch)`. It walks over the queries of all
/// heads that share the keys, in order: nobody else adds to what it writes. Either gradient may be
/// left out.
#[cube(launch_unchecked)]
pub fn key_value_gradients<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    d_out: &Tensor<F>,
    map: &Tensor<i32>,
    numbers: &Tensor<f32>,
    d_key: &mut ComptimeOption<OwnedTensor<F>>,
    d_value: &mut ComptimeOption<OwnedTensor<F>>,
    bias: &Bias<F>,
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
    let sharers = comptime!(UNITS / rows);
    let share = comptime!(COLUMNS / sharers);

    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let row = unit / sharers;
    let part = unit % sharers;

    let batch = CUBE_POS_Z as usize;
    let kv_head = CUBE_POS_Y as usize;
    let first = CUBE_POS_X as usize * rows;
    let heads = query.shape(1);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let group = heads / key.shape(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let all = numbers.shape(0) / 3;

    let mut pool = Shared::<[f32]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(rows);
    let mut parts = Shared::<[u32]>::new_slice(UNITS);

    let key_len = comptime!(OWN_COLUMNS * own_rows * cfg.head_chunks);
    let mut key_sums = Array::<f32>::new(key_len);
    #[unroll]
    for i in 0..key_len {
        key_sums[i] = 0.0f32;
    }
    let value_len = comptime!(OWN_COLUMNS * own_rows * cfg.value_chunks);
    let mut value_sums = Array::<f32>::new(value_len);
    #[unroll]
    for i in 0..value_len {
        value_sums[i] = 0.0f32;
    }
    let mut gradients = Array::<f32>::new(comptime!(OWN_COLUMNS * own_rows));
    let mut d_weights = Array::<f32>::new(comptime!(OWN_COLUMNS * own_rows));

    let of_batch = mix(state(draws, seed_low, seed_high), batch);
    let own_key = first + row;
    for member in 0..group {
        let head = kv_head * group + member;
        let query_base = batch * query.stride(0) + head * query.stride(1);
        let d_out_base = batch * d_out.stride(0) + head * d_out.stride(1);
        let row_base = (batch * heads + head) * queries;
        let bias_at = bias_base::<F>(bias, batch, head);
        let slope = slope_of(map, head, cfg);
        let seed = mix(of_batch, head);
        let mut block = 0usize;
        while block * comptime!(COLUMNS) < queries {
            if block_visits(map, batch, block, first, first + rows) {
                let first_query = block * comptime!(COLUMNS);
                // Which of the block's queries see this unit's key: each sharer asks some.
                let full = block_is_full(map, batch, block, first, keys, rows);
                let mut bits = 0u32;
                if full {
                    bits = low_bits((queries - first_query) as u32);
                } else if own_key < keys {
                    for n in 0..share {
                        let column = part * share + n;
                        let index = first_query + column;
                        let own_ranges = ranges(map, batch, index, queries, keys);
                        if sees(map, own_ranges, batch, head, index, own_key) {
                            bits |= 1u32 << (column as u32);
                        }
                    }
                }
                parts[unit] = bits;
                #[unroll]
                for i in 0..comptime!(OWN_COLUMNS * own_rows) {
                    gradients[i] = 0.0f32;
                    d_weights[i] = 0.0f32;
                }
                add_dots::<F>(
                    key,
                    key_base,
                    first,
                    keys,
                    query,
                    query_base,
                    first_query,
                    queries,
                    &mut pool,
                    &mut gradients,
                    rows,
                    comptime!(cfg.head_chunks),
                );
                if part == 0 {
                    let mut word = 0u32;
                    #[unroll]
                    for n in 0..sharers {
                        word |= parts[unit + n];
                    }
                    words[row] = word;
                }
                add_dots::<F>(
                    value,
                    value_base,
                    first,
                    keys,
                    d_out,
                    d_out_base,
                    first_query,
                    queries,
                    &mut pool,
                    &mut d_weights,
                    rows,
                    comptime!(cfg.value_chunks),
                );
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    let column = lane + j * comptime!(LANES);
                    let index = first_query + column;
                    let mut maximum = 0.0f32;
                    let mut inverse = 0.0f32;
                    let mut delta = 0.0f32;
                    if index < queries {
                        maximum = numbers[row_base + index];
                        inverse = numbers[all + row_base + index];
                        delta = numbers[2 * all + row_base + index];
                    }
                    let random = mix(seed, index);
                    #[unroll]
                    for i in 0..own_rows {
                        let own = line * own_rows + i;
                        let at = i * comptime!(OWN_COLUMNS) + j;
                        let mut used = 0.0f32;
                        let mut gradient = 0.0f32;
                        if (words[own] >> (column as u32)) & 1u32 == 1u32 {
                            let score = capped(gradients[at], scale, cap, cfg);
                            let sum = score
                                + added::<F>(
                                    bias,
                                    bias_at,
                                    map,
                                    slope,
                                    index,
                                    first + own,
                                    queries,
                                    keys,
                                    cfg,
                                );
                            let weight = (sum - maximum).exp() * inverse;
                            let mut d_weight = d_weights[at];
                            used = weight;
                            if comptime!(cfg.dropout) {
                                d_weight *= kept;
                                used *= kept;
                                if drops(random, first + own, threshold) {
                                    d_weight = 0.0f32;
                                    used = 0.0f32;
                                }
                            }
                            gradient = weight * (d_weight - delta) * cap_slope(score, cap, cfg);
                        }
                        pool[own * comptime!(COLUMNS + 1) + column] = used;
                        gradients[at] = gradient;
                    }
                }
                sync_cube();
                if comptime!(d_value.is_some()) {
                    add_weighted::<F>(
                        &words,
                        full,
                        d_out,
                        d_out_base,
                        first_query,
                        queries,
                        &mut pool,
                        &mut value_sums,
                        rows,
                        comptime!(cfg.value_chunks),
                    );
                }
                if comptime!(d_key.is_some()) {
                    #[unroll]
                    for i in 0..own_rows {
                        #[unroll]
                        for j in 0..comptime!(OWN_COLUMNS) {
                            let own = (line * own_rows + i) * comptime!(COLUMNS + 1) + lane;
                            pool[own + j * comptime!(LANES)] =
                                gradients[i * comptime!(OWN_COLUMNS) + j];
                        }
                    }
                    sync_cube();
                    add_weighted::<F>(
                        &words,
                        full,
                        query,
                        query_base,
                        first_query,
                        queries,
                        &mut pool,
                        &mut key_sums,
                        rows,
                        comptime!(cfg.head_chunks),
                    );
                }
            }
            block += 1;
        }
    }

    let mut factors = Array::<f32>::new(own_rows);
    #[comptime]
    match d_key {
        ComptimeOption::Some(d_key) => {
            #[unroll]
            for i in 0..own_rows {
                factors[i] = scale;
            }
            let base = batch * d_key.stride(0) + kv_head * d_key.stride(1);
            write::<F>(
                &key_sums,
                &factors,
                d_key,
                base,
                first,
                keys,
                rows,
                comptime!(cfg.head_chunks),
            );
        }
        ComptimeOption::None => {}
    }
    #[comptime]
    match d_value {
        ComptimeOption::Some(d_value) => {
            #[unroll]
            for i in 0..own_rows {
                factors[i] = 1.0f32;
            }
            let base = batch * d_value.stride(0) + kv_head * d_value.stride(1);
            write::<F>(
                &value_sums,
                &factors,
                d_value,
                base,
                first,
                keys,
                rows,
                comptime!(cfg.value_chunks),
            );
        }
        ComptimeOption::None => {}
    }
}
