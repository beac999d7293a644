//! Q4_K: scales as in [`super_blocks`](super::super_blocks), 128 bytes. `d q - m`
//!
//! Of each 32 bytes the lower halves are 32 numbers, and the upper halves the next 32.

use super::super_blocks::scales;
use super::{Block, Sixteen, bytes};

pub(super) struct Q4K;

impl Block for Q4K {
    const LENGTH: usize = 256;
    const BYTES: usize = 144;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let scales = scales(block);
        for group in 0..4 {
            let [low, high] = [0, 1].map(|half| scales[2 * group + half].map(|x| on.splat(x)));
            for part in 0..2 {
                let pairs = on.unsigned(bytes(block, 16 + 32 * group + 16 * part));
                let q = on.floats(on.and(pairs, 15));
                take(4 * group + part, on.sub(on.mul(q, low[0]), low[1]));
                let q = on.floats(on.shift_right(pairs, 4));
                take(4 * group + 2 + part, on.sub(on.mul(q, high[0]), high[1]));
            }
        }
    }
}
