//! The gradient of the queries.

use cubecl::prelude::*;

use super::bounds::{SHARED_BOUNDS, bounds, first_tile, is_full, next_tile};
use super::dropout::{Draws, mix, state};
use super::score::Bias;
use super::score_gradients::{load_numbers, score_gradients};
use super::tile::{add_weighted, clear, write};
use super::{COLUMNS, Config, OWN, Quad};

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
    let batch = CUBE_POS_Z as usize;
    let head = CUBE_POS_X as usize;
    let panel = (CUBE_COUNT_Y - 1 - CUBE_POS_Y) as usize;
    let first = panel * comptime!(cfg.rows);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let column_quads = comptime!(cfg.column_quads);

    let mut pool = Shared::<[Quad]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(comptime!(cfg.rows * column_quads));

    let mut own_numbers = Shared::<[Quad]>::new_slice(comptime!(3 * cfg.rows / OWN));
    let row_base = (batch * query.shape(1) + head) * queries;
    load_numbers(numbers, row_base, first, queries, &mut own_numbers, cfg);
    let seed = mix(mix(state(draws, seed_low, seed_high), batch), head);
    let mut cells = Shared::<[u32]>::new_slice(SHARED_BOUNDS);
    let seen = bounds(map, batch, panel, queries, keys, &mut cells, comptime!(cfg.rows));

    let mut own_words = Array::<u32>::new(comptime!(OWN * cfg.column_quads));
    let mut sums = Array::<Quad>::new(comptime!(OWN * cfg.head_chunks));
    clear(&mut sums, comptime!(OWN * cfg.head_chunks));
    let mut gradients = Array::<Quad>::new(comptime!(OWN * cfg.column_quads));
    let mut d_weights = Array::<Quad>::new(comptime!(OWN * cfg.column_quads));
    let mut tiles = Array::<usize>::new(column_quads);

    let mut tile = first_tile(seen);
    while tile < seen.last {
        #[unroll]
        for h in 0..column_quads {
            tiles[h] = tile;
            tile = next_tile(seen, tile);
        }
        let sees = score_gradients::<F>(
            query,
            key,
            value,
            d_out,
            map,
            bias,
            batch,
            head,
            first,
            &tiles,
            &own_numbers,
            &mut pool,
            &mut words,
            &mut own_words,
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
        for h in 0..column_quads {
            let full = is_full(map, &cells, batch, tiles[h], keys);
            add_weighted::<F>(
                &gradients,
                &own_words,
                sees,
                full,
                key,
                key_base,
                tiles[h] * comptime!(COLUMNS),
                keys,
                &mut pool,
                &mut sums,
                h,
                cfg,
                comptime!(cfg.head_chunks),
            );
        }
    }

    let base = batch * d_query.stride(0) + head * d_query.stride(1);
    let factors = Quad::new(scale);
    write::<F>(&sums, factors, d_query, base, first, queries, comptime!(cfg.head_chunks));
}
