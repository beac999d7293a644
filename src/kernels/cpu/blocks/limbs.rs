//! Rows of f32 as whole numbers in three limbs of 7 bits, for products in whole numbers.
//!
//! ```text
//! x = step a,   a = 2^14 high + 2^7 middle + low
//! ```
//!
//! with one step for each 32 numbers: the largest of them is [`MOST`] steps. That is 21 bits and a
//! sign, so that an `x` is off by at most 4.5e-7 of the largest of its 32: no more than a sum in f32 is
//! off by anyway. The products of the limbs with the numbers of a block are exact.

use std::arch::x86_64::*;

use super::Block;
use super::vnni::Vnni;
use super::whole::span;

/// The largest `a`. 128 times it, eight times, is an i32.
pub(super) const MOST: f32 = 2_080_000.0;
/// Limbs of a number: high, middle and low.
pub(super) const LIMBS: usize = 3;
/// Numbers below count as 0: their step would have no inverse. (2^-100)
const LEAST: f32 = 7.888_609e-31;
/// Numbers with a step of their own.
pub(super) const GROUP: usize = 32;

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
    /// High, middle and low, signed.
    pub limbs: [[u8; 64]; LIMBS],
    /// In the first part of a span: what `a` comes to in the numbers that one sum is of, times what bytes
    /// are more than what they stand for; to be taken off.
    pub excess: [i32; 16],
}

impl Limbs {
    /// Of a row for products with blocks of `B`.
    #[inline(always)]
    pub fn new<B: Block>(on: Vnni, x: &[f32]) -> Self {
        let zero = Part { limbs: [[0; 64]; LIMBS], excess: [0; 16] };
        let vectors = span::<B>() / 64;
        let mut parts = vec![zero; x.len().div_ceil(span::<B>()) * vectors];
        let unit = B::UNIT * B::LENGTH;
        let mut steps = vec![0.0; 16 * x.len().div_ceil(unit)];
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let (whole, step) = on.whole_numbers(x, MOST);
            for half in 0..2 {
                // Where the bytes of these sixteen stand in their span.
                let (part, first, at) = match vectors {
                    2 => (group / 4 * 2 + half, group / 4 * 2, group % 4 * 16),
                    _ => (group / 2, group / 2, group % 2 * 32 + half * 16),
                };
                for (to, limb) in parts[part].limbs.iter_mut().zip(on.limbs(whole[half])) {
                    on.store_limb(limb, &mut to[at..at + 16]);
                }
                if B::EXCESS != 0 {
                    let whole = on.numbers(whole[half]);
                    let sums = parts[first].excess[at / 4..].iter_mut();
                    for (sum, a) in sums.zip(whole.as_chunks::<4>().0) {
                        *sum -= B::EXCESS * (a[0] + a[1] + a[2] + a[3]);
                    }
                }
            }
            let (unit, at) = (group * GROUP / unit, group * GROUP % unit / B::GROUP);
            steps[16 * unit + at..][..GROUP / B::GROUP].fill(step);
        }
        Self { parts, steps }
    }
}

