//! Q8_0: `d` (f16), 32 times `q` (i8). `d q`

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

#[cfg(target_arch = "x86_64")]
use super::vnni::{Bytes, Vnni, bytes_or_zeros};
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

#[cfg(target_arch = "x86_64")]
impl Bytes for Q8_0 {
    const EXCESS: i32 = 128;
    type Vectors = [__m512i; 2];

    #[inline(always)]
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], _at: usize) -> [__m512i; 2] {
        let [first, last] = on.halves_of_four([
            bytes_or_zeros::<32, WHOLE>(span, 2),
            bytes_or_zeros::<32, WHOLE>(span, 36),
            bytes_or_zeros::<32, WHOLE>(span, 70),
            bytes_or_zeros::<32, WHOLE>(span, 104),
        ]);
        [on.flip(first), on.flip(last)]
    }
}
