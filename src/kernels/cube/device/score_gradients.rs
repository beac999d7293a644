//! The gradients of a tile's scores, where rows are queries.

use cubecl::prelude::*;

use super::dropout::{Wide, drops, mix};
use super::rows::{ranges, word};
use super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::tile::add_dots;
use super::{COLUMNS, Config, LANES, LINES, OWN_COLUMNS, UNITS};

/// The numbers of the rows that a unit's scores lie in.
#[cube]
pub fn load_numbers(
    numbers: &Tensor<f32>,
    base: usize,
    first: usize,
    queries: usize,
    own: &mut Array<f32>,
    #[comptime] rows: usize,
) {
    let own_rows = comptime!(rows / LINES);
    let line = UNIT_POS as usize / comptime!(LANES);
    let all = numbers.shape(0) / 3;
    #[unroll]
    for i in 0..own_rows {
        let query = first + line * own_rows + i;
        #[unroll]
        for kind in 0..3usize {
            let mut number = 0.0f32;
            if query < queries {
                number = numbers[kind * all + base + query];
            }
            own[kind * own_rows + i] = number;
        }
    }
}

/// Leaves in `gradients`, `[rows / 16][4]` of each unit, the gradients of the scores of one tile: of
/// the dot products, but for the scale; or, `of_bias`, of what is added to them. 0 where hidden. The
/// rows' words are left in `words`, to be read after the next barrier. `own` is what
/// [`load_numbers`] loads.
#[cube]
pub fn score_gradients<F: Float>(
    query: &Tensor<F>,
    key: &Tensor<F>,
    value: &Tensor<F>,
    d_out: &Tensor<F>,
    map: &Tensor<i32>,
    bias: &Bias<F>,
    batch: usize,
    head: usize,
    first: usize,
    tile: usize,
    own: &Array<f32>,
    pool: &mut Shared<[f32]>,
    words: &mut Shared<[u32]>,
    gradients: &mut Array<f32>,
    d_weights: &mut Array<f32>,
    scale: f32,
    cap: f32,
    seed: Wide,
    threshold: u32,
    kept: f32,
    #[comptime] of_bias: bool,
    #[comptime] cfg: Config,
) {
    let rows = comptime!(cfg.rows);
    let own_rows = comptime!(rows / LINES);
    let sharers = comptime!(UNITS / rows);
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let first_key = tile * comptime!(COLUMNS);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    if unit % sharers == 0 {
        let row = unit / sharers;
        let own_ranges = ranges(map, batch, first + row, queries, keys);
        words[row] = word(map, own_ranges, batch, head, first + row, tile);
    }
    #[unroll]
    for i in 0..comptime!(OWN_COLUMNS * own_rows) {
        gradients[i] = 0.0f32;
        d_weights[i] = 0.0f32;
    }
    add_dots::<F>(
        query,
        batch * query.stride(0) + head * query.stride(1),
        first,
        queries,
        key,
        batch * key.stride(0) + kv_head * key.stride(1),
        first_key,
        keys,
        pool,
        gradients,
        rows,
        comptime!(cfg.head_chunks),
    );
    add_dots::<F>(
        d_out,
        batch * d_out.stride(0) + head * d_out.stride(1),
        first,
        queries,
        value,
        batch * value.stride(0) + kv_head * value.stride(1),
        first_key,
        keys,
        pool,
        d_weights,
        rows,
        comptime!(cfg.value_chunks),
    );
    #[unroll]
    for i in 0..own_rows {
        let row = line * own_rows + i;
        let bits = words[row];
        let random = mix(seed, first + row);
        #[unroll]
        for j in 0..comptime!(OWN_COLUMNS) {
            let column = lane + j * comptime!(LANES);
            let at = i * comptime!(OWN_COLUMNS) + j;
            let mut gradient = 0.0f32;
            if (bits >> (column as u32)) & 1u32 == 1u32 {
                let score = capped(gradients[at], scale, cap, cfg);
                let sum = score
                    + added::<F>(
                        bias,
                        bias_at,
                        map,
                        slope,
                        first + row,
                        first_key + column,
                        queries,
                        keys,
                        cfg,
                    );
                let weight = (sum - own[i]).exp() * own[own_rows + i];
                let mut d_weight = d_weights[at];
                if comptime!(cfg.dropout) {
                    d_weight *= kept;
                    if drops(random, first_key + column, threshold) {
                        d_weight = 0.0f32;
                    }
                }
                gradient = weight * (d_weight - own[2 * own_rows + i]);
                if comptime!(!of_bias) {
                    gradient *= cap_slope(score, cap, cfg);
                }
            }
            gradients[at] = gradient;
        }
    }
}
