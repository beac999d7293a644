//! Q5_K: `d`, `d_min`, scales and minima as in [`q4_k`](super::q4_k), 32 bytes, 128 bytes.
//! `d s q - d_min m`
//!
//! The lower four bits of `q` lie as in [`q4_k`](super::q4_k); bit `j` of byte `i` of the 32 is the
//! fifth bit of number `32 j + i`.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

use super::q4_k::scales_and_minima;
#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni};
use super::{Block, Sixteen, bytes};

pub(super) struct Q5K;

impl Block for Q5K {
    const LENGTH: usize = 256;
    const BYTES: usize = 176;
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
        let fifths = [on.unsigned(bytes(block, 16)), on.unsigned(bytes(block, 32))];
        // The bit of a group, at the place of the fifth.
        let fifth = |part: usize, group: usize| {
            let moved = match group {
                0..4 => on.shift_left(fifths[part], 4 - group as i32),
                _ => on.shift_right(fifths[part], group as i32 - 4),
            };
            on.and(moved, 16)
        };
        for two_groups in 0..4 {
            let at = 48 + 32 * two_groups;
            let pairs = [on.unsigned(bytes(block, at)), on.unsigned(bytes(block, at + 16))];
            for (part, &pair) in pairs.iter().enumerate() {
                let q = on.or(on.and(pair, 15), fifth(part, 2 * two_groups));
                take(4 * two_groups + part, q);
            }
            for (part, &pair) in pairs.iter().enumerate() {
                let q = on.or(on.shift_right(pair, 4), fifth(part, 2 * two_groups + 1));
                take(4 * two_groups + 2 + part, q);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Q5K {
    const EXCESS: i32 = 0;
    type Vectors = [__m512i; 1];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, block: &[u8], at: usize) -> [__m512i; 1] {
        let fifths = on.both(bytes(block, 16), bytes(block, 16));
        let bits = on.has(fifths, 1 << (2 * at), 2 << (2 * at));
        [on.add_sixteen(on.nibbles(bytes(block, 48 + 32 * at)), bits)]
    }
}
