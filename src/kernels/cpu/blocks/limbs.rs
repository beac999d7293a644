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

/// The largest `a`. 255 times it, four times, is an i32.
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

/// The limbs of 64 numbers.
#[derive(Clone)]
#[repr(C, align(64))]
pub(super) struct Part {
    pub high: [i8; 64],
    pub middle: [i8; 64],
    pub low: [i8; 64],
    /// What `a` comes to in each four numbers, times what bytes are more than what they stand for;
    /// to be taken off.
    pub excess: [i32; 16],
}

impl Limbs {
    /// Of a row for products with blocks of `B`, whose bytes are so much more than what they stand for.
    #[inline(always)]
    pub fn new<B: Block>(x: &[f32], excess: i32) -> Self {
        let zero = Part { high: [0; 64], middle: [0; 64], low: [0; 64], excess: [0; 16] };
        let mut parts = vec![zero; x.len().div_ceil(64)];
        let unit = B::UNIT * B::LENGTH;
        let mut steps = vec![0.0; 16 * x.len().div_ceil(unit)];
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let step = parts[group / 2].write(group % 2, x, excess);
            let (unit, at) = (group * GROUP / unit, group * GROUP % unit / B::GROUP);
            steps[16 * unit + at..][..GROUP / B::GROUP].fill(step);
        }
        Self { parts, steps }
    }
}

impl Part {
    /// Writes one half, and returns its step.
    #[inline(always)]
    fn write(&mut self, half: usize, x: &[f32; GROUP], excess: i32) -> f32 {
        /// Adding it rounds to a whole number, which the lowest bits then are.
        const ROUND: f32 = 12_582_912.0;
        // As bits, of which those of what is no number are the largest.
        let mut largest = 0;
        for x in x {
            largest = largest.max(x.to_bits() & 0x7fff_ffff);
        }
        let largest = f32::from_bits(largest);
        if !largest.is_finite() {
            return f32::NAN; // for all products with it
        }
        if largest < LEAST {
            return 0.0;
        }
        let inverse = MOST / largest;
        let mut whole = [0i32; GROUP];
        for i in 0..GROUP {
            whole[i] = (x[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        }
        let start = half * GROUP;
        let (high, middle, low) = (
            &mut self.high[start..start + GROUP],
            &mut self.middle[start..start + GROUP],
            &mut self.low[start..start + GROUP],
        );
        for i in 0..GROUP {
            let a = whole[i];
            let lowest = ((a + 64) & 127) - 64;
            let rest = (a - lowest) >> 7;
            let next = ((rest + 64) & 127) - 64;
            low[i] = lowest as i8;
            middle[i] = next as i8;
            high[i] = ((rest - next) >> 7) as i8;
        }
        for (to, a) in self.excess[half * 8..].iter_mut().zip(whole.as_chunks::<4>().0) {
            *to = -excess * (a[0] + a[1] + a[2] + a[3]);
        }
        largest / MOST
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
            for (group, x) in x.chunks(32).enumerate() {
                let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                let part = &limbs.parts[group / 2];
                let mut sums = [0; 8];
                for (i, &x) in x.iter().enumerate() {
                    let at = group % 2 * 32 + i;
                    let [high, middle, low] =
                        [&part.high, &part.middle, &part.low].map(|limb| limb[at] as i32);
                    let whole = (high << 14) + (middle << 7) + low;
                    sums[i / 4] += whole;
                    let got = whole as f64 * limbs.steps[group] as f64;
                    // Half a step, and two roundings of x in f32.
                    assert!((got - x as f64).abs() <= 4.5e-7 * largest as f64, "{got} for {x}");
                }
                assert_eq!(part.excess[group % 2 * 8..][..8], sums.map(|sum| -128 * sum));
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
