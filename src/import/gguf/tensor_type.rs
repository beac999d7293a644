//! The types of tensors: ggml's, by their numbers in the file.

/// A type of ggml's: values stand in blocks of so many, of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType {
    /// Its number.
    pub number: u32,
    /// As ggml spells it.
    pub name: &'static str,
    /// Values in a block; a row is a whole number of blocks.
    pub block: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

/// All types that the format has today.
const TYPES: [(u32, &str, usize, usize); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

impl TensorType {
    /// The type of this number.
    pub fn find(number: u32) -> Option<Self> {
        let (_, name, block, bytes) = TYPES.into_iter().find(|(known, ..)| *known == number)?;
        Some(Self { number, name, block, bytes })
    }

    /// The bytes of `values` values, if they are whole blocks and so many that a file can hold them.
    pub fn byte_len(&self, values: usize) -> Option<usize> {
        values.is_multiple_of(self.block).then(|| (values / self.block).checked_mul(self.bytes))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Format;

    #[test]
    fn the_formats_that_are_read_are_among_them() {
        for format in Format::ALL {
            let found = TensorType::find(format.ggml()).unwrap();
            assert_eq!((found.name, found.block), (format.name(), format.block_length()));
            assert_eq!(found.byte_len(512), format.row_bytes(512));
        }
        assert!(TensorType::find(4).is_none() && TensorType::find(1000).is_none());
        let q8_0 = TensorType::find(8).unwrap();
        assert_eq!((q8_0.byte_len(33), q8_0.byte_len(usize::MAX / 32 * 32)), (None, None));
    }
}
