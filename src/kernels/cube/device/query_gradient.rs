//! The gradient of the queries.

use cubecl::prelude::*;

use super::dropout::{Draws, mix, state};
use super::rows::{bounds, first_tile, is_full, next_tile};
use super::score::Bias;
use super::score_gradients::{load_numbers, score_gradients};
use super::tile::{add_weighted, write};
use super::{COLUMNS, Config, LANES, LINES, OWN_COLUMNS};

/// One cube a panel of queries, head and batch row, as `forward`.
#[cube(launch_unchecked)]
pub fn query_gradient<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    d_out: &Tensor<F>,
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
    let rows = comptime!(cfg.rows);
    let own_rows = comptime!(rows / LINES);
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_Y as usize;
    let panel = (CUBE_COUNT_X - 1 - CUBE_POS_X) as usize;
    let first = panel * rows;
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);

    let mut pool = Shared::<[f32]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(rows);

    let mut own = Array::<f32>::new(comptime!(3 * own_rows));
    let row_base = (batch * query.shape(1) + head) * queries;
    load_numbers(numbers, row_base, first, queries, &mut own, rows);
    let seed = mix(mix(state(draws, seed_low, seed_high), batch), head);
    let seen = bounds(map, batch, panel, queries, keys, rows);

    let sums_len = comptime!(OWN_COLUMNS * own_rows * cfg.head_chunks);
    let mut sums = Array::<f32>::new(sums_len);
    #[unroll]
    for i in 0..sums_len {
        sums[i] = 0.0f32;
    }
    let mut gradients = Array::<f32>::new(comptime!(OWN_COLUMNS * own_rows));
    let mut d_weights = Array::<f32>::new(comptime!(OWN_COLUMNS * own_rows));

    let mut tile = first_tile(seen);
    while tile < seen.last {
        score_gradients::<F>(
            query,
            key,
            value,
            d_out,
            map,
            bias,
            batch,
            head,
            first,
            tile,
            &own,
            &mut pool,
            &mut words,
            &mut gradients,
            &mut d_weights,
            scale,
            cap,
            seed,
            threshold,
            kept,
            false,
            cfg,
        );
        #[unroll]
        for i in 0..own_rows {
            #[unroll]
            for j in 0..comptime!(OWN_COLUMNS) {
                let at =
                    (line * own_rows + i) * comptime!(COLUMNS + 1) + lane + j * comptime!(LANES);
                pool[at] = gradients[i * comptime!(OWN_COLUMNS) + j];
            }
        }
        sync_cube();
        let full = is_full(map, seen, batch, tile);
        add_weighted::<F>(
            &words,
            full,
            key,
            key_base,
            tile * comptime!(COLUMNS),
            keys,
            &mut pool,
            &mut sums,
            rows,
            comptime!(cfg.head_chunks),
        );
        tile = next_tile(seen, tile);
    }

    let mut factors = Array::<f32>::new(own_rows);
    #[unroll]
    for i in 0..own_rows {
        factors[i] = scale;
    }
    let base = batch * d_query.stride(0) + head * d_query.stride(1);
    write::<F>(&sums, &factors, d_query, base, first, queries, rows, comptime!(cfg.head_chunks));
}
