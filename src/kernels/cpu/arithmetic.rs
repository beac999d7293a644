//! Arithmetic on slices of f32 that compiles to vector instructions.
//!
//! Everything is plain multiplication and addition in a fixed order, so the results are the same
//! bits on every CPU and with any number of threads.

use std::mem::MaybeUninit;

use super::{memory, simd};

/// Elements that one task works on; fixed, so that no result depends on the number of threads.
pub(super) const BLOCK: usize = 1 << 14;

/// Elements that are worked on side by side: two of the widest vectors.
const LANES: usize = 32;

/// Runs `block` with the widest vector instructions that the CPU has.
#[inline(always)]
pub(super) fn vectorized(block: impl FnOnce()) {
    simd::arch().dispatch(block);
}

/// `output[i] = f(inputs[..][i])`, in parallel if it is worth it.
pub(super) fn map<const N: usize>(
    inputs: [&[f32]; N],
    f: impl Fn([f32; N]) -> f32 + Copy + Sync,
) -> Vec<f32> {
    let block = |start: usize, block: &mut [MaybeUninit<f32>]| {
        let inputs = inputs.map(|input| &input[start..start + block.len()]);
        vectorized(
            #[inline(always)]
            || fill(inputs, block, f),
        );
    };
    // SAFETY: `fill` writes all of a block.
    unsafe { memory::written_in_blocks(inputs[0].len(), BLOCK, block).0 }
}

/// `output[i] = f(inputs[..][i])`, all of one length, each element written.
#[inline(always)]
pub(super) fn fill<const N: usize>(
    inputs: [&[f32]; N],
    output: &mut [MaybeUninit<f32>],
    f: impl Fn([f32; N]) -> f32,
) {
    let whole = output.len() - output.len() % LANES;
    for start in (0..whole).step_by(LANES) {
        // Of a known length, so that nothing is checked within.
        let inputs = inputs.map(|input| &input[start..][..LANES]);
        let mut results = [0.0f32; LANES];
        for lane in 0..LANES {
            results[lane] = f(inputs.map(|input| input[lane]));
        }
        output[start..][..LANES].write_copy_of_slice(&results);
    }
    for i in whole..output.len() {
        output[i].write(f(inputs.map(|input| input[i])));
    }
}

/// `sum += x`
pub(super) fn add_to(sum: &mut [f32], x: &[f32]) {
    vectorized(
        #[inline(always)]
        || sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x),
    );
}

/// `eˣ` with a relative error of 2 ulp; `x` is limited to where that is a normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (fraction, power) = exp_parts(x);
    (fraction + 1.0) * power
}

/// `tanh(x)` with a relative error of a few ulp, small `x` included: `e / (e + 2)` with
/// `e = exp(2|x|) - 1`, in which nothing cancels.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    // tanh is 1 long before, and `e + 2` no infinity.
    let (fraction, power) = exp_parts((2.0 * x.abs()).min(60.0));
    let e = fraction * power + (power - 1.0);
    let tanh = (e / (e + 2.0)).copysign(x);
    // `min` above takes the number where one is NaN.
    if x.is_nan() { x } else { tanh }
}

/// `f` and a power of two `p` such that `eˣ = (1 + f) p`.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`, then a polynomial in `r` (Cephes, `expf`).
#[inline(always)]
fn exp_parts(x: f32) -> (f32, f32) {
    // Adding it rounds to an integer and leaves that integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    (p * r * r + r, power)
}

/// `Φ(x)`, the normal distribution, and `exp(-x²/2)`, both with a relative error of a few 1e-7.
///
/// `Φ(-|x|) = t/2 P(t) exp(-x²/2)` with `t = 1 / (1 + z/2)`, `z = |x|/√2`: the form of "Numerical
/// Recipes" (Press et al., section 6.2), but for the polynomial, which stands outside of the exponential
/// here, so that the density shares it. `P` fits `exp(z²) erfc(z) / t` with a relative error of 5e-8.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let t = 1.0 / (1.0 + 0.5 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let mut p = -0.058_992_777_f32;
    p = p * t + 0.284_201_98;
    p = p * t - 0.486_424_66;
    p = p * t + 0.277_176_4;
    p = p * t - 0.026_009_034;
    p = p * t + 0.202_424_51;
    p = p * t + 0.243_170_48;
    p = p * t + 0.282_366_07;
    p = p * t + 0.282_086_94;
    let exp = exp(-0.5 * x * x);
    let upper = 0.5 * t * p * exp;
    (if x < 0.0 { upper } else { 1.0 - upper }, exp)
}

/// The logistic function, and what it lacks to 1.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> [f32; 2] {
    let exp = exp(-x);
    let sigmoid = 1.0 / (1.0 + exp);
    [sigmoid, exp * sigmoid]
}

/// Lanes of a sum along a row: one of the widest vectors.
const SUM_LANES: usize = 16;

/// The sum of `term(rows[..][i])` along rows of one length.
#[inline(always)]
pub(super) fn sum_of<const N: usize>(rows: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0.0f32; SUM_LANES];
    let whole = rows[0].len() - rows[0].len() % SUM_LANES;
    for start in (0..whole).step_by(SUM_LANES) {
        // Of a known length, so that nothing is checked within.
        let rows = rows.map(|row| &row[start..][..SUM_LANES]);
        for lane in 0..SUM_LANES {
            lanes[lane] += term(rows.map(|row| row[lane]));
        }
    }
    let rest: f32 = (whole..rows[0].len()).map(|i| term(rows.map(|row| row[i]))).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `to[..][i] = f(from[..][i], to[..][i])` along rows of one length.
#[inline(always)]
pub(super) fn update<const N: usize, const M: usize>(
    from: [&[f32]; N],
    to: [&mut [f32]; M],
    f: impl Fn([f32; N], [f32; M]) -> [f32; M],
) {
    let len = from[0].len();
    let whole = len - len % SUM_LANES;
    for start in (0..whole).step_by(SUM_LANES) {
        let from = from.map(|row| &row[start..][..SUM_LANES]);
        // Read before anything is written, so that no row needs to be known not to overlap another.
        let mut results = [[0.0f32; SUM_LANES]; M];
        for m in 0..M {
            results[m].copy_from_slice(&to[m][start..][..SUM_LANES]);
        }
        for lane in 0..SUM_LANES {
            let before = std::array::from_fn(|m| results[m][lane]);
            let after = f(from.map(|row| row[lane]), before);
            for m in 0..M {
                results[m][lane] = after[m];
            }
        }
        for m in 0..M {
            to[m][start..][..SUM_LANES].copy_from_slice(&results[m]);
        }
    }
    for i in whole..len {
        let after = f(from.map(|row| row[i]), std::array::from_fn(|m| to[m][i]));
        for m in 0..M {
            to[m][i] = after[m];
        }
    }
}

/// The largest number of a row, NaN aside.
#[inline(always)]
pub(super) fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let rows = row.chunks_exact(LANES);
    let rest = rows.remainder();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    for row in rows {
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
}

/// The sum of `term` over a long row: in f32 over short pieces, in f64 over those.
#[inline(always)]
pub(super) fn long_sum(row: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    row.chunks(512).map(|piece| sum_of([piece], |[x]| term(x)) as f64).sum()
}
