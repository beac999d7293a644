//! The two matrix products of tiles, through shared memory.

use cubecl::prelude::*;

use super::{COLUMNS, Config, LANES, OWN, Quad};

/// Four neighbouring numbers of a row, whose first stands at `at` in column `column`. `N` is 4 where such
/// four stand in memory as one, and 1 otherwise.
#[cube]
pub fn load_four<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    at: usize,
    column: usize,
) -> Vector<F, Const<4>> {
    let mut four = Vector::<F, Const<4>>::new(F::from_int(0));
    let width = from.shape(3);
    let at_once = from.vector_size();
    if comptime!(at_once == OWN) {
        if column < width {
            let read = from[at / OWN];
            #[unroll]
            for k in 0..OWN {
                four.insert(k, read.extract(k));
            }
        }
    } else {
        let column_stride = from.stride(3);
        #[unroll]
        for k in 0..OWN {
            if column + k < width {
                four.insert(k, from[at + k * column_stride].extract(0usize));
            }
        }
    }
    four
}

/// [`load_four`] in f32.
#[cube]
fn load_quad<F: Float, N: Size>(from: &Tensor<Vector<F, N>>, at: usize, column: usize) -> Quad {
    let four = load_four::<F, N>(from, at, column);
    let mut quad = Quad::new(0.0f32);
    #[unroll]
    for k in 0..OWN {
        quad.insert(k, f32::cast_from(four.extract(k)));
    }
    quad
}

/// Copies 32 columns of a tensor, from `column` on, of `rows` rows to shared memory:
/// `[column][row / 4]`, `step` places a column. What lies outside of the tensor is 0. Begins with unit
/// `shift`: units that one copy needs not may do another.
#[cube]
pub fn stage_columns<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    base: usize,
    first: usize,
    limit: usize,
    column: usize,
    pool: &mut Shared<[Quad]>,
    #[comptime] offset: usize,
    #[comptime] step: usize,
    #[comptime] rows: usize,
    #[comptime] shift: usize,
    #[comptime] units: usize,
) {
    let places = comptime!(rows / OWN);
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    // Blocks of four rows by four columns; neighbouring units have neighbouring rows.
    let mut block = (UNIT_POS as usize + shift) % units;
    while block < comptime!(places * LANES) {
        let place = block % places;
        let lane = block / places;
        let own_column = column + lane * OWN;
        let mut read = Array::<Quad>::new(OWN);
        #[unroll]
        for i in 0..OWN {
            let row = first + place * OWN + i;
            read[i] = Quad::new(0.0f32);
            if row < limit {
                let at = base + row * row_stride + own_column * column_stride;
                read[i] = load_quad::<F, N>(from, at, own_column);
            }
        }
        #[unroll]
        for k in 0..OWN {
            let mut quad = Quad::new(0.0f32);
            #[unroll]
            for i in 0..OWN {
                quad.insert(i, read[i].extract(k));
            }
            pool[offset + (lane * OWN + k) * step + place] = quad;
        }
        block += units;
    }
}

/// Copies 32 columns of 32 rows of a tensor to shared memory: `[row][column / 4]`, `step` places a row.
#[cube]
pub fn stage_rows<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    base: usize,
    first: usize,
    limit: usize,
    column: usize,
    pool: &mut Shared<[Quad]>,
    #[comptime] offset: usize,
    #[comptime] step: usize,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let own_column = column + lane * comptime!(OWN);
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    #[unroll]
    for n in 0..comptime!(COLUMNS * LANES / units) {
        let row = line + n * comptime!(units / LANES);
        let mut quad = Quad::new(0.0f32);
        if first + row < limit {
            let at = base + (first + row) * row_stride + own_column * column_stride;
            quad = load_quad::<F, N>(from, at, own_column);
        }
        pool[offset + row * step + lane] = quad;
    }
}

/// Sets every place to 0.
#[cube]
pub fn clear(quads: &mut Array<Quad>, #[comptime] count: usize) {
    #[unroll]
    for i in 0..count {
        quads[i] = Quad::new(0.0f32);
    }
}

