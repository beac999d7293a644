//! The gradients of a tile's scores, where rows are queries.

use cubecl::prelude::*;

use super::blocks::tiles_seen;
use super::dropout::{Wide, drops, mix};
use super::rows::{ranges, word};
use super::score::{Bias, added, bias_base, cap_slope, capped, slope_of};
use super::tile::{add_dots, clear};
use super::{COLUMNS, Config, LANES, OWN, Quad};

/// Leaves the numbers of a panel's rows where [`score_gradients`] reads them: maxima, one over the sums,
/// deltas, four rows a place. Whoever reads them waits at a barrier before.
#[cube]
pub fn load_numbers(
    numbers: &Tensor<f32>,
    base: usize,
    first: usize,
    queries: usize,
    own: &mut Shared<[Quad]>,
    #[comptime] cfg: Config,
) {
    let lane = UNIT_POS as usize % comptime!(LANES);
    let line = UNIT_POS as usize / comptime!(LANES);
    let all = numbers.shape(0) / 3;
    if lane < 3 {
        let mut quad = Quad::new(0.0f32);
        #[unroll]
        for i in 0..OWN {
            let query = first + line * comptime!(OWN) + i;
            if query < queries {
                quad.insert(i, numbers[lane * all + base + query]);
            }
        }
        own[lane * comptime!(cfg.lines()) + line] = quad;
    }
}

/// Leaves in `gradients`, of each unit's four rows its four columns of each of some tiles, the gradients
/// of the scores: of the dot products, but for the scale; or, `of_bias`, of what is added to them. 0 where
/// hidden. `own_words` get the rows' words; what is returned has a bit for each tile of which the unit's
/// block may see something; `numbers` is what [`load_numbers`] loads.
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
    tiles: &Array<usize>,
    numbers: &Shared<[Quad]>,
    pool: &mut Shared<[Quad]>,
    words: &mut Shared<[u32]>,
    own_words: &mut Array<u32>,
    gradients: &mut Array<Quad>,
    d_weights: &mut Array<Quad>,
    scale: f32,
    cap: f32,
    seed: Wide,
    threshold: u32,
    kept: f32,
    #[comptime] of_bias: bool,
    #[comptime] cfg: Config,
) -> u32 {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let queries = query.shape(2);
    let keys = key.shape(2);
    let kv_head = head / (query.shape(1) / key.shape(1));
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);
    let sees = tiles_seen(map, batch, first, queries, tiles, cfg);
    let column_quads = comptime!(cfg.column_quads);

    let mut first_keys = Array::<usize>::new(column_quads);
    #[unroll]
    for h in 0..column_quads {
        first_keys[h] = tiles[h] * comptime!(COLUMNS);
    }
    // The first lanes of a line make the words of its rows, one each.
    if lane < comptime!(OWN) {
        let row = line * comptime!(OWN) + lane;
        let own_ranges = ranges(map, batch, first + row, queries, keys);
        #[unroll]
        for h in 0..column_quads {
            words[comptime!(h * cfg.rows) + row] =
                word(map, own_ranges, batch, head, first + row, tiles[h]);
        }
    }
    clear(gradients, comptime!(OWN * cfg.column_quads));
    clear(d_weights, comptime!(OWN * cfg.column_quads));
    add_dots::<F, F>(
        query,
        batch * query.stride(0) + head * query.stride(1),
        first,
        queries,
        key,
        batch * key.stride(0) + kv_head * key.stride(1),
        &first_keys,
        keys,
        sees,
        pool,
        gradients,
        cfg,
        comptime!(cfg.head_chunks),
    );
    add_dots::<F, F>(
        d_out,
        batch * d_out.stride(0) + head * d_out.stride(1),
        first,
        queries,
        value,
        batch * value.stride(0) + kv_head * value.stride(1),
        &first_keys,
        keys,
        sees,
        pool,
        d_weights,
        cfg,
        comptime!(cfg.value_chunks),
    );
    let maxima = numbers[line];
    let inverses = numbers[comptime!(cfg.lines()) + line];
    let deltas = numbers[comptime!(2 * cfg.lines()) + line];
    #[unroll]
    for i in 0..OWN {
        let row = line * comptime!(OWN) + i;
        let random = mix(seed, first + row);
        #[unroll]
        for h in 0..column_quads {
            let at = comptime!(h * OWN + i);
            own_words[at] = words[comptime!(h * cfg.rows) + row];
            let mut quad = Quad::new(0.0f32);
            #[unroll]
            for k in 0..OWN {
                let column = lane * comptime!(OWN) + k;
                if (own_words[at] >> (column as u32)) & 1u32 == 1u32 {
                    let own_key = first_keys[h] + column;
                    let score = capped(gradients[at].extract(k), scale, cap, cfg);
                    let sum =
                        score + added::<F>(bias, bias_at, map, slope, first + row, own_key, cfg);
                    let weight = (sum - maxima.extract(i)).exp() * inverses.extract(i);
                    let mut d_weight = d_weights[at].extract(k);
                    if comptime!(cfg.dropout) {
                        d_weight *= kept;
                        if drops(random, own_key, threshold) {
                            d_weight = 0.0f32;
                        }
                    }
                    let mut gradient = weight * (d_weight - deltas.extract(i));
                    if comptime!(!of_bias) {
                        gradient *= cap_slope(score, cap, cfg);
                    }
                    quad.insert(k, gradient);
                }
            }
            gradients[at] = quad;
        }
    }
    sees
}
