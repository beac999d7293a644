//! Q8_0: `d` (f16), 32 times `q` (i8). `d q`

use super::{Block, Sixteen, bytes, f16_at};

pub(super) struct Q8_0;

impl Block for Q8_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 34;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let d = on.splat(f16_at(block, 0));
        for i in 0..2 {
            let q = on.signed(bytes(block, 2 + 16 * i));
            take(i, on.mul(on.floats(q), d));
        }
    }
}
