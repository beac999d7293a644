//! Q4_K: `d`, `d_min` (f16), 12 bytes with eight scales and eight minima, 128 bytes. `d s q - d_min m`,
//! with a scale `s` and a minimum `m` of 6 bits for each 32 numbers.
//!
//! Of each 32 of the 128 bytes the lower halves are 32 numbers, and the upper halves the next 32.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni};
use super::{Block, Sixteen, bytes, f16_at};

pub(super) struct Q4K;

impl Block for Q4K {
    const LENGTH: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const UNIT: usize = 1;
    const BIAS: i32 = 0;
    const OFFSETS: Option<usize> = Some(8);

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        scales_and_minima(on, unit)
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Ints)) {
        for two_groups in 0..4 {
            let at = 16 + 32 * two_groups;
            let pairs = [on.unsigned(bytes(block, at)), on.unsigned(bytes(block, at + 16))];
            take(4 * two_groups, on.and(pairs[0], 15));
            take(4 * two_groups + 1, on.and(pairs[1], 15));
            take(4 * two_groups + 2, on.shift_right(pairs[0], 4));
            take(4 * two_groups + 3, on.shift_right(pairs[1], 4));
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q4K {
    const EXCESS: i32 = 0;
    type Vectors = [__m512i; 1];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, block: &[u8], at: usize) -> [__m512i; 1] {
        [on.nibbles(bytes(block, 16 + 32 * at))]
    }
}

/// The eight scales, times `d`, and behind them the eight minima, times `-d_min`; twice.
///
/// ```text
/// byte 0..4    scale 0..4 in the lower 6 bits; the upper 2 are bits 4 and 5 of scale 4..8
/// byte 4..8    the same of the minima
/// byte 8..12   bits 0 to 3 of scale 4..8, and of minimum 4..8
/// ```
#[inline(always)]
pub(super) fn scales_and_minima<S: Sixteen>(on: S, block: &[u8]) -> [S::Floats; 2] {
    /// In each byte of a word.
    const LOWER_2: u32 = 0x0303_0303;
    const LOWER_4: u32 = 0x0f0f_0f0f;
    const LOWER_6: u32 = 0x3f3f_3f3f;
    let word = |index: usize| u32::from_le_bytes(*bytes(block, 4 + 4 * index));
    let [scales, minima, both] = [word(0), word(1), word(2)];
    let words = [
        scales & LOWER_6,
        both & LOWER_4 | (scales >> 6 & LOWER_2) << 4,
        minima & LOWER_6,
        both >> 4 & LOWER_4 | (minima >> 6 & LOWER_2) << 4,
    ];
    let mut numbers = [0; 16];
    for (bytes, word) in numbers.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    let factors = on.two(f16_at(block, 0), -f16_at(block, 2));
    [on.mul(on.floats(on.unsigned(&numbers)), factors); 2]
}
