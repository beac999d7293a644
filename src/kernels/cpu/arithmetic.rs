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
    let fill = |start: usize, block: &mut [MaybeUninit<f32>]| {
        let inputs = inputs.map(|input| &input[start..start + block.len()]);
        vectorized(
            #[inline(always)]
            || {
                let whole = block.len() - block.len() % LANES;
                let (vectors, rest) = block.split_at_mut(whole);
                for (i, output) in vectors.chunks_exact_mut(LANES).enumerate() {
                    // Of a known length, so that nothing is checked within.
                    let inputs = inputs.map(|input| &input[i * LANES..][..LANES]);
                    for lane in 0..LANES {
                        output[lane].write(f(inputs.map(|input| input[lane])));
                    }
                }
                for (i, output) in rest.iter_mut().enumerate() {
                    output.write(f(inputs.map(|input| input[whole + i])));
                }
            },
        );
    };
    // SAFETY: the vectors and the rest are all of a block, and `fill` writes each element of both.
    unsafe { memory::written_in_blocks(inputs[0].len(), BLOCK, fill).0 }
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

/// `Φ(x)`, the normal distribution, with a relative error of a few 1e-7.
///
/// `erfc` by its Chebyshev fit (Press et al., "Numerical Recipes", section 6.2).
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77f32;
    p = p * t - 0.822_152_23;
    p = p * t + 1.488_515_9;
    p = p * t - 1.135_204;
    p = p * t + 0.278_868_07;
    p = p * t - 0.186_288_06;
    p = p * t + 0.096_784_18;
    p = p * t + 0.374_091_96;
    p = p * t + 1.000_023_7;
    let upper = 0.5 * t * exp(p * t - 1.265_512_2 - z * z);
    if x < 0.0 { upper } else { 1.0 - upper }
}

/// The logistic function, and what it lacks to 1.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> [f32; 2] {
    let exp = exp(-x);
    let sigmoid = 1.0 / (1.0 + exp);
    [sigmoid, exp * sigmoid]
}

/// The sum, over 16 partial sums.
#[inline(always)]
pub(super) fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = len - len % 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..len).map(&term).sum();
    lanes.iter().sum::<f32>() + rest
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
    row.chunks(512).map(|piece| sum(piece.len(), |i| term(piece[i])) as f64).sum()
}
