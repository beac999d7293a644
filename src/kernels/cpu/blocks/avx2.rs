//! Sixteen numbers with AVX2, as two vectors.
//!
//! A value of the type holds the proof that the machine has the instructions; the functions are inlined into
//! one that is compiled for them.

#[cfg(target_arch = "x86")]
use std::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use pulp::x86::V3;

use super::Sixteen;

/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(#[allow(dead_code)] V3);

impl Avx2 {
    #[inline(always)]
    pub fn new(proof: V3) -> Self {
        Self(proof)
    }

    /// Eight f16 from the lower halves of eight numbers: AVX2 promises no instruction for it.
    #[inline(always)]
    fn f16_bits(self, bits: __m256i) -> __m256 {
        // SAFETY: see below.
        unsafe {
            let sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)), 16);
            let rest = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)), 13);
            // The exponent's bias is 112 larger; multiplied, so that subnormal numbers come out right.
            let scale = _mm256_castsi256_ps(_mm256_set1_epi32((127 + 112) << 23));
            let finite = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(rest), scale));
            // Infinity and what is no number keep the largest exponent.
            let largest = _mm256_cmpgt_epi32(rest, _mm256_set1_epi32((0x7c00 << 13) - 1));
            let endless = _mm256_or_si256(rest, _mm256_set1_epi32(0x7f80_0000));
            let value = _mm256_blendv_epi8(finite, endless, largest);
            _mm256_castsi256_ps(_mm256_or_si256(value, sign))
        }
    }
}

/// Both halves by one expression.
macro_rules! halves {
    ($half:ident => $value:expr) => {
        [
            {
                let $half = 0;
                // SAFETY: see below.
                unsafe { $value }
            },
            {
                let $half = 1;
                // SAFETY: see below.
                unsafe { $value }
            },
        ]
    };
}

// SAFETY, of every block here: the machine has the instructions, as `self` proves; loads and stores
// need no alignment and stay within the array that the reference is to.
impl Sixteen for Avx2 {
    type Floats = [__m256; 2];
    type Ints = [__m256i; 2];

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], ahead: usize) {
        // SAFETY: a prefetch reads nothing, so that any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(ahead).cast()) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> [__m256; 2] {
        halves!(half => _mm256_loadu_ps(from.as_ptr().add(8 * half)))
    }

    #[inline(always)]
    fn store(self, x: [__m256; 2], to: &mut [f32; 16]) {
        halves!(half => _mm256_storeu_ps(to.as_mut_ptr().add(8 * half), x[half]));
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        halves!(_half => _mm256_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(half => _mm256_add_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn two(self, low: f32, high: f32) -> [__m256; 2] {
        let both = [low, high];
        halves!(half => _mm256_set1_ps(both[half]))
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        halves!(half => _mm256_mul_ps(a[half], b[half]))
    }

    #[inline(always)]
    fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        halves!(half => _mm256_fmadd_ps(a[half], b[half], c[half]))
    }

    #[inline(always)]
    fn sum(self, [low, high]: [__m256; 2]) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_add_ps(low, high);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)))
        }
    }

    #[inline(always)]
    fn unsigned(self, bytes: &[u8; 16]) -> [__m256i; 2] {
        halves!(half => {
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(8 * half).cast()))
        })
    }

    #[inline(always)]
    fn signed(self, bytes: &[u8; 16]) -> [__m256i; 2] {
        halves!(half => {
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(8 * half).cast()))
        })
    }

    #[inline(always)]
    fn and(self, x: [__m256i; 2], mask: i32) -> [__m256i; 2] {
        halves!(half => _mm256_and_si256(x[half], _mm256_set1_epi32(mask)))
    }

    #[inline(always)]
    fn or(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        halves!(half => _mm256_or_si256(a[half], b[half]))
    }

    #[inline(always)]
    fn less(self, x: [__m256i; 2], y: i32) -> [__m256i; 2] {
        halves!(half => _mm256_sub_epi32(x[half], _mm256_set1_epi32(y)))
    }

    #[inline(always)]
    fn shift_right(self, x: [__m256i; 2], bits: i32) -> [__m256i; 2] {
        halves!(half => _mm256_srl_epi32(x[half], _mm_cvtsi32_si128(bits)))
    }

    #[inline(always)]
    fn shift_left(self, x: [__m256i; 2], bits: i32) -> [__m256i; 2] {
        halves!(half => _mm256_sll_epi32(x[half], _mm_cvtsi32_si128(bits)))
    }

    #[inline(always)]
    fn choose(self, bits: u16, value: i32) -> [__m256i; 2] {
        halves!(half => {
            let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let bits = _mm256_set1_epi32(i32::from(bits) >> (8 * half));
            let chosen = _mm256_cmpeq_epi32(_mm256_and_si256(bits, each), each);
            _mm256_and_si256(chosen, _mm256_set1_epi32(value))
        })
    }

    #[inline(always)]
    fn floats(self, x: [__m256i; 2]) -> [__m256; 2] {
        halves!(half => _mm256_cvtepi32_ps(x[half]))
    }

    #[inline(always)]
    fn f16_halves(self, words: &[u32; 16]) -> [[__m256; 2]; 2] {
        let words = halves!(half => _mm256_loadu_si256(words.as_ptr().add(8 * half).cast()));
        let lower = self.and(words, 0xffff);
        let upper = self.shift_right(words, 16);
        [lower, upper].map(
            #[inline(always)]
            |[low, high]: [__m256i; 2]| [self.f16_bits(low), self.f16_bits(high)],
        )
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 32]) -> [__m256; 2] {
        let bits = halves!(half => {
            _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().add(16 * half).cast()))
        });
        bits.map(
            #[inline(always)]
            |bits| self.f16_bits(bits),
        )
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 32]) -> [__m256; 2] {
        halves!(half => {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().add(16 * half).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))
        })
    }

    #[inline(always)]
    fn bf16_halves(self, words: &[u8; 64]) -> [[__m256; 2]; 2] {
        let words = halves!(half => _mm256_loadu_si256(words.as_ptr().add(32 * half).cast()));
        [self.shift_left(words, 16), self.and(words, !0xffff)].map(
            #[inline(always)]
            |bits: [__m256i; 2]| halves!(half => _mm256_castsi256_ps(bits[half])),
        )
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 64]) -> [__m256; 2] {
        halves!(half => _mm256_loadu_ps(bytes.as_ptr().add(32 * half).cast()))
    }
}
