//! Q5_0: `d` (f16), 4 bytes, 16 bytes. `d (q - 16)`
//!
//! Q5_1: `d`, `m` (f16), 4 bytes, 16 bytes. `d q + m`
//!
//! The lower four bits of `q` lie as in [`q4`](super::q4); bit `i` of the 4 bytes is the fifth of
//! number `i`.

use super::{Block, Sixteen, bytes, f16_at};

/// The five bits of each number, those of the four bytes at `start` and the 16 behind them.
#[inline(always)]
fn five_bits<S: Sixteen>(on: S, block: &[u8], start: usize) -> [S::Ints; 2] {
    let fifth = u32::from_le_bytes(*bytes(block, start));
    let pairs = on.unsigned(bytes(block, start + 4));
    [
        on.or(on.and(pairs, 15), on.choose(fifth as u16, 16)),
        on.or(on.shift_right(pairs, 4), on.choose((fifth >> 16) as u16, 16)),
    ]
}

pub(super) struct Q5_0;

impl Block for Q5_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 22;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let d = on.splat(f16_at(block, 0));
        for (i, q) in five_bits(on, block, 2).into_iter().enumerate() {
            take(i, on.mul(on.floats(on.less(q, 16)), d));
        }
    }
}

pub(super) struct Q5_1;

impl Block for Q5_1 {
    const LENGTH: usize = 32;
    const BYTES: usize = 24;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let (d, m) = (on.splat(f16_at(block, 0)), on.splat(f16_at(block, 2)));
        for (i, q) in five_bits(on, block, 4).into_iter().enumerate() {
            take(i, on.add(on.mul(on.floats(q), d), m));
        }
    }
}
