//! Q6_K: 128 bytes, 64 bytes, 16 scales (i8), `d` (f16). `d s (q - 32)`, with a scale `s` for each 16
//! numbers.
//!
//! Of each 64 of the 128 bytes the lower halves are the lower four bits of 64 numbers, and the upper
//! halves those of the next 64. Of each 32 of the 64 bytes bits `2 k` and `2 k + 1` are the upper two
//! of the `k`-th 32 numbers.

use super::{Block, Sixteen, bytes, f16_at};

pub(super) struct Q6K;

impl Block for Q6K {
    const LENGTH: usize = 256;
    const BYTES: usize = 210;

    #[inline(always)]
    fn expand<S: Sixteen>(on: S, block: &[u8], mut take: impl FnMut(usize, S::Floats)) {
        let scales: &[u8; 16] = bytes(block, 192);
        let d = f16_at(block, 208);
        for half in 0..2 {
            for part in 0..2 {
                let upper = on.unsigned(bytes(block, 128 + 32 * half + 16 * part));
                for k in 0..4 {
                    let pairs = on.unsigned(bytes(block, 64 * half + 32 * (k % 2) + 16 * part));
                    let lower = if k < 2 { on.and(pairs, 15) } else { on.shift_right(pairs, 4) };
                    let upper = on.and(on.shift_right(upper, 2 * k as i32), 3);
                    let q = on.less(on.or(lower, on.shift_left(upper, 4)), 32);
                    let index = 8 * half + 2 * k + part;
                    let scale = d * f32::from(scales[index] as i8);
                    take(index, on.mul(on.floats(q), on.splat(scale)));
                }
            }
        }
    }
}
