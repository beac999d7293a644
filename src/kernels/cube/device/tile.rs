//! The two matrix products of tiles, through shared memory.

use cubecl::prelude::*;

use super::staging::{stage_columns, stage_rows};
use super::{COLUMNS, Config, LANES, OWN, Quad};

/// Sets every place to 0.
#[cube]
pub fn clear(quads: &mut Array<Quad>, #[comptime] count: usize) {
    #[unroll]
    for i in 0..count {
        quads[i] = Quad::new(0.0f32);
    }
}

/// Adds to `sums`, of each unit's four rows its four columns of each tile, the dot products of a panel's
/// rows of `a` with the rows of `b` from each of `b_firsts` on, 32 a tile. A tile that `sees` has no bit
/// for is left out. Ends with a barrier.
#[cube]
pub fn add_dots<F: Float, G: Float>(
    a: &Tensor<F>,
    a_base: usize,
    a_first: usize,
    a_limit: usize,
    b: &Tensor<G>,
    b_base: usize,
    b_firsts: &Array<usize>,
    b_limit: usize,
    sees: u32,
    pool: &mut Shared<[Quad]>,
    sums: &mut Array<Quad>,
    #[comptime] cfg: Config,
    #[comptime] chunks: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let second = comptime!(cfg.second());
    let column = comptime!(cfg.column());
    let tile_column = comptime!(cfg.tile_column());
    let units = comptime!(cfg.units());
    let rows = comptime!(cfg.rows);
    let column_quads = comptime!(cfg.column_quads);
    let mut y = Array::<Quad>::new(column_quads);
    for chunk in 0..chunks {
        let first = chunk * comptime!(COLUMNS);
        stage_columns::<F>(a, a_base, a_first, a_limit, first, pool, 0usize, column, rows, units);
        #[unroll]
        for h in 0..column_quads {
            stage_columns::<G>(
                b,
                b_base,
                b_firsts[h],
                b_limit,
                first,
                pool,
                comptime!(second + h * LANES),
                tile_column,
                COLUMNS,
                units,
            );
        }
        sync_cube();
        if sees == comptime!(every(cfg)) {
            for c in 0..comptime!(COLUMNS) {
                let x = pool[c * column + line];
                #[unroll]
                for h in 0..column_quads {
                    y[h] = pool[second + c * tile_column + comptime!(h * LANES) + lane];
                }
                #[unroll]
                for h in 0..column_quads {
                    #[unroll]
                    for i in 0..OWN {
                        sums[comptime!(h * OWN + i)] += Quad::new(x.extract(i)) * y[h];
                    }
                }
            }
        } else if sees != 0u32 {
            #[unroll]
            for h in 0..column_quads {
                if sees & comptime!(1u32 << h) != 0u32 {
                    for c in 0..comptime!(COLUMNS) {
                        let x = pool[c * column + line];
                        let y = pool[second + c * tile_column + comptime!(h * LANES) + lane];
                        #[unroll]
                        for i in 0..OWN {
                            sums[comptime!(h * OWN + i)] += Quad::new(x.extract(i)) * y;
                        }
                    }
                }
            }
        }
        sync_cube();
    }
}

/// Leaves a unit's weights of one tile where [`add_weighted`] reads them: `[column][row / 4]`.
#[cube]
fn store_weights(
    weights: &Array<Quad>,
    pool: &mut Shared<[Quad]>,
    #[comptime] h: usize,
    #[comptime] cfg: Config,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    #[unroll]
    for k in 0..OWN {
        let mut quad = Quad::new(0.0f32);
        #[unroll]
        for i in 0..OWN {
            quad.insert(i, weights[comptime!(h * OWN + i)].extract(k));
        }
        pool[(lane * comptime!(OWN) + k) * comptime!(cfg.column()) + line] = quad;
    }
}

