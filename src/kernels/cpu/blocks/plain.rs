//! Numbers that stand by themselves, 32 at a time.

use super::{Block, Sixteen, bytes};

macro_rules! plain {
    ($name:ident, $bytes:literal, $read:ident, $doc:literal) => {
        #[doc = $doc]
        pub(super) struct $name;

        impl Block for $name {
            const LENGTH: usize = 32;
            const BYTES: usize = 32 * $bytes;

            #[inline(always)]
            fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
                for i in 0..2 {
                    take(i, on.$read(bytes(block, 16 * $bytes * i)));
                }
            }
        }
    };
}

plain!(F32, 4, f32s, "32 times f32.");
plain!(F16, 2, f16s, "32 times f16.");
plain!(Bf16, 2, bf16s, "32 times bf16.");
