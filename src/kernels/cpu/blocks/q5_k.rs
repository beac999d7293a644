//! Q5_K: scales as in [`super_blocks`](super::super_blocks), 32 bytes, 128 bytes. `d q - m`
//!
//! The lower four bits of `q` lie as in [`q4_k`](super::q4_k); bit `j` of byte `i` of the 32 is the
//! fifth bit of number `32 j + i`.

use super::super_blocks::scales;
use super::{Block, Sixteen, bytes};

pub(super) struct Q5K;

impl Block for Q5K {
    const LENGTH: usize = 256;
    const BYTES: usize = 176;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let scales = scales(block);
        let fifths = [0, 1].map(|part| on.unsigned(bytes(block, 16 + 16 * part)));
        for group in 0..4 {
            let [low, high] = [0, 1].map(|half| scales[2 * group + half].map(|x| on.splat(x)));
            for part in 0..2 {
                let pairs = on.unsigned(bytes(block, 48 + 32 * group + 16 * part));
                let fifth = |half: usize| {
                    let bit = on.shift_right(fifths[part], (2 * group + half) as i32);
                    on.shift_left(on.and(bit, 1), 4)
                };
                let q = on.floats(on.or(on.and(pairs, 15), fifth(0)));
                take(4 * group + part, on.sub(on.mul(q, low[0]), low[1]));
                let q = on.floats(on.or(on.shift_right(pairs, 4), fifth(1)));
                take(4 * group + 2 + part, on.sub(on.mul(q, high[0]), high[1]));
            }
        }
    }
}