/// Adds to `sums`, of every 32 columns and each unit's rows its four columns, the weights of tile `h`
/// that [`store_weights`] leaves, times 32 rows of `b`, where it `sees` any of them. Unless the tile is
/// full, only what the rows' words name. Nobody may be reading the second half of the pool when it
/// begins; it ends with a barrier.
#[cube]
pub fn add_weighted<F: Float>(
    weights: &Array<Quad>,
    words: &Array<u32>,
    sees: u32,
    full: bool,
    b: &Tensor<F>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
    pool: &mut Shared<[Quad]>,
    sums: &mut Array<Quad>,
    #[comptime] h: usize,
    #[comptime] cfg: Config,
    #[comptime] chunks: usize,
) {
    store_weights(weights, pool, h, cfg);
    let at_once = comptime!(cfg.column_quads);
    #[unroll]
    for turn in 0..comptime!(chunks.div_ceil(at_once)) {
        let first = comptime!(turn * at_once);
        add_weighted_chunks::<F>(
            words,
            sees,
            full,
            b,
            b_base,
            b_first,
            b_limit,
            pool,
            sums,
            h,
            first,
            comptime!(at_once.min(chunks - first)),
            cfg,
        );
    }
}

/// [`add_weighted`] of `count` chunks of 32 columns.
#[cube]
fn add_weighted_chunks<F: Float>(
    words: &Array<u32>,
    sees: u32,
    full: bool,
    b: &Tensor<F>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
    pool: &mut Shared<[Quad]>,
    sums: &mut Array<Quad>,
    #[comptime] h: usize,
    #[comptime] chunk: usize,
    #[comptime] count: usize,
    #[comptime] cfg: Config,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let second = comptime!(cfg.second());
    let column = comptime!(cfg.column());
    let step = comptime!(count * LANES);
    #[unroll]
    for n in 0..count {
        stage_rows::<F>(
            b,
            b_base,
            b_first,
            b_limit,
            comptime!((chunk + n) * COLUMNS).runtime(),
            pool,
            comptime!(second + n * LANES),
            step,
            comptime!(cfg.units()),
        );
    }
    sync_cube();
    if full {
        let mut y = Array::<Quad>::new(count);
        for j in 0..comptime!(COLUMNS) {
            let x = pool[j * column + line];
            #[unroll]
            for n in 0..count {
                y[n] = pool[second + j * step + comptime!(n * LANES) + lane];
            }
            #[unroll]
            for n in 0..count {
                #[unroll]
                for i in 0..OWN {
                    sums[comptime!((chunk + n) * OWN + i)] += Quad::new(x.extract(i)) * y[n];
                }
            }
        }
    } else if sees & comptime!(1u32 << h) != 0u32 {
        let mut y = Array::<Quad>::new(count);
        for j in 0..comptime!(COLUMNS) {
            let x = pool[j * column + line];
            #[unroll]
            for n in 0..count {
                y[n] = pool[second + j * step + comptime!(n * LANES) + lane];
            }
            #[unroll]
            for i in 0..OWN {
                if (words[comptime!(h * OWN + i)] >> (j as u32)) & 1u32 == 1u32 {
                    #[unroll]
                    for n in 0..count {
                        sums[comptime!((chunk + n) * OWN + i)] += Quad::new(x.extract(i)) * y[n];
                    }
                }
            }
        }
    }
    sync_cube();
}

/// The bits of all tiles that are taken at once.
fn every(cfg: Config) -> u32 {
    (1 << cfg.column_quads) - 1
}

/// Writes `sums` as [`add_weighted`] leaves them, each row times its factor.
#[cube]
pub fn write<F: Float>(
    sums: &Array<Quad>,
    factors: Quad,
    to: &mut Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    #[comptime] chunks: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let width = to.shape(3);
    let row_stride = to.stride(2);
    let column_stride = to.stride(3);
    #[unroll]
    for chunk in 0..chunks {
        #[unroll]
        for i in 0..OWN {
            let row = first + line * comptime!(OWN) + i;
            let quad = sums[comptime!(chunk * OWN + i)] * Quad::new(factors.extract(i));
            #[unroll]
            for k in 0..OWN {
                let column = chunk * COLUMNS + lane * comptime!(OWN) + k;
                if row < limit && column < width {
                    to[base + row * row_stride + column * column_stride] =
                        F::cast_from(quad.extract(k));
                }
            }
        }
    }
}
