//! The gradient of an additive bias.

use cubecl::prelude::*;

use super::blocks::block_visits;
use super::bounds::agreed;
use super::dropout::{Draws, mix, state};
use super::score::Bias;
use super::score_gradients::{load_numbers, score_gradients};
use super::tile::clear;
use super::{COLUMNS, Config, LANES, OWN, Quad};

/// One cube a tile of the *bias*, which may broadcast: it walks over all that reads the tile, in order,
/// and nobody else adds to it. `CubeCount(tiles, panels, batch * heads)` of `d_bias`, contiguous
/// `[batch or 1, heads or 1, queries or 1, keys or 1]`. Its units keep one square each.
#[cube(launch_unchecked)]
pub fn bias_gradient<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    d_out: &Tensor<F>,
    map: &Tensor<i32>,
    numbers: &Tensor<f32>,
    d_bias: &mut Tensor<F>,
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
    let heads = query.shape(1);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let bias_heads = d_bias.shape(1);
    let bias_queries = d_bias.shape(2);
    let bias_keys = d_bias.shape(3);
    let bias_batch = CUBE_POS_Z as usize / bias_heads;
    let bias_head = CUBE_POS_Z as usize % bias_heads;

    // Of each axis its own part, or all where the bias broadcasts.
    let mut batch = bias_batch;
    let mut batch_end = bias_batch + 1;
    if d_bias.shape(0) == 1 {
        batch_end = query.shape(0);
    }
    let mut head_start = bias_head;
    let mut head_end = bias_head + 1;
    if bias_heads == 1 {
        head_start = 0;
        head_end = heads;
    }
    let mut panel_start = CUBE_POS_Y as usize;
    let mut panel_end = panel_start + 1;
    if bias_queries == 1 {
        panel_start = 0;
        panel_end = (queries + comptime!(rows - 1)) / rows;
    }
    let mut tile_start = CUBE_POS_X as usize;
    let mut tile_end = tile_start + 1;
    if bias_keys == 1 {
        tile_start = 0;
        tile_end = (keys + comptime!(COLUMNS - 1)) / comptime!(COLUMNS);
    }

    let mut pool = Shared::<[Quad]>::new_slice(comptime!(cfg.pool()));
    let mut words = Shared::<[u32]>::new_slice(rows);
    let mut own_numbers = Shared::<[Quad]>::new_slice(comptime!(3 * cfg.rows / OWN));
    let mut own_words = Array::<u32>::new(OWN);
    let mut gradients = Array::<Quad>::new(OWN);
    let mut d_weights = Array::<Quad>::new(OWN);
    let mut cells = Shared::<[u32]>::new_slice(2usize);
    let mut turn = 0usize;
    let mut sums = Array::<Quad>::new(OWN);
    clear(&mut sums, OWN);
    let mut tiles = Array::<usize>::new(1usize);

    while batch < batch_end {
        let mut head = head_start;
        while head < head_end {
            let seed = mix(mix(state(draws, seed_low, seed_high), batch), head);
            let mut panel = panel_start;
            while panel < panel_end {
                let first = panel * rows;
                let row_base = (batch * heads + head) * queries;
                load_numbers(numbers, row_base, first, queries, &mut own_numbers, cfg);
                let mut tile = tile_start;
                while tile < tile_end {
                    let first_key = tile * comptime!(COLUMNS);
                    let mut visits = 0usize;
                    for n in 0..comptime!(rows / COLUMNS) {
                        let block = panel * comptime!(rows / COLUMNS) + n;
                        if block * comptime!(COLUMNS) < queries {
                            if block_visits(
                                map,
                                batch,
                                block,
                                first_key,
                                first_key + comptime!(COLUMNS),
                            ) {
                                visits = 1usize;
                            }
                        }
                    }
                    turn += 1;
                    if agreed(visits, &mut cells, turn) != 0 {
                        tiles[0] = tile;
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
                            true,
                            cfg,
                        );
                        #[unroll]
                        for i in 0..OWN {
                            sums[i] += gradients[i];
                        }
                        // The next tile's words.
                        sync_cube();
                    }
                    tile += 1;
                }
                panel += 1;
            }
            head += 1;
        }
        batch += 1;
    }

    #[unroll]
    for i in 0..OWN {
        pool[(line * comptime!(OWN) + i) * comptime!(LANES) + lane] = sums[i];
    }
    sync_cube();
    // What is broadcast over rows or columns is summed over them, by the first of each.
    let mut own_rows_end = comptime!(rows).runtime();
    if bias_queries == 1 {
        own_rows_end = 1;
    }
    let mut own_columns_end = comptime!(COLUMNS).runtime();
    if bias_keys == 1 {
        own_columns_end = 1;
    }
    let first = CUBE_POS_Y as usize * rows;
    let first_key = CUBE_POS_X as usize * comptime!(COLUMNS);
    let base = (bias_batch * bias_heads + bias_head) * bias_queries;
    let mut cell = unit;
    while cell < own_rows_end * own_columns_end {
        let row = cell / own_columns_end;
        let column = cell % own_columns_end;
        if first + row < bias_queries && first_key + column < bias_keys {
            let mut row_end = row + 1;
            if bias_queries == 1 {
                row_end = rows;
            }
            let mut column_end = column + 1;
            if bias_keys == 1 {
                column_end = comptime!(COLUMNS).runtime();
            }
            let mut sum = 0.0f32;
            for r in row..row_end {
                for c in column..column_end {
                    let quad = pool[r * comptime!(LANES) + c / comptime!(OWN)];
                    sum += quad.extract_dynamic(c % comptime!(OWN));
                }
            }
            d_bias[(base + first + row) * bias_keys + first_key + column] = F::cast_from(sum);
        }
        cell += comptime!(cfg.units());
    }
}
