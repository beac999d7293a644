//! The crate's `SeededDropout` in arithmetic of 32 bits: the same decisions on every device.

use cubecl::prelude::*;

/// A number of 64 bits.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub struct Wide {
    pub low: u32,
    pub high: u32,
}

#[cube]
fn add(a: Wide, b: Wide) -> Wide {
    let low = a.low + b.low;
    let mut high = a.high + b.high;
    if low < a.low {
        high += 1u32;
    }
    Wide { low, high }
}

/// The high half of a product of two numbers of 32 bits.
#[cube]
fn multiply_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu32;
    let a_high = a >> 16u32;
    let b_low = b & 0xffffu32;
    let b_high = b >> 16u32;
    let middle = a_high * b_low + ((a_low * b_low) >> 16u32);
    let other = a_low * b_high + (middle & 0xffffu32);
    a_high * b_high + (middle >> 16u32) + (other >> 16u32)
}

#[cube]
fn multiply(a: Wide, b: Wide) -> Wide {
    Wide { low: a.low * b.low, high: multiply_high(a.low, b.low) + a.low * b.high + a.high * b.low }
}

/// `a ^ (a >> by)`, `by` from 1 to 31.
#[cube]
fn fold(a: Wide, by: u32) -> Wide {
    Wide { low: a.low ^ ((a.low >> by) | (a.high << (32u32 - by))), high: a.high ^ (a.high >> by) }
}

/// One step of SplitMix64, from `state ^ index`.
#[cube]
pub fn mix(state: Wide, index: usize) -> Wide {
    let value = Wide { low: state.low ^ (index as u32), high: state.high };
    let value = add(value, Wide { low: 0x7f4a_7c15u32, high: 0x9e37_79b9u32 });
    let value = multiply(fold(value, 30u32), Wide { low: 0x1ce4_e5b9u32, high: 0xbf58_476du32 });
    let value = multiply(fold(value, 27u32), Wide { low: 0x1331_11ebu32, high: 0x94d0_49bbu32 });
    fold(value, 31u32)
}

/// Four numbers of 16 bits, the highest first, that are the seed; where the device drew them itself.
pub type Draws = ComptimeOption<OwnedTensor<i32>>;

/// The state that rows are mixed into: as the host made it of a seed, or made of what was drawn.
#[cube]
pub fn state(draws: &Draws, low: u32, high: u32) -> Wide {
    let mut state_low = low;
    let mut state_high = high;
    #[comptime]
    match draws {
        ComptimeOption::Some(draws) => {
            let seed = Wide {
                low: (u32::cast_from(draws[2]) << 16u32) | u32::cast_from(draws[3]),
                high: (u32::cast_from(draws[0]) << 16u32) | u32::cast_from(draws[1]),
            };
            let mixed = mix(seed, 0usize);
            state_low = mixed.low;
            state_high = mixed.high;
        }
        ComptimeOption::None => {}
    }
    Wide { low: state_low, high: state_high }
}

/// Whether the weight of a key is dropped, from the numbers of its row.
#[cube]
pub fn drops(row: Wide, key: usize, threshold: u32) -> bool {
    let mut bits = (key as u32) ^ row.low;
    bits ^= bits >> 16u32;
    bits *= 0x7feb_352du32;
    bits ^= bits >> 15u32;
    bits += row.high;
    bits *= 0x846c_a68bu32;
    (bits ^ (bits >> 16u32)) < threshold
}
