//! Sixteen numbers side by side: what the formats ask of an instruction set.

use pulp::Arch;

use crate::kernels::cpu::simd;

/// Sixteen numbers on one instruction set. A value of this type proves that the machine has it.
///
/// Every operation rounds as written here, so that results are the same bits everywhere; only
/// [`mul_add`](Self::mul_add) is one rounding or two, as the machine has it.
pub(in crate::kernels::cpu) trait Sixteen: Copy {
    /// Sixteen f32.
    type Floats: Copy;
    /// Sixteen i32.
    type Ints: Copy;

    /// Asks memory for what lies `ahead` bytes behind the start of `bytes`, whether that exists or not.
    fn prefetch(self, bytes: &[u8], ahead: usize);

    fn load(self, from: &[f32; 16]) -> Self::Floats;
    fn store(self, x: Self::Floats, to: &mut [f32; 16]);
    fn splat(self, x: f32) -> Self::Floats;
    /// Eight times `low`, then eight times `high`.
    fn two(self, low: f32, high: f32) -> Self::Floats;
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a b + c`
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The sum of all sixteen.
    fn sum(self, x: Self::Floats) -> f32;

    /// Bytes as numbers from 0 to 255.
    fn unsigned(self, bytes: &[u8; 16]) -> Self::Ints;
    /// Bytes as numbers from -128 to 127.
    fn signed(self, bytes: &[u8; 16]) -> Self::Ints;
    /// The bits of each that `mask` has.
    fn and(self, x: Self::Ints, mask: i32) -> Self::Ints;
    fn or(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `x - y`
    fn less(self, x: Self::Ints, y: i32) -> Self::Ints;
    /// Shifted towards the lower bits; zeros come in.
    fn shift_right(self, x: Self::Ints, bits: i32) -> Self::Ints;
    /// Shifted towards the higher bits.
    fn shift_left(self, x: Self::Ints, bits: i32) -> Self::Ints;
    /// `value` where `bits` has the bit of the number's index, else 0.
    fn choose(self, bits: u16, value: i32) -> Self::Ints;
    fn floats(self, x: Self::Ints) -> Self::Floats;

    /// The lower halves of sixteen words as f16, and the upper ones.
    fn f16_halves(self, words: &[u32; 16]) -> [Self::Floats; 2];
    /// The same of the first four bytes of up to sixteen blocks of so many bytes; zeros for those that
    /// are not there.
    #[inline(always)]
    fn leading_f16s(self, blocks: &[u8], block_bytes: usize) -> [Self::Floats; 2] {
        let mut words = [0; 16];
        for (word, block) in words.iter_mut().zip(blocks.chunks_exact(block_bytes)) {
            *word = u32::from_le_bytes(at::<4>(block, 0));
        }
        self.f16_halves(&words)
    }
    /// Sixteen f16, little-endian.
    fn f16s(self, bytes: &[u8; 32]) -> Self::Floats;
    /// Sixteen bf16, little-endian.
    fn bf16s(self, bytes: &[u8; 32]) -> Self::Floats;
    /// The lower halves of sixteen words as bf16, and the upper ones.
    fn bf16_halves(self, words: &[u8; 64]) -> [Self::Floats; 2];
    /// Sixteen f32, little-endian.
    fn f32s(self, bytes: &[u8; 64]) -> Self::Floats;
}

/// Work that is written over sixteen numbers.
pub(in crate::kernels::cpu) trait OnSixteen {
    type Output;

    /// To be marked `#[inline(always)]`, and all that it calls: the instructions are those of the
    /// function around it.
    fn run<S: Sixteen>(self, on: S) -> Self::Output;
}

