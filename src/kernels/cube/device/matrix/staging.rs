//! Rows of an input in shared memory, and what is no number among them.

use cubecl::prelude::*;

use super::super::{COLUMNS, OWN};
use super::layout::{Four, UNITS, input_row};

/// Whether a number is infinite or none.
#[cube]
pub fn is_odd(x: f32) -> bool {
    u32::reinterpret(x) & 0x7f80_0000u32 == 0x7f80_0000u32
}

/// Whether one of four is.
#[cube]
fn are_odd<F: Float>(four: Four<F>) -> bool {
    let mut odd = false;
    #[unroll]
    for k in 0..OWN {
        odd = odd || is_odd(f32::cast_from(four.extract(k)));
    }
    odd
}

/// Four neighbouring numbers of a row, whose first stands at `at` in column `column`. `N` is 4 where such
/// four stand in memory as one, and 1 otherwise.
#[cube]
pub fn load_four<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    at: usize,
    column: usize,
) -> Four<F> {
    let mut four = Four::<F>::new(F::from_int(0));
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

/// Copies 32 rows of a tensor, `first` and those after it, to shared memory, as tile `h`. What lies
/// outside of the tensor is 0. Where `watches`, the flag is set if some are no numbers.
#[cube]
pub fn stage<F: Float, N: Size>(
    from: &Tensor<Vector<F, N>>,
    base: usize,
    first: usize,
    limit: usize,
    to: &mut Shared<[Four<F>]>,
    watches: bool,
    flag: &mut Shared<[u32]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let quads = comptime!(chunks * COLUMNS / OWN);
    let row_length = comptime!(input_row(chunks));
    let row_stride = from.stride(2);
    let column_stride = from.stride(3);
    // Neighbouring units take neighbouring columns.
    #[unroll]
    for n in 0..comptime!(COLUMNS * quads / UNITS) {
        let cell = UNIT_POS as usize + comptime!(n * UNITS);
        let row = cell / quads;
        let quad = cell % quads;
        let mut four = Four::<F>::new(F::from_int(0));
        if first + row < limit {
            let at = base + (first + row) * row_stride + quad * OWN * column_stride;
            four = load_four::<F, N>(from, at, quad * OWN);
        }
        if watches {
            if are_odd::<F>(four) {
                flag[0] = 1u32;
            }
        }
        to[(comptime!(h * COLUMNS) + row) * row_length + quad] = four;
    }
}

/// Sets what is no number in tile `h` to 0.
#[cube]
pub fn clear_odd<F: Float>(
    staged: &mut Shared<[Four<F>]>,
    #[comptime] h: usize,
    #[comptime] chunks: usize,
) {
    let length = comptime!(COLUMNS * input_row(chunks));
    let mut cell = UNIT_POS as usize;
    while cell < length {
        let mut four = staged[comptime!(h * length) + cell];
        #[unroll]
        for k in 0..OWN {
            if is_odd(f32::cast_from(four.extract(k))) {
                four.insert(k, F::from_int(0));
            }
        }
        staged[comptime!(h * length) + cell] = four;
        cell += comptime!(UNITS);
    }
}
