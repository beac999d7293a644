//! [`query_gradient`](super::super::query_gradient) by matrix units.

use cubecl::prelude::*;

use super::super::bounds::{SHARED_BOUNDS, bounds, first_tile, is_full, next_tile};
use super::super::dropout::{Draws, drops, mix, state};
use super::super::rows::{ranges, word};
use super::super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::super::{COLUMNS, Config, OWN, Quad};
use super::layout::{Four, Fragments, OWN_QUADS, ROWS, SCORES, TILES, UNITS, WEIGHTS, own, staged};
use super::{products, staging, sums};

/// One cube a panel of 64 queries, head and batch row, as `matrix_forward`.
#[cube(launch_unchecked)]
pub fn matrix_query_gradient<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    d_out: &Tensor<Vector<F, N>>,
    map: &Tensor<i32>,
    numbers: &Tensor<f32>,
    d_query: &mut Tensor<F>,
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
    let head = CUBE_POS_X as usize;
    let panel = (CUBE_COUNT_Y - 1 - CUBE_POS_Y) as usize;
    let first = panel * ROWS;
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let query_base = batch * query.stride(0) + head * query.stride(1);
    let d_out_base = batch * d_out.stride(0) + head * d_out.stride(1);
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    let mut staged_key = Shared::<[Four<F>]>::new_slice(comptime!(staged(head_chunks)));
    let mut staged_value = Shared::<[Four<F>]>::new_slice(comptime!(staged(value_chunks)));
    let mut scores = Shared::<[Quad]>::new_slice(comptime!(ROWS * SCORES));
    let mut gradients = Shared::<[Four<F>]>::new_slice(comptime!(ROWS * WEIGHTS));
    let mut words = Shared::<[u32]>::new_slice(UNITS);
    let mut odd = Shared::<[u32]>::new_slice(1usize);
    let mut cells = Shared::<[u32]>::new_slice(SHARED_BOUNDS);

    let word_ranges = ranges(map, batch, first + unit % comptime!(ROWS), queries, keys);
    let seen = bounds(map, batch, panel, queries, keys, &mut cells, ROWS);
    let row = first + own.row;
    let random = mix(mix(mix(state(draws, seed_low, seed_high), batch), head), row);
    let mut maximum = 0.0f32;
    let mut inverse = 0.0f32;
    let mut delta = 0.0f32;
    if row < queries {
        let all = numbers.shape(0) / 3;
        let at = (batch * query.shape(1) + head) * queries + row;
        maximum = numbers[at];
        inverse = numbers[all + at];
        delta = numbers[2 * all + at];
    }

    #[unroll]
    for h in 0..TILES {
        let from = first + h * COLUMNS;
        staging::stage::<F, N>(
            query,
            query_base,
            from,
            queries,
            &mut staged_key,
            false,
            &mut odd,
            h,
            head_chunks,
        );
        staging::stage::<F, N>(
            d_out,
            d_out_base,
            from,
            queries,
            &mut staged_value,
            false,
            &mut odd,
            h,
            value_chunks,
        );
    }
    sync_cube();
    let rows: Fragments<F> = products::load_rows::<F>(&staged_key, head_chunks);
    let d_rows: Fragments<F> = products::load_rows::<F>(&staged_value, value_chunks);
    sync_cube();

    let sums = sums::no_sums(head_chunks);
    let mut own_weights = Array::<Quad>::new(OWN_QUADS);
    let mut slopes = Array::<Quad>::new(OWN_QUADS);
    let mut tiles = Array::<usize>::new(TILES);
    let mut full = Array::<bool>::new(TILES);

    let mut tile = first_tile(seen);
    while tile < seen.last {
        if unit == 0 {
            odd[0] = 0u32;
        }
        sync_cube();
        #[unroll]
        for h in 0..TILES {
            tiles[h] = tile;
            full[h] = is_full(map, &cells, batch, tile, keys);
            if unit / comptime!(ROWS) == h {
                let row = first + unit % comptime!(ROWS);
                words[unit] = word(map, word_ranges, batch, head, row, tile);
            }
            let from = tile * comptime!(COLUMNS);
            staging::stage::<F, N>(
                key,
                key_base,
                from,
                keys,
                &mut staged_key,
                !full[h],
                &mut odd,
                h,
                head_chunks,
            );
            staging::stage::<F, N>(
                value,
                value_base,
                from,
                keys,
                &mut staged_value,
                false,
                &mut odd,
                h,
                value_chunks,
            );
            tile = next_tile(seen, tile);
        }
        sync_cube();
        let bits = words[own.half * comptime!(ROWS) + own.row];
        let mut first_key = tiles[0] * comptime!(COLUMNS);
        if own.half == 1 {
            first_key = tiles[1] * comptime!(COLUMNS);
        }
        products::dots::<F>(&rows, &staged_key, &mut scores, head_chunks);
        sync_plane();
        #[unroll]
        for j in 0..OWN_QUADS {
            let quad = scores[own.scores + j];
            let mut own_quad = Quad::new(0.0f32);
            let mut own_slopes = Quad::new(1.0f32);
            #[unroll]
            for k in 0..OWN {
                let column = comptime!(j * OWN + k);
                if (bits >> comptime!(column as u32)) & 1u32 == 1u32 {
                    let score = capped(quad.extract(k), scale, cap, cfg);
                    let sum =
                        score + added::<F>(bias, bias_at, map, slope, row, first_key + column, cfg);
                    own_quad.insert(k, (sum - maximum).exp() * inverse);
                    own_slopes.insert(k, cap_slope(score, cap, cfg));
                }
            }
            own_weights[j] = own_quad;
            slopes[j] = own_slopes;
        }
        // Every unit of the plane has read the scores.
        sync_plane();
        products::dots::<F>(&d_rows, &staged_value, &mut scores, value_chunks);
        sync_plane();
        #[unroll]
        for j in 0..OWN_QUADS {
            let quad = scores[own.scores + j];
            let mut four = Four::<F>::new(F::from_int(0));
            #[unroll]
            for k in 0..OWN {
                let column = comptime!(j * OWN + k);
                if (bits >> comptime!(column as u32)) & 1u32 == 1u32 {
                    let mut d_weight = quad.extract(k);
                    if comptime!(cfg.dropout) {
                        d_weight *= kept;
                        if drops(random, first_key + column, threshold) {
                            d_weight = 0.0f32;
                        }
                    }
                    let mut gradient = own_weights[j].extract(k) * (d_weight - delta);
                    if comptime!(cfg.softcap) {
                        gradient *= slopes[j].extract(k);
                    }
                    four.insert(k, F::cast_from(gradient));
                }
            }
            gradients[own.weights + j] = four;
        }
        // Keys that are no numbers: who sees one has a gradient that is none, already.
        if odd[0] != 0u32 {
            sync_cube();
            #[unroll]
            for h in 0..TILES {
                if !full[h] {
                    staging::clear_odd::<F>(&mut staged_key, h, head_chunks);
                }
            }
            sync_cube();
        }
        sync_plane();
        products::add_weighted::<F>(&gradients, &staged_key, &sums, head_chunks);
        sync_cube();
    }

    let base = batch * d_query.stride(0) + head * d_query.stride(1);
    sums::write::<F>(&sums, scale, &mut scores, d_query, base, first, queries, own, head_chunks);
}
