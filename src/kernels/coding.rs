//! Rows of numbers in fewer bits than the kernels compute in.
//!
//! A row stands for itself: no code depends on what other rows hold, so that nothing of a later token
//! reaches an earlier one by its rounding.
//!
//! ```text
//! Bf16    one u16 a number: the upper half of an f32
//! F16     one u16 a number: IEEE 754 binary16
//! Q8_0    bytes: blocks of 32 numbers, each an f16 scale d and 32 int8 q:  x = d q
//! ```
//!
//! Q8_0 is ggml's block; the last one of a row is shorter where 32 does not divide the width.

use burn::tensor::{DType, TensorData};
use half::{bf16, f16};

/// How the numbers of a row are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Bf16,
    F16,
    Q8_0,
}

/// Numbers in a block of Q8_0.
pub(crate) const BLOCK: usize = 32;
/// Bytes of a block's scale, which stands before its numbers.
pub(crate) const SCALE: usize = 2;

impl Coding {
    /// Number of codes of a row of `width` numbers.
    pub(crate) fn row_len(self, width: usize) -> usize {
        match self {
            Self::Bf16 | Self::F16 => width,
            Self::Q8_0 => width + SCALE * width.div_ceil(BLOCK),
        }
    }

    /// The type of the codes.
    pub(crate) fn codes(self) -> DType {
        match self {
            Self::Bf16 | Self::F16 => DType::U16,
            Self::Q8_0 => DType::U8,
        }
    }

    /// The float type that is the same, if there is one.
    pub(crate) fn float(self) -> Option<DType> {
        match self {
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
            Self::Q8_0 => None,
        }
    }

    /// The codes of rows of `width` numbers each, rounded to the nearest.
    pub(crate) fn encode(self, numbers: &[f32], shape: [usize; 4]) -> TensorData {
        let [batch, heads, rows, width] = shape;
        let coded = [batch, heads, rows, self.row_len(width)];
        match self {
            Self::Bf16 => bits(numbers, coded, |x| bf16::from_f32(x).to_bits()),
            Self::F16 => bits(numbers, coded, |x| f16::from_f32(x).to_bits()),
            Self::Q8_0 => {
                let mut codes = Vec::with_capacity(coded.iter().product());
                for row in numbers.chunks_exact(width.max(1)) {
                    row.chunks(BLOCK).for_each(|block| encode_block(block, &mut codes));
                }
                TensorData::new(codes, coded)
            }
        }
    }

    /// What [`encode`](Self::encode) made codes of, rounded: rows of `width` numbers.
    pub(crate) fn decode(self, codes: &TensorData, width: usize) -> Vec<f32> {
        let halves = || codes.as_slice::<u16>().expect("codes of two bytes").iter();
        match self {
            Self::Bf16 => halves().map(|&bits| of_bf16(bits)).collect(),
            Self::F16 => halves().map(|&bits| of_f16(bits)).collect(),
            Self::Q8_0 => {
                let codes = codes.as_slice::<u8>().expect("codes of one byte");
                let rows = codes.chunks_exact(self.row_len(width).max(1));
                let blocks = rows.flat_map(|row| row.chunks(SCALE + BLOCK));
                blocks
                    .flat_map(|block| block[SCALE..].iter().map(|&q| of_q8(scale(block), q)))
                    .collect()
            }
        }
    }
}

fn bits(numbers: &[f32], shape: [usize; 4], of: impl Fn(f32) -> u16) -> TensorData {
    TensorData::new(numbers.iter().map(|&x| of(x)).collect(), shape)
}

