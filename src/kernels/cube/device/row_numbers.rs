//! What the gradients read of each row.

use cubecl::prelude::*;

use super::{LANES, UNITS};

/// Queries of a cube: a line of 8 units each.
pub const ROWS: usize = UNITS / LANES;

/// Writes `numbers`, `[3 * batch * heads * queries]`: each row's maximum; one over its sum (0 for a
/// dead row); and `delta`, its output times the output's gradient, summed.
///
/// 16 queries a cube: `CubeCount(queries / 16, heads, batch)`.
#[cube(launch_unchecked)]
pub fn row_numbers<F: Float>(
    out: &Tensor<F>,
    d_out: &Tensor<F>,
    statistics: &Tensor<f32>,
    numbers: &mut Tensor<f32>,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let lane = unit % comptime!(LANES);
    let line = unit / comptime!(LANES);
    let query = CUBE_POS_X as usize * comptime!(ROWS) + line;
    let head = CUBE_POS_Y as usize;
    let batch = CUBE_POS_Z as usize;
    let queries = out.shape(2);
    let width = out.shape(3);

    let mut parts = Shared::<[f32]>::new_slice(UNITS);
    let mut part = 0.0f32;
    if query < queries {
        let a = batch * out.stride(0) + head * out.stride(1) + query * out.stride(2);
        let b = batch * d_out.stride(0) + head * d_out.stride(1) + query * d_out.stride(2);
        let mut c = lane;
        while c < width {
            part += f32::cast_from(out[a + c * out.stride(3)])
                * f32::cast_from(d_out[b + c * d_out.stride(3)]);
            c += comptime!(LANES);
        }
    }
    parts[unit] = part;
    sync_cube();
    if lane == 0 && query < queries {
        let mut delta = 0.0f32;
        #[unroll]
        for n in 0..comptime!(LANES) {
            delta += parts[unit + n];
        }
        let row = (batch * out.shape(1) + head) * queries + query;
        let all = statistics.shape(0) / 2;
        let sum = statistics[all + row];
        let mut inverse = 0.0f32;
        if sum != 0.0f32 {
            inverse = 1.0f32 / sum;
        }
        numbers[row] = statistics[row];
        numbers[all + row] = inverse;
        numbers[2 * all + row] = delta;
    }
}
