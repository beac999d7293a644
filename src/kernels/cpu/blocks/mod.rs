//! Weights in blocks: a few numbers that share a scale, as ggml lays them out.
//!
//! Each format is written once, over sixteen numbers at a time, and runs on every instruction set.
//!
//! In reading order: `format` (the list, with sizes and names), `sixteen` (what an instruction set has
//! to do), `avx2` and `avx512`; then the formats: `plain`, `q8`, `q4`, `q5`, `q4_k`, `q5_k` and `q6_k`; what is done
//! with all of them: `expand` (to f32) and `dot` (products with rows of f32). Where the machine has `vnni`
//! these are taken over by `whole` (products in whole numbers), with rows in `limbs`, and of many rows by
//! `panel`, with rows in a `sheet`, both turned to `column`s.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod column;
mod dot;
mod expand;
mod format;
#[cfg(target_arch = "x86_64")]
mod limbs;
#[cfg(target_arch = "x86_64")]
mod panel;
mod plain;
mod q4;
mod q4_k;
mod q5;
mod q5_k;
mod q6_k;
mod q8;
#[cfg(target_arch = "x86_64")]
mod sheet;
mod sixteen;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod whole;

pub(in crate::kernels::cpu) use dot::{ABREAST, Factor};
pub(crate) use expand::expand;
pub use format::Format;
pub(in crate::kernels::cpu) use sixteen::{OnSixteen, Sixteen, on_sixteen};

#[cfg(target_arch = "x86_64")]
pub(in crate::kernels::cpu) use column::OUTPUTS;
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels::cpu) use panel::{ManyRows, Panel};
#[cfg(target_arch = "x86_64")]
pub(in crate::kernels::cpu) use sheet::{ROWS as SHEET_ROWS, Sheet};
#[cfg(target_arch = "x86_64")]
use vnni::Bytes;

/// What a machine without the instructions needs of a format's bytes.
#[cfg(not(target_arch = "x86_64"))]
pub(in crate::kernels::cpu) trait Bytes {}
#[cfg(not(target_arch = "x86_64"))]
impl<T> Bytes for T {}

/// Numbers in blocks: whole numbers of a few bits, and a scale for each group of them.
///
/// A number is `scale (q - BIAS)`, plus an offset in some formats.
pub(in crate::kernels::cpu) trait Block: Bytes {
    /// Numbers of a block, a multiple of 16.
    const LENGTH: usize;
    /// Its bytes.
    const BYTES: usize;
    /// Numbers that share a scale: 16 or 32.
    const GROUP: usize;
    /// Blocks whose scales are found together: those of at most 16 groups.
    const UNIT: usize;
    /// What each `q` is less by.
    const BIAS: i32;
    /// Where the offsets of the groups begin among sixteen numbers, in a format that has them.
    const OFFSETS: Option<usize>;

    /// Scales and offsets of the groups of a unit, or of its first blocks if they are the last.
    fn scales<S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2];

    /// Gives each sixteen `q` of a block to `take`, with their index: 0 for the first sixteen. Those of
    /// a group come one after the other.
    ///
    /// # Panics
    ///
    /// If `block` has fewer bytes than [`BYTES`](Self::BYTES).
    fn whole<S: Sixteen>(on: S, block: &[u8], take: impl FnMut(usize, S::Ints));
}

/// Numbers that stand by themselves.
pub(in crate::kernels::cpu) trait Plain {
    /// Bytes of a number.
    const BYTES: usize;

    /// The first sixteen.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    fn floats<S: Sixteen>(on: S, bytes: &[u8]) -> S::Floats;

    /// The first 32, in the order in which products take them.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline(always)]
    fn pair<S: Sixteen>(on: S, bytes: &[u8]) -> [S::Floats; 2] {
        [Self::floats(on, bytes), Self::floats(on, &bytes[16 * Self::BYTES..])]
    }
}

/// Work on rows of a format, which it is written for as a type.
pub(in crate::kernels::cpu) trait OnFormat {
    type Output;

    fn blocks<B: Block>(self) -> Self::Output;
    fn plain<P: Plain>(self) -> Self::Output;
}

