//! The gradient of the sinks.

use cubecl::prelude::*;

use super::UNITS;

/// One cube a head: `-exp(sink - maximum) / sum * delta`, summed over its rows that are not dead.
#[cube(launch_unchecked)]
pub fn sinks_gradient<F: Float>(
    sinks: &Tensor<F>,
    numbers: &Tensor<f32>,
    d_sinks: &mut Tensor<F>,
    queries: u32,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let head = CUBE_POS_X as usize;
    let heads = sinks.shape(0);
    let all = numbers.shape(0) / 3;
    let length = queries as usize;
    let rows = all / heads; // of this head, in all batch rows
    let sink = f32::cast_from(sinks[head * sinks.stride(0)]);
    let mut parts = Shared::<[f32]>::new_slice(UNITS);
    let mut part = 0.0f32;
    let mut row = unit;
    while row < rows {
        let at = ((row / length) * heads + head) * length + row % length;
        let inverse = numbers[all + at];
        if inverse != 0.0f32 {
            part -= (sink - numbers[at]).exp() * inverse * numbers[2 * all + at];
        }
        row += comptime!(UNITS);
    }
    parts[unit] = part;
    sync_cube();
    if unit == 0 {
        let mut sum = 0.0f32;
        for n in 0..comptime!(UNITS) {
            sum += parts[n];
        }
        d_sinks[head] = F::cast_from(sum);
    }
}
