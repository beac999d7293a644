//! [`forward`](super::super::forward) by matrix units.

use cubecl::prelude::*;

use super::super::bounds::{SHARED_BOUNDS, bounds, first_tile, is_full, next_tile};
use super::super::dropout::{Draws, drops, mix, state};
use super::super::rows::{ranges, word};
use super::super::score::{Bias, added, bias_base, capped, slope_of};
use super::super::{COLUMNS, Config, LOWEST, OWN, Quad};
use super::layout::{
    EDGE, Four, Fragments, OWN_QUADS, ROWS, SCORES, TILES, UNITS, WEIGHTS, own, staged,
};
use super::{products, staging, sums};

/// How far a score may lie above what its row's weights are relative to: `exp` of it is a weight that
/// f16 has. Sums are multiplied by a factor only when one does, which is rare.
const SLACK: f32 = 8.0;

/// One cube a panel of 64 queries, head and batch row: `CubeCount(heads, panels, batch)`. The arguments
/// are those of `forward`; but `statistics` have, for a row's maximum, a number that no score of the row
/// is above by more than [`SLACK`].
#[cube(launch_unchecked)]
pub fn matrix_forward<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
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
    let key_base = batch * key.stride(0) + kv_head * key.stride(1);
    let value_base = batch * value.stride(0) + kv_head * value.stride(1);
    let bias_at = bias_base::<F>(bias, batch, head);
    let slope = slope_of(map, head, cfg);

    let mut staged =
        Shared::<[Four<F>]>::new_slice(comptime!(staged(head_chunks.max(value_chunks))));
    let mut scores = Shared::<[Quad]>::new_slice(comptime!(ROWS * SCORES));
    let mut weights = Shared::<[Four<F>]>::new_slice(comptime!(ROWS * WEIGHTS));
    let mut words = Shared::<[u32]>::new_slice(UNITS);
    let mut odd = Shared::<[u32]>::new_slice(1usize);
    let mut cells = Shared::<[u32]>::new_slice(SHARED_BOUNDS);

    // A unit makes a word of a row, of the first tile or of the second.
    let word_ranges = ranges(map, batch, first + unit % comptime!(ROWS), queries, keys);
    let seen = bounds(map, batch, panel, queries, keys, &mut cells, ROWS);
    let random = mix(mix(mix(state(draws, seed_low, seed_high), batch), head), first + own.row);

    #[unroll]
    for h in 0..TILES {
        staging::stage::<F, N>(
            query,
            query_base,
            first + h * COLUMNS,
            queries,
            &mut staged,
            false,
            &mut odd,
            h,
            head_chunks,
        );
    }
    sync_cube();
    let rows: Fragments<F> = products::load_rows::<F>(&staged, head_chunks);
    sync_cube();

    // A sink is a key that everyone sees and whose value is 0.
    let mut reference = f32::new(LOWEST);
    let mut sum = 0.0f32;
    #[comptime]
    match sinks {
        ComptimeOption::Some(sinks) => {
            reference = f32::cast_from(sinks[head * sinks.stride(0)]);
            if own.half == 0 {
                sum = 1.0f32;
            }
        }
        ComptimeOption::None => {}
    }
    let mut any = 0u32;
    let mut sums = sums::no_sums(value_chunks);
    let mut own_scores = Array::<Quad>::new(OWN_QUADS);
    let mut tiles = Array::<usize>::new(TILES);
    let mut full = Array::<bool>::new(TILES);

    let mut tile = first_tile(seen);
    while tile < seen.last {
        #[unroll]
        for h in 0..TILES {
            tiles[h] = tile;
            full[h] = is_full(map, &cells, batch, tile, keys);
            if unit / comptime!(ROWS) == h {
                let row = first + unit % comptime!(ROWS);
                words[unit] = word(map, word_ranges, batch, head, row, tile);
            }
            staging::stage::<F, N>(
                key,
                key_base,
                tile * comptime!(COLUMNS),
                keys,
                &mut staged,
                false,
                &mut odd,
                h,
                head_chunks,
            );
            tile = next_tile(seen, tile);
        }
        if unit == 0 {
            odd[0] = 0u32;
        }
        sync_cube();
        products::dots::<F>(&rows, &staged, &mut scores, head_chunks);
        // The scores are there, and the keys are no longer needed.
        sync_cube();
        #[unroll]
        for h in 0..TILES {
            staging::stage::<F, N>(
                value,
                value_base,
                tiles[h] * comptime!(COLUMNS),
                keys,
                &mut staged,
                !full[h],
                &mut odd,
                h,
                value_chunks,
            );
        }

        let bits = words[own.half * comptime!(ROWS) + own.row];
        let mut first_key = tiles[0] * comptime!(COLUMNS);
        if own.half == 1 {
            first_key = tiles[1] * comptime!(COLUMNS);
        }
        any |= bits;
        let mut most = f32::new(LOWEST);
        #[unroll]
        for j in 0..OWN_QUADS {
            let mut quad = scores[own.scores + j];
            #[unroll]
            for k in 0..OWN {
                let column = comptime!(j * OWN + k);
                if (bits >> comptime!(column as u32)) & 1u32 == 1u32 {
                    let score = capped(quad.extract(k), scale, cap, cfg)
                        + added::<F>(
                            bias,
                            bias_at,
                            map,
                            slope,
                            first + own.row,
                            first_key + column,
                            cfg,
                        );
                    most = max(most, score);
                    quad.insert(k, score);
                }
            }
            own_scores[j] = quad;
        }
        most = max(most, plane_shuffle_xor(most, comptime!(EDGE as u32).runtime()));
        let mut factor = 1.0f32;
        if most > reference + f32::new(SLACK) {
            if reference > f32::new(LOWEST) {
                factor = (reference - most).exp();
            }
            reference = most;
        }
        sum *= factor;
        #[unroll]
        for j in 0..OWN_QUADS {
            let mut four = Four::<F>::new(F::from_int(0));
            #[unroll]
            for k in 0..OWN {
                let column = comptime!(j * OWN + k);
                if (bits >> comptime!(column as u32)) & 1u32 == 1u32 {
                    let mut weight = (own_scores[j].extract(k) - reference).exp();
                    sum += weight;
                    if comptime!(cfg.dropout) {
                        if drops(random, first_key + column, threshold) {
                            weight = 0.0f32;
                        }
                    }
                    four.insert(k, F::cast_from(weight));
                }
            }
            weights[own.weights + j] = four;
        }
        if plane_any(factor != 1.0f32) {
            sums::scale_sums(&mut sums, factor, &mut scores, own, value_chunks);
        }
        sync_cube();
        let is_odd = odd[0] != 0u32;
        if is_odd {
            #[unroll]
            for h in 0..TILES {
                if !full[h] {
                    staging::clear_odd::<F>(&mut staged, h, value_chunks);
                }
            }
            sync_cube();
        }
        products::add_weighted::<F>(&weights, &staged, &sums, value_chunks);
        if is_odd {
            #[unroll]
            for h in 0..TILES {
                if !full[h] {
                    sums::add_odd::<F, N>(
                        value,
                        value_base,
                        tiles[h] * comptime!(COLUMNS),
                        keys,
                        words[comptime!(h * ROWS) + own.row],
                        &weights,
                        &mut sums,
                        &mut scores,
                        own,
                        h,
                        value_chunks,
                    );
                }
            }
        }
        sync_cube();
    }

    // Dead is who sees no key, whatever a sink adds.
    let edge = comptime!(EDGE as u32).runtime();
    let mut of_row = sum + plane_shuffle_xor(sum, edge);
    any |= plane_shuffle_xor(any, edge);
    if any == 0u32 {
        of_row = 0.0f32;
    }
    let mut factor = 0.0f32;
    if of_row != 0.0f32 {
        factor = kept / of_row;
    }
    let row = first + own.row;
    if own.half == 0 && row < queries {
        let at = (batch * query.shape(1) + head) * queries + row;
        let half = statistics.shape(0) / 2;
        statistics[at] = reference;
        statistics[half + at] = of_row;
    }
    let base = batch * out.stride(0) + head * out.stride(1);
    sums::write::<F>(&sums, factor, &mut scores, out, base, first, queries, own, value_chunks);
}
