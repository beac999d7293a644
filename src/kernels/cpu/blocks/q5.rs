//! Q5_0: `d` (f16), 4 bytes, 16 bytes. `d (q - 16)`
//!
//! Q5_1: `d`, `m` (f16), 4 bytes, 16 bytes. `d q + m`
//!
//! The lower four bits of `q` lie as in [`q4`](super::q4); bit `i` of the 4 bytes is the fifth of
//! number `i`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni};
use super::{Block, Sixteen, bytes, leading};

pub(super) struct Q5_0;

impl Block for Q5_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const UNIT: usize = 16;
    const BIAS: i32 = 16;
    const OFFSETS: Option<usize> = None;

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        leading::<Self, S>(on, unit)
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], take: impl FnMut(usize, S::Ints)) {
        five_bits(on, bytes(block, 2), bytes(block, 6), take);
    }
}

pub(super) struct Q5_1;

impl Block for Q5_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const UNIT: usize = 16;
    const BIAS: i32 = 0;
    const OFFSETS: Option<usize> = Some(0);

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        leading::<Self, S>(on, unit)
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], take: impl FnMut(usize, S::Ints)) {
        five_bits(on, bytes(block, 4), bytes(block, 8), take);
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q5_0 {
    const EXCESS: i32 = Self::BIAS;
    type Vectors = [__m512i; 2];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], _at: usize) -> [__m512i; 2] {
        let [lower, upper] =
            on.halves_of_each(on.sixteens_of_four::<{ Self::BYTES }, 6, WHOLE>(span));
        let [first, last] = fifths::<{ Self::BYTES }, 2>(span);
        [on.add_sixteen(lower, first), on.add_sixteen(upper, last)]
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q5_1 {
    const EXCESS: i32 = 0;
    type Vectors = [__m512i; 2];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], _at: usize) -> [__m512i; 2] {
        let [lower, upper] =
            on.halves_of_each(on.sixteens_of_four::<{ Self::BYTES }, 8, WHOLE>(span));
        let [first, last] = fifths::<{ Self::BYTES }, 4>(span);
        [on.add_sixteen(lower, first), on.add_sixteen(upper, last)]
    }
}

#[inline(always)]
fn five_bits<S: Sixteen>(
    on: S,
    fifths: &[u8; 4],
    pairs: &[u8; 16],
    mut take: impl FnMut(usize, S::Ints),
) {
    let fifths = u32::from_le_bytes(*fifths);
    let pairs = on.unsigned(pairs);
    take(0, on.or(on.and(pairs, 15), on.choose(fifths as u16, 16)));
    take(1, on.or(on.shift_right(pairs, 4), on.choose((fifths >> 16) as u16, 16)));
}

/// The fifth bits of the first sixteen numbers of each of four blocks, from byte `start` of a block on,
/// and those of the last sixteen; zeros for blocks that are missing.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fifths<const BYTES: usize, const START: usize>(blocks: &[u8]) -> [u64; 2] {
    let mut fifths = [0; 2];
    for block in 0..4 {
        let at = block * BYTES + START;
        if at < blocks.len() {
            let bits = u32::from_le_bytes(*bytes(blocks, at));
            fifths[0] |= u64::from(bits as u16) << (16 * block);
            fifths[1] |= u64::from(bits >> 16) << (16 * block);
        }
    }
    fifths
}