/// Appends a block. Its scale is the largest magnitude by 127, rounded up to an f16 before the numbers
/// are divided by it, so that every number is off by half a scale at most. A block with a number that
/// is not finite, or beyond 127 times what f16 holds (8.3e6), is NaN as a whole.
fn encode_block(numbers: &[f32], codes: &mut Vec<u8>) {
    let largest = numbers.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let finite = numbers.iter().all(|x| x.is_finite());
    let exact = largest / 127.0;
    let mut scale = f16::from_f32(exact);
    if scale.to_f32() < exact {
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    if !finite || !scale.is_finite() {
        scale = f16::NAN;
    }
    codes.extend(scale.to_bits().to_le_bytes());
    let scale = scale.to_f32();
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    if inverse == 0.0 {
        codes.extend(std::iter::repeat_n(0, numbers.len()));
        return;
    }
    // Adding it rounds to a whole number, ties to even.
    const ROUND: f32 = 12_582_912.0;
    codes.extend(numbers.iter().map(|x| {
        let whole = (x * inverse + ROUND) - ROUND;
        whole as i8 as u8
    }));
}

#[inline(always)]
pub(crate) fn of_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// In steps that a compiler makes vectors of, whatever the instruction set: the bits in the places of
/// an f32 are the number but for the exponent's bias. No step has a subnormal f32 in it, which would
/// take a hundred times as long.
#[inline(always)]
pub(crate) fn of_f16(bits: u16) -> f32 {
    const INFINITE: u32 = 0x7c00 << 13;
    const BIAS: u32 = (127 - 15) << 23;
    const LEAST_NORMAL: u32 = BIAS + (1 << 23);
    let bits = bits as u32;
    let magnitude = (bits & 0x7fff) << 13;
    let normal = magnitude + BIAS;
    // a subnormal one, with a leading 1 put before it and taken away
    let subnormal = f32::from_bits(magnitude + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
    let finite = if magnitude < 1 << 23 { subnormal.to_bits() } else { normal };
    let number = if magnitude >= INFINITE { normal + BIAS } else { finite };
    f32::from_bits(number | (bits & 0x8000) << 16)
}

/// The scale of a block of Q8_0.
#[inline(always)]
pub(crate) fn scale(block: &[u8]) -> f32 {
    of_f16(u16::from_le_bytes([block[0], block[1]]))
}

#[inline(always)]
fn of_q8(scale: f32, q: u8) -> f32 {
    scale * f32::from(q as i8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Bf16, Coding::F16, Coding::Q8_0];

    /// There and back, in one row.
    fn rounded(coding: Coding, numbers: &[f32]) -> Vec<f32> {
        let codes = coding.encode(numbers, [1, 1, 1, numbers.len()]);
        assert_eq!(codes.dtype(), coding.codes());
        assert_eq!(codes.num_elements(), coding.row_len(numbers.len()));
        coding.decode(&codes, numbers.len())
    }

    /// Every f16 and every bf16 that there is, against the half crate.
    #[test]
    fn halves_are_what_they_are() {
        for bits in 0..=u16::MAX {
            let (wide, narrow) = (of_f16(bits), f16::from_bits(bits));
            assert!(
                wide.to_bits() == narrow.to_f32().to_bits() || narrow.is_nan() && wide.is_nan()
            );
            let (wide, narrow) = (of_bf16(bits), bf16::from_bits(bits));
            assert!(
                wide.to_bits() == narrow.to_f32().to_bits() || narrow.is_nan() && wide.is_nan()
            );
        }
    }

    /// A block by hand: scale 127 / 127 = 1, and the last one of the row, of one number.
    #[test]
    fn a_row_of_q8_0_by_hand() {
        let mut row = vec![0.0; 33];
        row[..4].copy_from_slice(&[127.0, -3.4, 2.5, -126.6]);
        row[32] = -0.5;
        let codes = Coding::Q8_0.encode(&row, [1, 1, 1, 33]);
        let codes = codes.as_slice::<u8>().unwrap();
        let one = f16::ONE.to_bits().to_le_bytes();
        assert_eq!(codes[..6], [one[0], one[1], 127, -3i8 as u8, 2, -127i8 as u8]);
        // rounded up: 0.5 / 127 lies between two f16, nearer to the lower one
        let scale = (f16::from_f32(0.5 / 127.0).to_bits() + 1).to_le_bytes();
        assert_eq!(codes[34..], [scale[0], scale[1], -127i8 as u8]);
    }

    /// What is not finite stays so; in Q8_0 with its whole block, and with no other.
    #[test]
    fn what_is_not_finite() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
            for coding in ALL {
                let mut row = vec![1.0; 40];
                row[3] = x;
                let got = rounded(coding, &row);
                match coding {
                    Coding::Q8_0 => assert!(got[..32].iter().all(|x| x.is_nan())),
                    Coding::Bf16 if x.is_finite() => assert!((got[3] / x - 1.0).abs() < 4e-3),
                    _ => assert!(!got[3].is_finite()),
                }
                assert!(got[32..].iter().all(|x| (x - 1.0).abs() < 4e-3), "{coding:?}");
            }
        }
        assert_eq!(rounded(Coding::Q8_0, &[0.0; 35]), [0.0; 35]);
        assert_eq!(rounded(Coding::Q8_0, &[1e-9; 3]), [0.0; 3]);
    }

    proptest! {
        /// No number is off by more than its precision says.
        #[test]
        fn the_nearest(
            numbers in proptest::collection::vec(-1.0f32..1.0, 1..100),
            exponent in -3i32..12,
        ) {
            let numbers: Vec<_> = numbers.iter().map(|x| x * 2f32.powi(exponent)).collect();
            for coding in ALL {
                let got = rounded(coding, &numbers);
                for (at, (&got, &x)) in got.iter().zip(&numbers).enumerate() {
                    let block = &numbers[at / BLOCK * BLOCK..numbers.len().min((at / BLOCK + 1) * BLOCK)];
                    let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                    let allowed = match coding {
                        Coding::Bf16 => x.abs() / 256.0,
                        Coding::F16 => x.abs() / 2048.0 + 3e-8,
                        // half a scale, which was rounded up
                        Coding::Q8_0 => largest / 254.0 * (1.0 + 1.0 / 1024.0) + 3e-8,
                    };
                    prop_assert!((got - x).abs() <= allowed, "{coding:?}: {got}, not {x}");
                }
            }
        }
    }
}
