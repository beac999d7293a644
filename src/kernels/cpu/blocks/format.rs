use std::fmt;

use super::expand;
use crate::{Error, Result};

/// How the numbers of a weight are stored: each by itself, or in blocks that share a scale, as
/// [ggml](https://github.com/ggml-org/ggml) lays them out.
///
/// A row of a matrix is a whole number of blocks, one behind the other; a number is `d · q`, or
/// `d · q + m` (`d · q − m` in the super-blocks of 256), rounded to f32 after each operation. Numbers
/// and scales are little-endian.
///
/// | format | numbers a block | bytes a block | bits a number |
/// |---|---|---|---|
/// | `F32` | 1 | 4 | 32 |
/// | `F16`, `Bf16` | 1 | 2 | 16 |
/// | `Q8_0` | 32 | 34 | 8.5 |
/// | `Q4_0` | 32 | 18 | 4.5 |
/// | `Q4_1` | 32 | 20 | 5 |
/// | `Q5_0` | 32 | 22 | 5.5 |
/// | `Q5_1` | 32 | 24 | 6 |
/// | `Q4K` | 256 | 144 | 4.5 |
/// | `Q5K` | 256 | 176 | 5.5 |
/// | `Q6K` | 256 | 210 | 6.5625 |
///
/// ```
/// use burn_decoder::weights::Format;
///
/// let format = Format::from_ggml(8).unwrap();
/// assert_eq!((format, format.row_bytes(64)), (Format::Q8_0, Some(68)));
/// let mut block = vec![0; 34];
/// block[1] = 0x3c; // d = 1 as f16
/// block[2] = 0xfd; // q = -3
/// assert_eq!(format.dequantize(&block)?[..2], [-3.0, 0.0]);
/// # Ok::<(), burn_decoder::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 16 bits.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// f16 scale, 8 bits signed.
    Q8_0,
    /// f16 scale, 4 bits less 8.
    Q4_0,
    /// f16 scale and f16 minimum, 4 bits.
    Q4_1,
    /// f16 scale, 5 bits less 16.
    Q5_0,
    /// f16 scale and f16 minimum, 5 bits.
    Q5_1,
    /// Super-blocks of 8 times 32: f16 scale of scales and of minima, 6 bits for each of these,
    /// 4 bits for a number.
    Q4K,
    /// The same with 5 bits for a number.
    Q5K,
    /// Super-blocks of 16 times 16: f16 scale of scales, 8 bits signed for each of these, 6 bits less
    /// 32 for a number.
    Q6K,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The format that ggml and GGUF files number so; nothing for one that is not in this list.
    #[must_use]
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.ggml() == number)
    }

    /// ggml's number for it (`ggml_type`).
    #[must_use]
    pub fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Its name, as ggml has it: `Q4_K`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Numbers of a block.
    #[must_use]
    pub const fn block_length(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Whether several numbers share a scale: such a weight can't be trained.
    #[must_use]
    pub const fn is_quantized(self) -> bool {
        self.block_length() > 1
    }

    /// Bytes of a row of `columns` numbers; nothing if that is no whole number of blocks, or more bytes
    /// than an address can count.
    #[must_use]
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        if columns.is_multiple_of(self.block_length()) {
            (columns / self.block_length()).checked_mul(self.block_bytes())
        } else {
            None
        }
    }

    /// The numbers of some blocks, in f32. Bit for bit those of the Python package `gguf`
    /// (`gguf.quants.dequantize`), with any instruction set.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if `bytes` is no whole number of blocks.
    pub fn dequantize(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let blocks = bytes.len() / self.block_bytes();
        if blocks * self.block_bytes() != bytes.len() {
            return Err(Error::Input {
                input: "blocks",
                expected: format!("a multiple of {} bytes in {self}", self.block_bytes()),
                got: bytes.len().to_string(),
            });
        }
        let mut numbers = vec![0.0; blocks * self.block_length()];
        expand(self, bytes, &mut numbers);
        Ok(numbers)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
