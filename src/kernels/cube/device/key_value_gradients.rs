//! The gradients of keys and values.

use cubecl::prelude::*;

use super::blocks::{block_is_full, block_sees, next_block};
use super::bounds::agreed;
use super::dropout::{Draws, drops, mix, state};
use super::rows::{low_bits, ranges, word};
use super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::tile::{add_dots, add_weighted, clear, write};
use super::{COLUMNS, Config, LANES, OWN, Quad};

/// One cube a panel of keys: `CubeCount(kv_heads, panels, batch)`. It walks over the queries of all
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
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let column_quads = comptime!(cfg.column_quads);

    let batch = CUBE_POS_Z as usize;
    let kv_head = CUBE_POS_X as usize;
    let first = CUBE_POS_Y as usize * rows;
    let heads = query.shape(1);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let group = heads / key.shape(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let all = numbers.shape(0) / 3;

    let mut pool = Shared::<[Quad]>::new_slice(comptime!(cfg.pool()));
    // Of each unit's four rows the bits of its four columns, by tile.
    let mut parts = Shared::<[u32]>::new_slice(comptime!(cfg.units() * column_quads));

    let mut key_sums = Array::<Quad>::new(comptime!(OWN * cfg.head_chunks));
    clear(&mut key_sums, comptime!(OWN * cfg.head_chunks));
    let mut value_sums = Array::<Quad>::new(comptime!(OWN * cfg.value_chunks));
    clear(&mut value_sums, comptime!(OWN * cfg.value_chunks));
    let mut own_words = Array::<u32>::new(comptime!(OWN * column_quads));
    let mut weights = Array::<Quad>::new(comptime!(OWN * column_quads));
    let mut gradients = Array::<Quad>::new(comptime!(OWN * column_quads));
    let mut first_queries = Array::<usize>::new(column_quads);
    let mut full = Array::<bool>::new(column_quads);

    // The word that holds this unit's keys, and where.
    let own_first = first + line * comptime!(OWN);
    let key_word = own_first / comptime!(COLUMNS);
    let key_bit = (own_first % comptime!(COLUMNS)) as u32;
    let of_batch = mix(state(draws, seed_low, seed_high), batch);
    let blocks = (queries + comptime!(COLUMNS - 1)) / comptime!(COLUMNS);
    let mut cells = Shared::<[u32]>::new_slice(2usize);
    let mut turn = 0usize;
    for member in 0..group {
        let head = kv_head * group + member;
        let query_base = batch * query.stride(0) + head * query.stride(1);
        let d_out_base = batch * d_out.stride(0) + head * d_out.stride(1);
        let row_base = (batch * heads + head) * queries;
        let bias_at = bias_base::<F>(bias, batch, head);
        let slope = slope_of(map, head, cfg);
        let seed = mix(of_batch, head);
        let mut block = next_block(map, batch, 0usize, blocks, first, first + rows);
        turn += 1;
        block = agreed(block, &mut cells, turn);
        while block < blocks {
            let mut sees = 0u32;
            #[unroll]
            for h in 0..column_quads {
                first_queries[h] = block * comptime!(COLUMNS);
                full[h] = false;
                if block < blocks {
                    full[h] = block_is_full(map, batch, block, first, keys, rows);
                }
                if block_sees(map, batch, block, queries, key_word) {
                    sees |= comptime!(1u32 << h).runtime();
                }
                // Which of this unit's queries see which of its keys.
                if !full[h] {
                    let mut bits = 0u32;
                    #[unroll]
                    for k in 0..OWN {
                        let index = first_queries[h] + lane * comptime!(OWN) + k;
                        let own_ranges = ranges(map, batch, index, queries, keys);
                        let seen = word(map, own_ranges, batch, head, index, key_word) >> key_bit;
                        #[unroll]
                        for i in 0..OWN {
                            let bit = (seen >> (i as u32)) & 1u32;
                            bits |= bit << ((i * OWN + k) as u32);
                        }
                    }
                    parts[comptime!(h * cfg.units()) + unit] = bits;
                }
                block = next_block(map, batch, block + 1, blocks, first, first + rows);
            }
            clear(&mut gradients, comptime!(OWN * column_quads));
            clear(&mut weights, comptime!(OWN * column_quads));
            add_dots::<F, F>(
                key,
                key_base,
                first,
                keys,
                query,
                query_base,
                &first_queries,
                queries,
                sees,
                &mut pool,
                &mut gradients,
                cfg,
                comptime!(cfg.head_chunks),
            );
            #[unroll]
            for h in 0..column_quads {
                #[unroll]
                for i in 0..OWN {
                    let mut bits = 0u32;
                    if full[h] {
                        bits = low_bits((queries - first_queries[h]) as u32);
                    } else {
                        #[unroll]
                        for n in 0..LANES {
                            let place = line * comptime!(LANES) + n;
                            let part =
                                parts[comptime!(h * cfg.units()) + place] >> ((i * OWN) as u32);
                            bits |= (part & 15u32) << ((n * OWN) as u32);
                        }
                    }
                    own_words[comptime!(h * OWN + i)] = bits;
                }
            }
            add_dots::<F, F>(
                value,
                value_base,
                first,
                keys,
                d_out,
                d_out_base,
                &first_queries,
                queries,
                sees,
                &mut pool,
                &mut weights,
                cfg,
                comptime!(cfg.value_chunks),
            );
            #[unroll]
            for h in 0..column_quads {
                #[unroll]
                for k in 0..OWN {
                    let column = lane * comptime!(OWN) + k;
                    let index = first_queries[h] + column;
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
                    for i in 0..OWN {
                        let at = comptime!(h * OWN + i);
                        let own_key = own_first + i;
                        let mut used = 0.0f32;
                        let mut gradient = 0.0f32;
                        if (own_words[at] >> (column as u32)) & 1u32 == 1u32 {
                            let score = capped(gradients[at].extract(k), scale, cap, cfg);
                            let sum =
                                score + added::<F>(bias, bias_at, map, slope, index, own_key, cfg);
                            let weight = (sum - maximum).exp() * inverse;
                            let mut d_weight = weights[at].extract(k);
                            used = weight;
                            if comptime!(cfg.dropout) {
                                d_weight *= kept;
                                used *= kept;
                                if drops(random, own_key, threshold) {
                                    d_weight = 0.0f32;
                                    used = 0.0f32;
                                }
                            }
                            gradient = weight * (d_weight - delta) * cap_slope(score, cap, cfg);
                        }
                        let mut quad = weights[at];
                        quad.insert(k, used);
                        weights[at] = quad;
                        let mut quad = gradients[at];
                        quad.insert(k, gradient);
                        gradients[at] = quad;
                    }
                }
            }
            #[unroll]
            for h in 0..column_quads {
                if comptime!(d_value.is_some()) {
                    add_weighted::<F>(
                        &weights,
                        &own_words,
                        sees,
                        full[h],
                        d_out,
                        d_out_base,
                        first_queries[h],
                        queries,
                        &mut pool,
                        &mut value_sums,
                        h,
                        cfg,
                        comptime!(cfg.value_chunks),
                    );
                }
                if comptime!(d_key.is_some()) {
                    add_weighted::<F>(
                        &gradients,
                        &own_words,
                        sees,
                        full[h],
                        query,
                        query_base,
                        first_queries[h],
                        queries,
                        &mut pool,
                        &mut key_sums,
                        h,
                        cfg,
                        comptime!(cfg.head_chunks),
                    );
                }
            }
            turn += 1;
            block = agreed(block, &mut cells, turn);
        }
    }

    #[comptime]
    match d_key {
        ComptimeOption::Some(d_key) => {
            let base = batch * d_key.stride(0) + kv_head * d_key.stride(1);
            let factors = Quad::new(scale);
            write::<F>(&key_sums, factors, d_key, base, first, keys, comptime!(cfg.head_chunks));
        }
        ComptimeOption::None => {}
    }
    #[comptime]
    match d_value {
        ComptimeOption::Some(d_value) => {
            let base = batch * d_value.stride(0) + kv_head * d_value.stride(1);
            let factors = Quad::new(1.0f32);
            write::<F>(
                &value_sums,
                factors,
                d_value,
                base,
                first,
                keys,
                comptime!(cfg.value_chunks),
            );
        }
        ComptimeOption::None => {}
    }
}
