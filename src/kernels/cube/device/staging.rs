//! Tiles in shared memory.

use cubecl::prelude::*;

use super::{COLUMNS, LANES, OWN, Quad};

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

/// Copies 32 columns of 32 rows of a tensor to shared memory: `[row][column / 4]`, `step` places a row.
#[cube]
pub fn stage_rows<F: Float>(
    from: &Tensor<F>,
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
        pool[offset + row * step + lane] = quad;
    }
}