/// Runs `work` for `format`.
pub(in crate::kernels::cpu) fn on_format<W: OnFormat>(format: Format, work: W) -> W::Output {
    match format {
        Format::F32 => work.plain::<plain::F32>(),
        Format::F16 => work.plain::<plain::F16>(),
        Format::Bf16 => work.plain::<plain::Bf16>(),
        Format::Q8_0 => work.blocks::<q8::Q8_0>(),
        Format::Q4_0 => work.blocks::<q4::Q4_0>(),
        Format::Q4_1 => work.blocks::<q4::Q4_1>(),
        Format::Q5_0 => work.blocks::<q5::Q5_0>(),
        Format::Q5_1 => work.blocks::<q5::Q5_1>(),
        Format::Q4K => work.blocks::<q4_k::Q4K>(),
        Format::Q5K => work.blocks::<q5_k::Q5K>(),
        Format::Q6K => work.blocks::<q6_k::Q6K>(),
    }
}

/// Scale and offset, two f16 at the start of each block of `B`, of up to sixteen blocks. Of a format
/// with a scale alone the second is of no meaning.
#[inline(always)]
fn leading<B: Block, S: Sixteen>(on: S, unit: &[u8]) -> [S::Floats; 2] {
    on.leading_f16s(unit, B::BYTES)
}

/// `N` bytes from `start` on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], start: usize) -> &[u8; N] {
    block[start..start + N].try_into().expect("a range of its length")
}

/// The f16 at `start`.
#[inline(always)]
fn f16_at(block: &[u8], start: usize) -> f32 {
    from_f16(u16::from_le_bytes(*bytes(block, start)))
}

/// Written out for the common exponents: the conversion of the half crate asks for instructions that
/// the function around it may not have been compiled for.
#[inline(always)]
fn from_f16(bits: u16) -> f32 {
    let exponent = bits & 0x7c00;
    if exponent.wrapping_sub(0x0400) < 0x7800 {
        let sign = u32::from(bits & 0x8000) << 16;
        // The exponent's bias is 112 larger.
        f32::from_bits(sign | ((u32::from(bits & 0x7fff) << 13) + (112 << 23)))
    } else {
        rare_f16(bits)
    }
}

/// Zero, subnormal, infinite or not a number.
#[cold]
#[inline(never)]
fn rare_f16(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::kernels::cpu::simd;

    /// Blocks with random bits and extreme scales, and their numbers by the Python package gguf.
    fn fixture() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/blocks.safetensors"))
            .unwrap()
    }

    #[test]
    fn numbers_are_those_of_the_gguf_package_on_every_instruction_set() {
        let file = fixture();
        let file = SafeTensors::deserialize(&file).unwrap();
        for format in Format::ALL {
            let tensor = |what: &str| file.tensor(&format!("{format}.{what}")).unwrap();
            let bytes = tensor("bytes").data().to_vec();
            let expected: Vec<f32> = tensor("numbers")
                .data()
                .chunks(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            for arch in simd::tests::archs() {
                let got = simd::tests::on(arch, || format.dequantize(&bytes).unwrap());
                assert_eq!(got.len(), expected.len());
                for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                    // What is no number is none here; its bits say where it comes from.
                    let same =
                        got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                    assert!(same, "{format} on {arch:?}, number {i}: {got:e}, not {expected:e}");
                }
            }
        }
    }

    #[test]
    fn formats_are_numbered_and_measured_as_in_ggml() {
        for format in Format::ALL {
            assert_eq!(Format::from_ggml(format.ggml()), Some(format));
            assert_eq!(format.row_bytes(format.block_length() * 3), Some(format.block_bytes() * 3));
            // More bytes than can be counted, where a number takes more than one.
            let many = usize::MAX / 256 * 256;
            assert_eq!(
                format.row_bytes(many).is_none(),
                format.block_bytes() > format.block_length()
            );
        }
        assert_eq!([9, 10, 15, 31, u32::MAX].map(Format::from_ggml), [None; 5]);
        assert_eq!(Format::Q6K.row_bytes(128), None);
        assert_eq!(Format::Q8_0.row_bytes(0), Some(0));
    }

    #[test]
    fn a_part_of_a_block_is_refused() {
        for (format, bytes) in [(Format::Q8_0, 33), (Format::Q6K, 211), (Format::F16, 3)] {
            let error = format.dequantize(&vec![0; bytes]).unwrap_err().to_string();
            let expected = format!("a multiple of {} bytes in {format}", format.block_bytes());
            assert!(error.contains(&expected) && error.ends_with(&bytes.to_string()), "{error}");
        }
        assert!(Format::Q4K.dequantize(&[]).unwrap().is_empty());
    }
}
