//! What super-blocks of 256 numbers share: eight scales and eight minima of 6 bits in 12 bytes.
//!
//! ```text
//! byte 0..4    scale 0..4 in the lower 6 bits; the upper 2 are bits 4 and 5 of scale 4..8
//! byte 4..8    the same of the minima
//! byte 8..12   bits 0 to 3 of scale 4..8, then of minimum 4..8
//! ```

use super::{bytes, f16_at};

/// Scale and minimum of each 32 numbers, from the super-block's `d`, `d_min` (f16 each) and the 12
/// bytes behind them.
#[inline(always)]
pub(super) fn scales(block: &[u8]) -> [[f32; 2]; 8] {
    let [d, d_min] = [f16_at(block, 0), f16_at(block, 2)];
    let packed: &[u8; 12] = bytes(block, 4);
    std::array::from_fn(|i| {
        let (scale, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            let low = packed[i + 4];
            (low & 15 | packed[i - 4] >> 2 & 48, low >> 4 | packed[i] >> 2 & 48)
        };
        [d * f32::from(scale), d_min * f32::from(minimum)]
    })
}
