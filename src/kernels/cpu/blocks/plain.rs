//! Numbers that stand by themselves.

use super::{Plain, Sixteen, bytes};

pub(super) struct F32;

impl Plain for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    fn floats<S: Sixteen>(on: S, all: &[u8]) -> S::Floats {
        on.f32s(bytes(all, 0))
    }
}

pub(super) struct F16;

impl Plain for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn floats<S: Sixteen>(on: S, all: &[u8]) -> S::Floats {
        on.f16s(bytes(all, 0))
    }
}

pub(super) struct Bf16;

impl Plain for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    fn floats<S: Sixteen>(on: S, all: &[u8]) -> S::Floats {
        on.bf16s(bytes(all, 0))
    }

    /// Those with an even place, then the others: a number is half of a word.
    #[inline(always)]
    fn pair<S: Sixteen>(on: S, all: &[u8]) -> [S::Floats; 2] {
        on.bf16_halves(bytes(all, 0))
    }
}
