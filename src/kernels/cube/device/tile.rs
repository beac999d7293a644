//! The two matrix products of a tile, through shared memory.

use cubecl::prelude::*;

use super::{COLUMNS, Config, LANES, OWN, Quad};

/// Copies 32 columns of a tensor, from `column` on, of `rows` rows to shared memory:
/// `[column][row / 4]`, `step` places a column. What lies outside of the tensor is 0.
#[cube]
pub fn stage_columns<F: Float>(
    from: &Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    column: usize,
    pool: &mut Shared<[Quad]>,
    #[comptime] offset: usize,
    #[comptime] step: usize,
    #[comptime] rows: usize,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let own_column = unit % comptime!(COLUMNS);
    let line = unit / comptime!(COLUMNS);
    let inside = column + own_column < from.shape(3);
    let row_stride = from.stride(2);
    let at = base + (column + own_column) * from.stride(3);
    // Two places at once: more of them in flight need more registers than a unit has.
    let lines = comptime!(units / COLUMNS);
    let mut pair = line;
    while pair < comptime!(rows / OWN) {
        #[unroll]
        for n in 0..2usize {
            let place = pair + n * lines;
            let mut quad = Quad::new(0.0f32);
            #[unroll]
            for i in 0..OWN {
                let row = first + place * OWN + i;
                if inside && row < limit {
                    quad.insert(i, f32::cast_from(from[at + row * row_stride]));
                }
            }
            pool[offset + own_column * step + place] = quad;
        }
        pair += 2 * lines;
    }
}

/// Copies 32 columns of 32 rows of a tensor to shared memory: `[row][column / 4]`.
#[cube]
pub fn stage_rows<F: Float>(
    from: &Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    column: usize,
    pool: &mut Shared<[Quad]>,
    #[comptime] offset: usize,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let own_column = column + lane * comptime!(OWN);
    let width = from.shape(3);
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    #[unroll]
    for n in 0..comptime!(COLUMNS * LANES / units) {
        let row = line + n * comptime!(units / LANES);
        let at = base + (first + row) * row_stride + own_column * column_stride;
        let inside = first + row < limit;
        let mut quad = Quad::new(0.0f32);
        #[unroll]
        for k in 0..OWN {
            if inside && own_column + k < width {
                quad.insert(k, f32::cast_from(from[at + k * column_stride]));
            }
        }
        pool[offset + row * comptime!(LANES) + lane] = quad;
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

/// Adds to `sums`, of each unit's four rows its four columns, the dot products of a panel's rows of `a`
/// with 32 rows of `b`, if it `sees` any of them. Ends with a barrier.
#[cube]
pub fn add_dots<F: Float, G: Float>(
    a: &Tensor<F>,
    a_base: usize,
    a_first: usize,
    a_limit: usize,
    b: &Tensor<G>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
    sees: bool,
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
    let units = comptime!(cfg.units());
    let rows = comptime!(cfg.rows);
    for chunk in 0..chunks {
        let first = chunk * comptime!(COLUMNS);
        stage_columns::<F>(a, a_base, a_first, a_limit, first, pool, 0usize, column, rows, units);
        stage_columns::<G>(
            b,
            b_base,
            b_first,
            b_limit,
            first,
            pool,
            second,
            comptime!(LANES + 1),
            COLUMNS,
            units,
        );
        sync_cube();
        if sees {
            for c in 0..comptime!(COLUMNS) {
                let x = pool[c * column + line];
                let y = pool[second + c * comptime!(LANES + 1) + lane];
                #[unroll]
                for i in 0..OWN {
                    sums[i] += Quad::new(x.extract(i)) * y;
                }
            }
        }
        sync_cube();
    }
}

/// Leaves a unit's weights, of its four rows its four columns, where [`add_weighted`] reads them:
/// `[column][row / 4]`.
#[cube]
pub fn store_weights(weights: &Array<Quad>, pool: &mut Shared<[Quad]>, #[comptime] cfg: Config) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    #[unroll]
    for k in 0..OWN {
        let mut quad = Quad::new(0.0f32);
        #[unroll]
        for i in 0..OWN {
            quad.insert(i, weights[i].extract(k));
        }
        pool[(lane * comptime!(OWN) + k) * comptime!(cfg.column()) + line] = quad;
    }
}

/// Adds to `sums`, of every 32 columns and each unit's four rows its four columns, the weights that
/// [`store_weights`] left, times 32 rows of `b`, if it `sees` any of them. Unless the tile is full, only
/// what the rows' words name. Begins behind a barrier, and ends with one.
#[cube]
pub fn add_weighted<F: Float>(
    words: &Array<u32>,
    sees: bool,
    full: bool,
    b: &Tensor<F>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
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
    #[unroll]
    for chunk in 0..chunks {
        let first = chunk * COLUMNS;
        stage_rows::<F>(b, b_base, b_first, b_limit, first, pool, second, comptime!(cfg.units()));
        sync_cube();
        if full {
            for j in 0..comptime!(COLUMNS) {
                let x = pool[j * column + line];
                let y = pool[second + j * comptime!(LANES) + lane];
                #[unroll]
                for i in 0..OWN {
                    sums[chunk * OWN + i] += Quad::new(x.extract(i)) * y;
                }
            }
        } else if sees {
            for j in 0..comptime!(COLUMNS) {
                let x = pool[j * column + line];
                let y = pool[second + j * comptime!(LANES) + lane];
                #[unroll]
                for i in 0..OWN {
                    if (words[i] >> (j as u32)) & 1u32 == 1u32 {
                        sums[chunk * OWN + i] += Quad::new(x.extract(i)) * y;
                    }
                }
            }
        }
        sync_cube();
    }
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
            let quad = sums[chunk * OWN + i] * Quad::new(factors.extract(i));
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