/// Runs `work` on the instruction set that [`simd::arch`] says.
pub(in crate::kernels::cpu) fn on_sixteen<W: OnSixteen>(work: W) -> W::Output {
    match simd::arch() {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V4(v4) => v4.vectorize(
            #[inline(always)]
            || work.run(super::avx512::Avx512::new(v4)),
        ),
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V3(v3) => v3.vectorize(
            #[inline(always)]
            || work.run(super::avx2::Avx2::new(v3)),
        ),
        // With whatever vectors the compiler may use.
        other => other.dispatch(
            #[inline(always)]
            || work.run(Portable),
        ),
    }
}

/// Plain loops.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn each<T: Copy, U: Copy + Default>(x: [T; 16], f: impl Fn(T) -> U) -> [U; 16] {
    std::array::from_fn(|i| f(x[i]))
}

#[inline(always)]
fn pairs<T: Copy, U>(a: [T; 16], b: [T; 16], f: impl Fn(T, T) -> U) -> [U; 16] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// The little-endian number at `index` of `N` bytes each.
#[inline(always)]
fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
    bytes[index * N..][..N].try_into().expect("a range of its length")
}

impl Sixteen for Portable {
    type Floats = [f32; 16];
    type Ints = [i32; 16];

    #[inline(always)]
    fn prefetch(self, _bytes: &[u8], _ahead: usize) {}

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [f32; 16] {
        *from
    }

    #[inline(always)]
    fn store(self, x: [f32; 16], to: &mut [f32; 16]) {
        *to = x;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 16] {
        [x; 16]
    }

    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        pairs(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn two(self, low: f32, high: f32) -> [f32; 16] {
        std::array::from_fn(|i| if i < 8 { low } else { high })
    }

    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        pairs(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn sum(self, x: [f32; 16]) -> f32 {
        let x: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(always)]
    fn unsigned(self, bytes: &[u8; 16]) -> [i32; 16] {
        each(*bytes, i32::from)
    }

    #[inline(always)]
    fn signed(self, bytes: &[u8; 16]) -> [i32; 16] {
        each(*bytes, |byte| i32::from(byte as i8))
    }

    #[inline(always)]
    fn and(self, x: [i32; 16], mask: i32) -> [i32; 16] {
        each(x, |x| x & mask)
    }

    #[inline(always)]
    fn or(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        pairs(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn less(self, x: [i32; 16], y: i32) -> [i32; 16] {
        each(x, |x| x - y)
    }

    #[inline(always)]
    fn shift_right(self, x: [i32; 16], bits: i32) -> [i32; 16] {
        each(x, |x| ((x as u32) >> bits) as i32)
    }

    #[inline(always)]
    fn shift_left(self, x: [i32; 16], bits: i32) -> [i32; 16] {
        each(x, |x| x << bits)
    }

    #[inline(always)]
    fn choose(self, bits: u16, value: i32) -> [i32; 16] {
        std::array::from_fn(|i| if bits >> i & 1 == 1 { value } else { 0 })
    }

    #[inline(always)]
    fn floats(self, x: [i32; 16]) -> [f32; 16] {
        each(x, |x| x as f32)
    }

    #[inline(always)]
    fn f16_halves(self, words: &[u32; 16]) -> [[f32; 16]; 2] {
        [
            each(*words, |word| super::from_f16(word as u16)),
            each(*words, |word| super::from_f16((word >> 16) as u16)),
        ]
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| super::f16_at(bytes, 2 * i))
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 32]) -> [f32; 16] {
        std::array::from_fn(|i| {
            f32::from_bits(u32::from(u16::from_le_bytes(at::<2>(bytes, i))) << 16)
        })
    }

    #[inline(always)]
    fn bf16_halves(self, words: &[u8; 64]) -> [[f32; 16]; 2] {
        let words: [u32; 16] = std::array::from_fn(|i| u32::from_le_bytes(at::<4>(words, i)));
        [
            each(words, |word| f32::from_bits(word << 16)),
            each(words, |w| f32::from_bits(w & !0xffff)),
        ]
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 64]) -> [f32; 16] {
        std::array::from_fn(|i| f32::from_le_bytes(at::<4>(bytes, i)))
    }
}
