//! Q6_K: 128 bytes, 64 bytes, 16 scales (i8), `d` (f16). `d s (q - 32)`, with a scale `s` for each 16
//! numbers.
//!
//! Of each 64 of the 128 bytes the lower halves are the lower four bits of 64 numbers, and the upper
//! halves those of the next 64. Of each 32 of the 64 bytes bits `2 k` and `2 k + 1` are the upper two
//! of the `k`-th 32 numbers.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni};
use super::{Block, Sixteen, bytes, f16_at};

pub(super) struct Q6K;

impl Block for Q6K {
    const LENGTH: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const UNIT: usize = 1;
    const BIAS: i32 = 32;
    const OFFSETS: Option<usize> = None;

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        let scales = on.floats(on.signed(bytes(unit, 192)));
        [on.mul(scales, on.splat(f16_at(unit, 208))); 2]
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Ints)) {
        for half in 0..2 {
            for part in 0..2 {
                let at = 64 * half + 16 * part;
                let pairs = [on.unsigned(bytes(block, at)), on.unsigned(bytes(block, at + 32))];
                let upper = on.unsigned(bytes(block, 128 + 32 * half + 16 * part));
                let first = 8 * half + part;
                let bits = on.and(on.shift_left(upper, 4), 48);
                take(first, on.or(on.and(pairs[0], 15), bits));
                let bits = on.and(on.shift_left(upper, 2), 48);
                take(first + 2, on.or(on.and(pairs[1], 15), bits));
                let bits = on.and(upper, 48);
                take(first + 4, on.or(on.shift_right(pairs[0], 4), bits));
                let bits = on.and(on.shift_right(upper, 2), 48);
                take(first + 6, on.or(on.shift_right(pairs[1], 4), bits));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q6K {
    const EXCESS: i32 = Self::BIAS;
    type Vectors = [__m512i; 1];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, block: &[u8], at: usize) -> [__m512i; 1] {
        let (half, odd) = (at / 2, at % 2 == 1);
        let lower = on.load(bytes(block, 64 * half));
        let upper = bytes(block, 128 + 32 * half);
        let upper = on.both(upper, upper);
        let (lower, upper) = match odd {
            false => (lower, on.shift_right(upper, 0, 2)),
            true => (on.shift_right(lower, 4, 4), on.shift_right(upper, 4, 6)),
        };
        [on.or(on.and(lower, 15), on.up(on.and(upper, 3)))]
    }
}
