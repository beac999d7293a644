//! Rows of f32 as whole numbers in three limbs of 7 bits, for products in whole numbers.
//!
//! ```text
//! x = step a,   a = 2^14 high + 2^7 middle + low
//! ```
//!
//! with one step for each 32 numbers: the largest of them is [`MOST`] steps. That is 21 bits and a
//! sign, so that an `x` is off by at most 4.5e-7 of the largest of its 32: no more than a sum in f32 is
//! off by anyway. The products of the limbs with the numbers of a block are exact.

use super::Block;
use super::whole::span;

/// The largest `a`. 128 times it, eight times, is an i32.
const MOST: f32 = 2_080_000.0;
/// Numbers below count as 0: their step would have no inverse. (2^-100)
const LEAST: f32 = 7.888_609e-31;
/// Numbers with a step of their own.
const GROUP: usize = 32;

/// A row of `x`.
pub(super) struct Limbs {
    pub parts: Vec<Part>,
    /// The step of each group of the format, sixteen for each unit of blocks.
    pub steps: Vec<f32>,
}

/// The limbs of 64 numbers: those that a vector of bytes is multiplied with.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Part {
    /// High, middle and low.
    pub limbs: [[i8; 64]; 3],
    /// In the first part of a span: what `a` comes to in the numbers that one sum is of, times what bytes
    /// are more than what they stand for; to be taken off.
    pub excess: [i32; 16],
}

impl Limbs {
    /// Of a row for products with blocks of `B`, whose bytes are so much more than what they stand for.
    #[inline(always)]
    pub fn new<B: Block>(x: &[f32], excess: i32) -> Self {
        let zero = Part { limbs: [[0; 64]; 3], excess: [0; 16] };
        let vectors = span::<B>() / 64;
        let mut parts = vec![zero; x.len().div_ceil(span::<B>()) * vectors];
        let unit = B::UNIT * B::LENGTH;
        let mut steps = vec![0.0; 16 * x.len().div_ceil(unit)];
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let (whole, step) = whole_numbers(x);
            for (half, whole) in whole.as_chunks().0.iter().enumerate() {
                // Where the bytes of these sixteen stand in their span.
                let (part, first, at) = match vectors {
                    2 => (group / 4 * 2 + half, group / 4 * 2, group % 4 * 16),
                    _ => (group / 2, group / 2, group % 2 * 32 + half * 16),
                };
                parts[part].write(at, whole);
                let sums = parts[first].excess[at / 4..].iter_mut().zip(whole.as_chunks::<4>().0);
                for (sum, a) in sums {
                    *sum -= excess * (a[0] + a[1] + a[2] + a[3]);
                }
            }
            let (unit, at) = (group * GROUP / unit, group * GROUP % unit / B::GROUP);
            steps[16 * unit + at..][..GROUP / B::GROUP].fill(step);
        }
        Self { parts, steps }
    }
}

/// `a` for each `x`, and the step.
#[inline(always)]
fn whole_numbers(x: &[f32; GROUP]) -> ([i32; GROUP], f32) {
    /// Adding it rounds to a whole number, which the lowest bits then are.
    const ROUND: f32 = 12_582_912.0;
    let mut whole = [0; GROUP];
    // As bits, of which those of what is no number are the largest.
    let mut largest = 0;
    for x in x {
        largest = largest.max(x.to_bits() & 0x7fff_ffff);
    }
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return (whole, f32::NAN); // for all products with it
    }
    if largest < LEAST {
        return (whole, 0.0);
    }
    let inverse = MOST / largest;
    for i in 0..GROUP {
        whole[i] = (x[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    }
    (whole, largest / MOST)
}

impl Part {
    /// Writes the limbs of sixteen numbers.
    #[inline(always)]
    fn write(&mut self, at: usize, whole: &[i32; 16]) {
        let [high, middle, low] = &mut self.limbs;
        let [high, middle, low] =
            [&mut high[at..at + 16], &mut middle[at..at + 16], &mut low[at..at + 16]];
        for i in 0..16 {
            let a = whole[i];
            let lowest = ((a + 64) & 127) - 64;
            let rest = (a - lowest) >> 7;
            let next = ((rest + 64) & 127) - 64;
            low[i] = lowest as i8;
            middle[i] = next as i8;
            high[i] = ((rest - next) >> 7) as i8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::blocks::{q4_k::Q4K, q6_k::Q6K, q8::Q8_0};

    #[test]
    fn limbs_are_the_numbers_to_21_bits() {
        let number = |i: usize| ((i * 31) as f32 * 12.9898).sin() * 43758.547 % 1.0;
        for scale in [1e-25, 1.0, 1e30] {
            let x: Vec<f32> = (0..96).map(|i| number(i) * scale * (1 + i / 32) as f32).collect();
            let limbs = Limbs::new::<Q8_0>(&x, 128);
            assert_eq!(limbs.parts.len(), 2);
            for (group, x) in x.chunks(32).enumerate() {
                let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                let mut sums = [0; 4];
                for (i, &x) in x.iter().enumerate() {
                    // The first sixteen of each group, then the last.
                    let (part, at) = (&limbs.parts[i / 16], group * 16 + i % 16);
                    let [high, middle, low] = part.limbs.map(|limb| limb[at] as i32);
                    let whole = (high << 14) + (middle << 7) + low;
                    sums[i % 16 / 4] += whole;
                    let got = whole as f64 * limbs.steps[group] as f64;
                    // Half a step, and two roundings of x in f32.
                    assert!((got - x as f64).abs() <= 4.5e-7 * largest as f64, "{got} for {x}");
                }
                let excess = &limbs.parts[0].excess[4 * group..][..4];
                assert_eq!(excess, sums.map(|sum| -128 * sum));
            }
        }
    }

    #[test]
    fn steps_stand_where_a_format_has_its_scales() {
        let x: Vec<f32> = (0..512).map(|i| (i / 32 + 1) as f32 * MOST).collect();
        let steps = |of: std::ops::Range<usize>| of.map(|i| i as f32).collect::<Vec<_>>();
        assert_eq!(Limbs::new::<Q8_0>(&x, 0).steps, steps(1..17));
        let of_k = Limbs::new::<Q4K>(&x, 0).steps;
        assert_eq!([&of_k[..8], &of_k[16..24]].concat(), steps(1..17));
        assert_eq!([&of_k[8..16], &of_k[24..]].concat(), [0.0; 16]);
        let twice: Vec<f32> = steps(1..17).iter().flat_map(|&step| [step, step]).collect();
        assert_eq!(Limbs::new::<Q6K>(&x, 0).steps, twice);
    }

    #[test]
    fn what_is_no_number_stays_none_and_the_smallest_become_zero() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 64];
            x[40] = broken;
            let steps = Limbs::new::<Q8_0>(&x, 128).steps;
            assert!(steps[0] > 0.0 && steps[1].is_nan());
        }
        let tiny = Limbs::new::<Q8_0>(&[1e-40; 32], 128);
        assert_eq!(tiny.steps[0], 0.0);
    }
}
