//! The two matrix products of a tile, through shared memory.

use cubecl::prelude::*;

use super::{COLUMNS, LANES, LINES, OWN_COLUMNS, UNITS};

/// Copies 32 columns, from `column` on, of `rows` rows to shared memory, transposed: `[column][row]`.
/// What lies outside of the tensor is 0.
#[cube]
pub fn stage_transposed<F: Float>(
    from: &Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    column: usize,
    pool: &mut Shared<[f32]>,
    #[comptime] offset: usize,
    #[comptime] rows: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(COLUMNS);
    let line = unit / comptime!(COLUMNS);
    let c = column + lane;
    let row_stride = from.stride(2);
    let at = base + c * from.stride(3);
    let inside = c < from.shape(3);
    #[unroll]
    for n in 0..comptime!(rows * COLUMNS / UNITS) {
        let row = line + n * comptime!(UNITS / COLUMNS);
        let mut x = 0.0f32;
        if first + row < limit && inside {
            x = f32::cast_from(from[at + (first + row) * row_stride]);
        }
        pool[offset + lane * comptime!(rows + 1) + row] = x;
    }
}

/// Adds to `sums`, `[rows / 16][4]` of each unit, the dot products of `rows` rows of `a` with 32 rows
/// of `b`. Ends with a barrier.
#[cube]
pub fn add_dots<F: Float>(
    a: &Tensor<F>,
    a_base: usize,
    a_first: usize,
    a_limit: usize,
    b: &Tensor<F>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
    pool: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] rows: usize,
    #[comptime] chunks: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let own_rows = comptime!(rows / LINES);
    let b_offset = comptime!(COLUMNS * (rows + 1));
    let mut x = Array::<f32>::new(own_rows);
    let mut y = Array::<f32>::new(OWN_COLUMNS);
    for chunk in 0..chunks {
        let column = chunk * comptime!(COLUMNS);
        stage_transposed::<F>(a, a_base, a_first, a_limit, column, pool, 0usize, rows);
        stage_transposed::<F>(b, b_base, b_first, b_limit, column, pool, b_offset, COLUMNS);
        sync_cube();
        for c in 0..comptime!(COLUMNS) {
            let x_at = c * comptime!(rows + 1) + line * own_rows;
            let y_at = b_offset + c * comptime!(COLUMNS + 1) + lane;
            #[unroll]
            for i in 0..own_rows {
                x[i] = pool[x_at + i];
            }
            #[unroll]
            for j in 0..comptime!(OWN_COLUMNS) {
                y[j] = pool[y_at + j * comptime!(LANES)];
            }
            #[unroll]
            for i in 0..own_rows {
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    sums[i * comptime!(OWN_COLUMNS) + j] += x[i] * y[j];
                }
            }
        }
        sync_cube();
    }
}

/// Adds to `sums`, `[chunks][rows / 16][4]` of each unit, the weights at the pool's start,
/// `[rows][33]`, times 32 rows of `b`. Unless the tile is full, only what the row's word names. Ends
/// with a barrier.
#[cube]
pub fn add_weighted<F: Float>(
    words: &Shared<[u32]>,
    full: bool,
    b: &Tensor<F>,
    b_base: usize,
    b_first: usize,
    b_limit: usize,
    pool: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] rows: usize,
    #[comptime] chunks: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let own_rows = comptime!(rows / LINES);
    let chunk_at = comptime!(rows * (COLUMNS + 1));
    let c = unit % comptime!(COLUMNS);
    let r = unit / comptime!(COLUMNS);
    let weights_at = line * own_rows * comptime!(COLUMNS + 1);
    let width = b.shape(3);
    let mut x = Array::<f32>::new(own_rows);
    let mut y = Array::<f32>::new(OWN_COLUMNS);
    let mut own_words = Array::<u32>::new(own_rows);
    #[unroll]
    for i in 0..own_rows {
        own_words[i] = words[line * own_rows + i];
    }
    #[unroll]
    for chunk in 0..chunks {
        let column = chunk * comptime!(COLUMNS) + c;
        let at = b_base + column * b.stride(3);
        let row_stride = b.stride(2);
        #[unroll]
        for n in 0..comptime!(COLUMNS * COLUMNS / UNITS) {
            let row = r + n * comptime!(UNITS / COLUMNS);
            let mut from_b = 0.0f32;
            if b_first + row < b_limit && column < width {
                from_b = f32::cast_from(b[at + (b_first + row) * row_stride]);
            }
            pool[chunk_at + row * comptime!(COLUMNS) + c] = from_b;
        }
        sync_cube();
        let sum = chunk * comptime!(OWN_COLUMNS) * own_rows;
        for j in 0..comptime!(COLUMNS) {
            #[unroll]
            for i in 0..own_rows {
                x[i] = pool[weights_at + i * comptime!(COLUMNS + 1) + j];
            }
            #[unroll]
            for k in 0..comptime!(OWN_COLUMNS) {
                y[k] = pool[chunk_at + j * comptime!(COLUMNS) + lane + k * comptime!(LANES)];
            }
            if full {
                #[unroll]
                for i in 0..own_rows {
                    #[unroll]
                    for k in 0..comptime!(OWN_COLUMNS) {
                        sums[sum + i * comptime!(OWN_COLUMNS) + k] += x[i] * y[k];
                    }
                }
            } else {
                #[unroll]
                for i in 0..own_rows {
                    if (own_words[i] >> (j as u32)) & 1u32 == 1u32 {
                        #[unroll]
                        for k in 0..comptime!(OWN_COLUMNS) {
                            sums[sum + i * comptime!(OWN_COLUMNS) + k] += x[i] * y[k];
                        }
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
    sums: &Array<f32>,
    factors: &Array<f32>,
    to: &mut Tensor<F>,
    base: usize,
    first: usize,
    limit: usize,
    #[comptime] rows: usize,
    #[comptime] chunks: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let own_rows = comptime!(rows / LINES);
    let width = to.shape(3);
    let row_stride = to.stride(2);
    let column_stride = to.stride(3);
    #[unroll]
    for chunk in 0..chunks {
        #[unroll]
        for i in 0..own_rows {
            #[unroll]
            for k in 0..comptime!(OWN_COLUMNS) {
                let row = first + line * own_rows + i;
                let column = chunk * comptime!(COLUMNS) + lane + k * comptime!(LANES);
                if row < limit && column < width {
                    let at = base + row * row_stride + column * column_stride;
                    let sum = sums[(chunk * own_rows + i) * comptime!(OWN_COLUMNS) + k];
                    to[at] = F::cast_from(sum * factors[i]);
                }
            }
        }
    }
}
