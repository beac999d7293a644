//! Q8_0: `d` (f16), 32 times `q` (i8). `d q`

use super::{Block, Sixteen, bytes, leading};

pub(super) struct Q8_0;

impl Block for Q8_0 {
    const LENGTH: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const UNIT: usize = 16;
    const BIAS: i32 = 0;
    const OFFSETS: Option<usize> = None;

    #[inline(always)]
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
        leading::<Self, S>(on, unit)
    }

    #[inline(always)]
    fn whole<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Ints)) {
        take(0, on.signed(bytes(block, 2)));
        take(1, on.signed(bytes(block, 18)));
    }
}
