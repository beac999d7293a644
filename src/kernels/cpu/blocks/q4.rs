//! Q4_0: `d` (f16), 16 bytes. `d (q - 8)`
//!
//! Q4_1: `d`, `m` (f16), 16 bytes. `d q + m`
//!
//! The lower half of each byte is a number of the first 16, the upper half one of the last.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni};
use super::{Block, Sixteen, bytes, leading};

pub(super) struct Q4_0;

impl Block for Q4_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const UNIT: usize = 16;
    const BIAS: i32 = 8;
    const OFFSETS: Option<usize> = None;

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        leading::<Self, S>(on, unit)
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], take: impl FnMut(usize, S::Ints)) {
        four_bits(on, bytes(block, 2), take);
    }
}

pub(super) struct Q4_1;

impl Block for Q4_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 20;
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
        four_bits(on, bytes(block, 4), take);
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q4_0 {
    const EXCESS: i32 = Self::BIAS;
    type Vectors = [__m512i; 2];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], _at: usize) -> [__m512i; 2] {
        on.halves_of_each(on.sixteens_of_four::<{ Self::BYTES }, 2, WHOLE>(span))
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q4_1 {
    const EXCESS: i32 = 0;
    type Vectors = [__m512i; 2];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], _at: usize) -> [__m512i; 2] {
        on.halves_of_each(on.sixteens_of_four::<{ Self::BYTES }, 4, WHOLE>(span))
    }
}

#[inline(always)]
fn four_bits<S: Sixteen>(on: S, pairs: &[u8; 16], mut take: impl FnMut(usize, S::Ints)) {
    let pairs = on.unsigned(pairs);
    take(0, on.and(pairs, 15));
    take(1, on.shift_right(pairs, 4));
}
