//! Q4_0: `d` (f16), 16 bytes. `d (q - 8)`
//!
//! Q4_1: `d`, `m` (f16), 16 bytes. `d q + m`
//!
//! The lower half of each byte is a number of the first 16, the upper half one of the last.

use super::{Block, Sixteen, bytes, f16_at};

pub(super) struct Q4_0;

impl Block for Q4_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 18;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let d = on.splat(f16_at(block, 0));
        let pairs = on.unsigned(bytes(block, 2));
        for (i, q) in [on.and(pairs, 15), on.shift_right(pairs, 4)].into_iter().enumerate() {
            take(i, on.mul(on.floats(on.less(q, 8)), d));
        }
    }
}

pub(super) struct Q4_1;

impl Block for Q4_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 20;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let (d, m) = (on.splat(f16_at(block, 0)), on.splat(f16_at(block, 2)));
        let pairs = on.unsigned(bytes(block, 4));
        for (i, q) in [on.and(pairs, 15), on.shift_right(pairs, 4)].into_iter().enumerate() {
            take(i, on.add(on.mul(on.floats(q), d), m));
        }
    }
}
