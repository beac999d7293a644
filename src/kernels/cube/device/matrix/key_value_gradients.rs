//! [`key_value_gradients`](super::super::key_value_gradients) by matrix units.

use cubecl::prelude::*;

use super::super::blocks::{block_is_full, next_block};
use super::super::bounds::agreed;
use super::super::dropout::{Draws, drops, mix, state};
use super::super::rows::{ranges, word};
use super::super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::super::{COLUMNS, Config, OWN, Quad};
use super::layout::{Four, Fragments, OWN_QUADS, ROWS, SCORES, TILES, UNITS, WEIGHTS, own, staged};
use super::{products, staging, sums};

/// One cube a panel of 64 keys: `CubeCount(kv_heads, panels, batch)`. It walks over the queries of all
/// heads that share the keys, in order, and nobody else adds to what it writes. Rows are keys.
#[cube(launch_unchecked)]
pub fn matrix_key_value_gradients<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    d_out: &Tensor<Vector<F, N>>,
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
    let unit = UNIT_POS as usize;
    let own = own();
    let head_chunks = comptime!(cfg.head_chunks);
    let value_chunks = comptime!(cfg.value_chunks);

    let batch = CUBE_POS_Z as usize;
    let kv_head = CUBE_POS_X as usize;
    let first = CUBE_POS_Y as usize * ROWS;
    let heads = query.shape(1);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let group = heads / key.shape(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let all = numbers.shape(0) / 3;

    let mut staged_query = Shared::<[Four<F>]>::new_slice(comptime!(staged(head_chunks)));
    let mut staged_d_out = Shared::<[Four<F>]>::new_slice(comptime!(staged(value_chunks)));
    let mut scores = Shared::<[Quad]>::new_slice(comptime!(ROWS * SCORES));
    let mut weights = Shared::<[Four<F>]>::new_slice(comptime!(ROWS * WEIGHTS));
    // Of each query the words of its two tiles of this panel's keys; and its numbers.
    let mut words = Shared::<[u32]>::new_slice(UNITS);
    let mut of_queries = Shared::<[f32]>::new_slice(comptime!(3 * ROWS));
    let mut odd = Shared::<[u32]>::new_slice(1usize);
    let mut cells = Shared::<[u32]>::new_slice(2usize);

    #[unroll]
    for h in 0..TILES {
        let from = first + h * COLUMNS;
        staging::stage::<F, N>(
            key,
            key_base,
            from,
            keys,
            &mut staged_query,
            false,
            &mut odd,
            h,
            head_chunks,
        );
        staging::stage::<F, N>(
            value,
            value_base,
            from,
            keys,
            &mut staged_d_out,
            false,
            &mut odd,
            h,
            value_chunks,
        );
    }
    sync_cube();
    let rows: Fragments<F> = products::load_rows::<F>(&staged_query, head_chunks);
    let value_rows: Fragments<F> = products::load_rows::<F>(&staged_d_out, value_chunks);
    sync_cube();

    let key_sums = sums::no_sums(head_chunks);
    let mut value_sums = sums::no_sums(value_chunks);
    let mut own_weights = Array::<Quad>::new(OWN_QUADS);
    let mut slopes = Array::<Quad>::new(OWN_QUADS);
    let mut first_queries = Array::<usize>::new(TILES);
    let mut full = Array::<bool>::new(TILES);

    let own_key = first + own.row;
    // Where a query's words say whether it sees this unit's key.
    let key_words = own.row / comptime!(COLUMNS) * comptime!(ROWS);
    let key_bit = (own.row % comptime!(COLUMNS)) as u32;
    let of_batch = mix(state(draws, seed_low, seed_high), batch);
    let blocks = (queries + comptime!(COLUMNS - 1)) / comptime!(COLUMNS);
    let mut turn = 0usize;
    for member in 0..group {
        let head = kv_head * group + member;
        let query_base = batch * query.stride(0) + head * query.stride(1);
        let d_out_base = batch * d_out.stride(0) + head * d_out.stride(1);
        let row_base = (batch * heads + head) * queries;
        let bias_at = bias_base::<F>(bias, batch, head);
        let slope = slope_of(map, head, cfg);
        let seed = mix(of_batch, head);
        let mut block = next_block(map, batch, 0usize, blocks, first, first + ROWS);
        turn += 1;
        block = agreed(block, &mut cells, turn);
        while block < blocks {
            if unit == 0 {
                odd[0] = 0u32;
            }
            sync_cube();
            #[unroll]
            for h in 0..TILES {
                let from = block * comptime!(COLUMNS);
                first_queries[h] = from;
                full[h] = false;
                if block < blocks {
                    full[h] = block_is_full(map, batch, block, first, keys, ROWS);
                }
                // Two words for each of 32 queries.
                if unit % comptime!(ROWS) / comptime!(COLUMNS) == h {
                    let index = from + unit % comptime!(COLUMNS);
                    let own_ranges = ranges(map, batch, index, queries, keys);
                    let tile = first / comptime!(COLUMNS) + unit / comptime!(ROWS);
                    words[unit] = word(map, own_ranges, batch, head, index, tile);
                    if unit < comptime!(ROWS) {
                        #[unroll]
                        for n in 0..3usize {
                            let mut number = 0.0f32;
                            if index < queries {
                                number = numbers[n * all + row_base + index];
                            }
                            of_queries[comptime!(n * ROWS) + unit] = number;
                        }
                    }
                }
                staging::stage::<F, N>(
                    query,
                    query_base,
                    from,
                    queries,
                    &mut staged_query,
                    !full[h],
                    &mut odd,
                    h,
                    head_chunks,
                );
                staging::stage::<F, N>(
                    d_out,
                    d_out_base,
                    from,
                    queries,
                    &mut staged_d_out,
                    !full[h],
                    &mut odd,
                    h,
                    value_chunks,
                );
                block = next_block(map, batch, block + 1, blocks, first, first + ROWS);
            }
            sync_cube();
            let mut first_query = first_queries[0];
            if own.half == 1 {
                first_query = first_queries[1];
            }
            products::dots::<F>(&rows, &staged_query, &mut scores, head_chunks);
            sync_plane();
            #[unroll]
            for j in 0..OWN_QUADS {
                let quad = scores[own.scores + j];
                let mut own_quad = Quad::new(0.0f32);
                let mut own_slopes = Quad::new(1.0f32);
                #[unroll]
                for k in 0..OWN {
                    let place = own.half * COLUMNS + comptime!(j * OWN + k);
                    let index = first_query + comptime!(j * OWN + k);
                    if (words[key_words + place] >> key_bit) & 1u32 == 1u32 {
                        let score = capped(quad.extract(k), scale, cap, cfg);
                        let sum =
                            score + added::<F>(bias, bias_at, map, slope, index, own_key, cfg);
                        let weight = (sum - of_queries[place]).exp() * of_queries[ROWS + place];
                        own_quad.insert(k, weight);
                        own_slopes.insert(k, cap_slope(score, cap, cfg));
                    }
                }
                own_weights[j] = own_quad;
                slopes[j] = own_slopes;
            }
            sync_plane();
            products::dots::<F>(&value_rows, &staged_d_out, &mut scores, value_chunks);
            sync_plane();
            #[unroll]
            for j in 0..OWN_QUADS {
                let quad = scores[own.scores + j];
                let mut four = Four::<F>::new(F::from_int(0));
                let mut own_gradients = Quad::new(0.0f32);
                #[unroll]
                for k in 0..OWN {
                    let place = own.half * COLUMNS + comptime!(j * OWN + k);
                    let index = first_query + comptime!(j * OWN + k);
                    if (words[key_words + place] >> key_bit) & 1u32 == 1u32 {
                        let weight = own_weights[j].extract(k);
                        let mut d_weight = quad.extract(k);
                        let mut used = weight;
                        if comptime!(cfg.dropout) {
                            d_weight *= kept;
                            used *= kept;
                            if drops(mix(seed, index), own_key, threshold) {
                                d_weight = 0.0f32;
                                used = 0.0f32;
                            }
                        }
                        let mut gradient = weight * (d_weight - of_queries[2 * ROWS + place]);
                        if comptime!(cfg.softcap) {
                            gradient *= slopes[j].extract(k);
                        }
                        four.insert(k, F::cast_from(used));
                        own_gradients.insert(k, gradient);
                    }
                }
                weights[own.weights + j] = four;
                own_weights[j] = own_gradients;
            }
            let is_odd = odd[0] != 0u32;
            if is_odd {
                sync_cube();
                #[unroll]
                for h in 0..TILES {
                    if !full[h] {
                        staging::clear_odd::<F>(&mut staged_query, h, head_chunks);
                        staging::clear_odd::<F>(&mut staged_d_out, h, value_chunks);
                    }
                }
                sync_cube();
            }
            sync_plane();
            if comptime!(d_value.is_some()) {
                products::add_weighted::<F>(&weights, &staged_d_out, &value_sums, value_chunks);
                if is_odd {
                    #[unroll]
                    for h in 0..TILES {
                        if !full[h] {
                            // Which of the tile's queries see this unit's key.
                            let mut bits = 0u32;
                            for j in 0..comptime!(COLUMNS) {
                                let own_word = words[key_words + comptime!(h * COLUMNS) + j];
                                bits |= ((own_word >> key_bit) & 1u32) << (j as u32);
                            }
                            sums::add_odd::<F, N>(
                                d_out,
                                d_out_base,
                                first_queries[h],
                                queries,
                                bits,
                                &weights,
                                &mut value_sums,
                                &mut scores,
                                own,
                                h,
                                value_chunks,
                            );
                        }
                    }
                }
            }
            // Who sees a query that is no number has a gradient that is none, already.
            if comptime!(d_key.is_some()) {
                sync_plane();
                #[unroll]
                for j in 0..OWN_QUADS {
                    let mut four = Four::<F>::new(F::from_int(0));
                    #[unroll]
                    for k in 0..OWN {
                        four.insert(k, F::cast_from(own_weights[j].extract(k)));
                    }
                    weights[own.weights + j] = four;
                }
                sync_plane();
                products::add_weighted::<F>(&weights, &staged_query, &key_sums, head_chunks);
            }
            turn += 1;
            block = agreed(block, &mut cells, turn);
            sync_cube();
        }
    }

    #[comptime]
    match d_key {
        ComptimeOption::Some(d_key) => {
            let base = batch * d_key.stride(0) + kv_head * d_key.stride(1);
            sums::write::<F>(
                &key_sums,
                scale,
                &mut scores,
                d_key,
                base,
                first,
                keys,
                own,
                head_chunks,
            );
        }
        ComptimeOption::None => {}
    }
    #[comptime]
    match d_value {
        ComptimeOption::Some(d_value) => {
            let base = batch * d_value.stride(0) + kv_head * d_value.stride(1);
            sums::write::<F>(
                &value_sums,
                1.0f32,
                &mut scores,
                d_value,
                base,
                first,
                keys,
                own,
                value_chunks,
            );
        }
        ComptimeOption::None => {}
    }
}
