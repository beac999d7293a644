//! Sixteen numbers with AVX-512.
//!
//! A value of the type holds the proof that the machine has the instructions; the functions are inlined into
//! one that is compiled for them.

#[cfg(target_arch = "x86")]
use std::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use pulp::x86::V4;

use super::Sixteen;

/// AVX-512 (F, BW, CD, DQ, VL).
#[derive(Clone, Copy)]
pub(super) struct Avx512(#[allow(dead_code)] V4);

impl Avx512 {
    #[inline(always)]
    pub fn new(proof: V4) -> Self {
        Self(proof)
    }
}

impl Avx512 {
    /// The f16 in the lower half of each word.
    #[inline(always)]
    fn lower_f16s(self, words: __m512i) -> __m512 {
        // SAFETY: the machine has the instructions, as `self` proves.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)) }
    }
}

// No closure goes through the standard library here: it would be compiled without the instructions.
// SAFETY, of every block here: the machine has the instructions, as `self` proves; loads and stores
// need no alignment and stay within the array that the reference is to.
impl Sixteen for Avx512 {
    type Floats = __m512;
    type Ints = __m512i;

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], ahead: usize) {
        // SAFETY: a prefetch reads nothing, so that any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(ahead).cast()) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn two(self, low: f32, high: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high)) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn unsigned(self, bytes: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn signed(self, bytes: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn and(self, x: __m512i, mask: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(x, _mm512_set1_epi32(mask)) }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn less(self, x: __m512i, y: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sub_epi32(x, _mm512_set1_epi32(y)) }
    }

    #[inline(always)]
    fn shift_right(self, x: __m512i, bits: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits)) }
    }

    #[inline(always)]
    fn shift_left(self, x: __m512i, bits: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits)) }
    }

    #[inline(always)]
    fn choose(self, bits: u16, value: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_maskz_set1_epi32(bits, value) }
    }

    #[inline(always)]
    fn floats(self, x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn f16_halves(self, words: &[u32; 16]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            let words = _mm512_loadu_si512(words.as_ptr().cast());
            let upper = _mm512_srli_epi32(words, 16);
            [self.lower_f16s(words), self.lower_f16s(upper)]
        }
    }

    #[inline(always)]
    fn leading_f16s(self, blocks: &[u8], block_bytes: usize) -> [__m512; 2] {
        let count = blocks.len() / block_bytes.max(4);
        if count == 0 {
            return [self.splat(0.0); 2];
        }
        // Of blocks that are missing the last in their place, and then nothing: branches took longer.
        // Word by word: a gather took more than half of the time of a product (Q8_0 on Zen 4), and what
        // is stored in pieces can't be loaded at once before it has left the core.
        let word = |block: usize| {
            let at = block.min(count - 1) * block_bytes;
            // SAFETY: a block that is there has four bytes at least.
            unsafe { blocks.as_ptr().add(at).cast::<i32>().read_unaligned() }
        };
        // SAFETY: see above.
        let four = |first: usize| unsafe {
            _mm_set_epi32(word(first + 3), word(first + 2), word(first + 1), word(first))
        };
        if count <= 4 {
            // The last few of a row.
            // SAFETY: see above.
            return unsafe {
                let words = _mm_maskz_mov_epi32((1 << count) - 1, four(0));
                let scales = _mm_cvtph_ps(_mm_cvtepi32_epi16(words));
                let offsets = _mm_cvtph_ps(_mm_cvtepi32_epi16(_mm_srli_epi32::<16>(words)));
                [_mm512_zextps128_ps512(scales), _mm512_zextps128_ps512(offsets)]
            };
        }
        // SAFETY: see above.
        unsafe {
            let words = _mm512_castsi128_si512(four(0));
            let words = _mm512_inserti32x4::<1>(words, four(4));
            let words = _mm512_inserti32x4::<2>(words, four(8));
            let words = _mm512_inserti32x4::<3>(words, four(12));
            let there = ((1u32 << count.min(16)) - 1) as u16;
            let words = _mm512_maskz_mov_epi32(there, words);
            let upper = _mm512_srli_epi32(words, 16);
            [self.lower_f16s(words), self.lower_f16s(upper)]
        }
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 32]) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 32]) -> __m512 {
        // SAFETY: see above.
        let bits = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast())) };
        // SAFETY: see above.
        unsafe { _mm512_castsi512_ps(self.shift_left(bits, 16)) }
    }

    #[inline(always)]
    fn bf16_halves(self, words: &[u8; 64]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            let words = _mm512_loadu_si512(words.as_ptr().cast());
            let upper = _mm512_and_si512(words, _mm512_set1_epi32(!0xffff));
            [_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), _mm512_castsi512_ps(upper)]
        }
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 64]) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
    }
}