/// Adds to `sums`, of each unit's squares, the dot products of a panel's rows of `a` with the rows of `b`
/// from each of `b_firsts` on, 32 a tile. Squares that `sees` has no bit for may be left out. Ends with a
/// barrier.
#[cube]
pub fn add_dots<F: Float, G: Float, N: Size>(
    a: &Tensor<Vector<F, N>>,
    a_base: usize,
    a_first: usize,
    a_limit: usize,
    b: &Tensor<Vector<G, N>>,
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
    let row_quads = comptime!(cfg.row_quads);
    let column_quads = comptime!(cfg.column_quads);
    let mut x = Array::<Quad>::new(row_quads);
    let mut y = Array::<Quad>::new(column_quads);
    for chunk in 0..chunks {
        let first = chunk * comptime!(COLUMNS);
        stage_columns::<F, N>(
            a, a_base, a_first, a_limit, first, pool, 0usize, column, rows, 0usize, units,
        );
        #[unroll]
        for h in 0..column_quads {
            stage_columns::<G, N>(
                b,
                b_base,
                b_firsts[h],
                b_limit,
                first,
                pool,
                comptime!(second + h * LANES),
                tile_column,
                COLUMNS,
                comptime!(h * COLUMNS / OWN * LANES),
                units,
            );
        }
        sync_cube();
        if sees == comptime!(every(cfg)) {
            for c in 0..comptime!(COLUMNS) {
                #[unroll]
                for g in 0..row_quads {
                    x[g] = pool[c * column + comptime!(g * cfg.lines()) + line];
                }
                #[unroll]
                for h in 0..column_quads {
                    y[h] = pool[second + c * tile_column + comptime!(h * LANES) + lane];
                }
                #[unroll]
                for g in 0..row_quads {
                    #[unroll]
                    for h in 0..column_quads {
                        #[unroll]
                        for i in 0..OWN {
                            sums[comptime!(square(cfg, g, h) + i)] +=
                                Quad::new(x[g].extract(i)) * y[h];
                        }
                    }
                }
            }
        } else if sees != 0u32 {
            #[unroll]
            for g in 0..row_quads {
                #[unroll]
                for h in 0..column_quads {
                    if sees & comptime!(bit(cfg, g, h)) != 0u32 {
                        for c in 0..comptime!(COLUMNS) {
                            let x = pool[c * column + comptime!(g * cfg.lines()) + line];
                            let y = pool[second + c * tile_column + comptime!(h * LANES) + lane];
                            #[unroll]
                            for i in 0..OWN {
                                sums[comptime!(square(cfg, g, h) + i)] +=
                                    Quad::new(x.extract(i)) * y;
                            }
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
pub fn store_weights(
    weights: &Array<Quad>,
    pool: &mut Shared<[Quad]>,
    #[comptime] h: usize,
    #[comptime] cfg: Config,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    #[unroll]
    for g in 0..comptime!(cfg.row_quads) {
        #[unroll]
        for k in 0..OWN {
            let mut quad = Quad::new(0.0f32);
            #[unroll]
            for i in 0..OWN {
                quad.insert(i, weights[comptime!(square(cfg, g, h) + i)].extract(k));
            }
            let place = comptime!(g * cfg.lines()) + line;
            pool[(lane * comptime!(OWN) + k) * comptime!(cfg.column()) + place] = quad;
        }
    }
}

/// Adds to `sums`, of every 32 columns and each unit's rows its four columns, the weights of tile `h`
/// that [`store_weights`] leaves, times 32 rows of `b`, where it `sees` any of them. Unless the tile is
/// full, only what the rows' words name. Nobody may be reading the second half of the pool when it
/// begins; it ends with a barrier.
#[cube]
pub fn add_weighted<F: Float, N: Size>(
    weights: &Array<Quad>,
    words: &Array<u32>,
    sees: u32,
    full: bool,
    b: &Tensor<Vector<F, N>>,
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
        add_weighted_chunks::<F, N>(
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
fn add_weighted_chunks<F: Float, N: Size>(
    words: &Array<u32>,
    sees: u32,
    full: bool,
    b: &Tensor<Vector<F, N>>,
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
    let row_quads = comptime!(cfg.row_quads);
    #[unroll]
    for n in 0..count {
        stage_rows::<F, N>(
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
        let mut x = Array::<Quad>::new(row_quads);
        let mut y = Array::<Quad>::new(count);
        for j in 0..comptime!(COLUMNS) {
            #[unroll]
            for g in 0..row_quads {
                x[g] = pool[j * column + comptime!(g * cfg.lines()) + line];
            }
            #[unroll]
            for n in 0..count {
                y[n] = pool[second + j * step + comptime!(n * LANES) + lane];
            }
            #[unroll]
            for g in 0..row_quads {
                #[unroll]
                for n in 0..count {
                    #[unroll]
                    for i in 0..OWN {
                        sums[comptime!(own_sum(cfg, chunk + n, g) + i)] +=
                            Quad::new(x[g].extract(i)) * y[n];
                    }
                }
            }
        }
    } else {
        #[unroll]
        for g in 0..row_quads {
            if sees & comptime!(bit(cfg, g, h)) != 0u32 {
                let mut y = Array::<Quad>::new(count);
                for j in 0..comptime!(COLUMNS) {
                    let x = pool[j * column + comptime!(g * cfg.lines()) + line];
                    #[unroll]
                    for n in 0..count {
                        y[n] = pool[second + j * step + comptime!(n * LANES) + lane];
                    }
                    #[unroll]
                    for i in 0..OWN {
                        if (words[comptime!(square(cfg, g, h) + i)] >> (j as u32)) & 1u32 == 1u32 {
                            #[unroll]
                            for n in 0..count {
                                sums[comptime!(own_sum(cfg, chunk + n, g) + i)] +=
                                    Quad::new(x.extract(i)) * y[n];
                            }
                        }
                    }
                }
            }
        }
    }
    sync_cube();
}

/// Where a unit keeps its square of row four `g` and tile `h`, and that square's words.
pub fn square(cfg: Config, g: usize, h: usize) -> usize {
    (g * cfg.column_quads + h) * OWN
}

/// The bit of a square.
pub fn bit(cfg: Config, g: usize, h: usize) -> u32 {
    1 << (g * cfg.column_quads + h)
}

/// The bits of all squares.
fn every(cfg: Config) -> u32 {
    (1 << cfg.squares()) - 1
}

/// Where a unit keeps its sums of 32 columns and row four `g`.
pub fn own_sum(cfg: Config, chunk: usize, g: usize) -> usize {
    (chunk * cfg.row_quads + g) * OWN
}

/// Writes `sums` as [`add_weighted`] leaves them, each row times its factor.
#[cube]
pub fn write<F: Float>(
    sums: &Array<Quad>,
    factors: &Array<Quad>,
    to: &mut Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    #[comptime] chunks: usize,
    #[comptime] cfg: Config,
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
        for g in 0..comptime!(cfg.row_quads) {
            #[unroll]
            for i in 0..OWN {
                let row = first + (comptime!(g * cfg.lines()) + line) * comptime!(OWN) + i;
                let quad =
                    sums[comptime!(own_sum(cfg, chunk, g) + i)] * Quad::new(factors[g].extract(i));
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
}