// SAFETY, of every block here: the machine has the instructions, as `self` proves; loads and stores need
// no alignment and stay within the array that the reference is to.
#[allow(clippy::unused_self)]
impl Vnni {
    /// `a` for each `x`, of which the largest is `most`, and the step.
    #[inline(always)]
    pub(super) fn whole_numbers(self, x: &[f32; GROUP], most: f32) -> ([__m512i; 2], f32) {
        // SAFETY: see above.
        unsafe {
            let x = [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[16..].as_ptr())];
            // As bits, of which those of what is no number are the largest.
            let sizes = _mm512_max_epi32(
                _mm512_castps_si512(_mm512_abs_ps(x[0])),
                _mm512_castps_si512(_mm512_abs_ps(x[1])),
            );
            let largest = f32::from_bits(_mm512_reduce_max_epi32(sizes) as u32);
            let zeros = [_mm512_setzero_si512(); 2];
            if !largest.is_finite() {
                return (zeros, f32::NAN); // for all products with it
            }
            if largest < LEAST {
                return (zeros, 0.0);
            }
            let inverse = _mm512_set1_ps(most / largest);
            let first = _mm512_cvtps_epi32(_mm512_mul_ps(x[0], inverse));
            let last = _mm512_cvtps_epi32(_mm512_mul_ps(x[1], inverse));
            ([first, last], largest / most)
        }
    }

    /// The limbs of sixteen numbers as signed bytes: high, middle and low.
    #[inline(always)]
    pub(super) fn limbs(self, a: __m512i) -> [__m128i; LIMBS] {
        // SAFETY: see above.
        unsafe {
            let half = _mm512_set1_epi32(64);
            let (a, rest) = self.lowest_limb(a);
            let (b, rest) = self.lowest_limb(rest);
            let low = _mm512_sub_epi32(a, half);
            let middle = _mm512_sub_epi32(b, half);
            [rest, middle, low].map(
                #[inline(always)]
                |limb| _mm512_cvtepi32_epi8(limb),
            )
        }
    }

    /// The lowest 7 bits of what is 64 more, and what is above them.
    #[inline(always)]
    fn lowest_limb(self, a: __m512i) -> (__m512i, __m512i) {
        // SAFETY: see above.
        unsafe {
            let a = _mm512_add_epi32(a, _mm512_set1_epi32(64));
            (_mm512_and_si512(a, _mm512_set1_epi32(127)), _mm512_srai_epi32::<7>(a))
        }
    }

    /// Writes sixteen bytes.
    ///
    /// # Panics
    ///
    /// If `to` has another length.
    #[inline(always)]
    pub(super) fn store_limb(self, limb: __m128i, to: &mut [u8]) {
        let to: &mut [u8; 16] = to.try_into().expect("sixteen bytes");
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), limb) }
    }

    #[inline(always)]
    fn numbers(self, x: __m512i) -> [i32; 16] {
        let mut numbers = [0; 16];
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), x) };
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::blocks::{q4_k::Q4K, q6_k::Q6K, q8::Q8_0};

    #[test]
    fn limbs_are_the_numbers_to_21_bits() {
        let Some(on) = Vnni::try_new() else { return };
        let number = |i: usize| ((i * 31) as f32 * 12.9898).sin() * 43758.547 % 1.0;
        for scale in [1e-25, 1.0, 1e30] {
            let x: Vec<f32> = (0..96).map(|i| number(i) * scale * (1 + i / 32) as f32).collect();
            let limbs = Limbs::new::<Q8_0>(on, &x);
            assert_eq!(limbs.parts.len(), 2);
            for (group, x) in x.chunks(32).enumerate() {
                let largest = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                let mut sums = [0; 4];
                for (i, &x) in x.iter().enumerate() {
                    // The first sixteen of each group, then the last.
                    let (part, at) = (&limbs.parts[i / 16], group * 16 + i % 16);
                    let [high, middle, low] = part.limbs.map(|limb| i32::from(limb[at] as i8));
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
        let Some(on) = Vnni::try_new() else { return };
        let x: Vec<f32> = (0..512).map(|i| (i / 32 + 1) as f32 * MOST).collect();
        let steps = |of: std::ops::Range<usize>| of.map(|i| i as f32).collect::<Vec<_>>();
        assert_eq!(Limbs::new::<Q8_0>(on, &x).steps, steps(1..17));
        let of_k = Limbs::new::<Q4K>(on, &x).steps;
        assert_eq!([&of_k[..8], &of_k[16..24]].concat(), steps(1..17));
        assert_eq!([&of_k[8..16], &of_k[24..]].concat(), [0.0; 16]);
        let twice: Vec<f32> = steps(1..17).iter().flat_map(|&step| [step, step]).collect();
        assert_eq!(Limbs::new::<Q6K>(on, &x).steps, twice);
    }

    #[test]
    fn what_is_no_number_stays_none_and_the_smallest_become_zero() {
        let Some(on) = Vnni::try_new() else { return };
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 64];
            x[40] = broken;
            let steps = Limbs::new::<Q8_0>(on, &x).steps;
            assert!(steps[0] > 0.0 && steps[1].is_nan());
        }
        let tiny = Limbs::new::<Q8_0>(on, &[1e-40; 32]);
        assert_eq!(tiny.steps[0], 0.0);
    }
}
