//! AVX-512 with its instruction for four products of bytes each (VNNI): what `whole` is made of.

use std::arch::x86_64::*;
use std::hint::black_box;

use pulp::Arch;

use super::avx512::Avx512;
use super::limbs::Part;
use super::whole::span;
use super::{Block, Sixteen};
use crate::kernels::cpu::simd;

/// AVX-512 (F, BW, CD, DQ, VL) with VNNI. A value of this type proves that the machine has it.
#[derive(Clone, Copy)]
pub(in crate::kernels::cpu) struct Vnni {
    pub(super) sixteen: Avx512,
    /// The second, third and fourth four of sixteen. As constants the compiler would see through them,
    /// and take shuffles for what memory gives in its place.
    fours: [__mmask16; 3],
}

impl Vnni {
    pub fn try_new() -> Option<Self> {
        match simd::arch() {
            Arch::V4(v4) if simd::has_vnni() => {
                Some(Self { sixteen: Avx512::new(v4), fours: black_box([0x00f0, 0x0f00, 0xf000]) })
            }
            _ => None,
        }
    }

    /// Runs `work`, which is compiled for these instructions if it is marked `#[inline(always)]`.
    pub(super) fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni")]
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn imp<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: the machine has the instructions, as `self` proves.
        unsafe { imp(work) }
    }
}

/// A format's numbers as bytes.
pub(in crate::kernels::cpu) trait Bytes {
    /// What each byte is more than what it stands for.
    const EXCESS: i32;

    /// The bytes of a [span]: an array of vectors.
    type Vectors: Copy + AsRef<[__m512i]>;

    /// Of four blocks of 32 the first sixteen numbers of each, then the last sixteen of each. Of a block
    /// of 256, four times the same, numbers `64 at` to `64 at + 63`.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes.
    fn bytes(on: Vnni, blocks: [&[u8]; 4], at: usize) -> Self::Vectors;
}

// SAFETY, of every block in this file: the machine has the instructions, as `self` or `on` proves; loads
// and stores need no alignment and stay within the array that the reference is to, if not said otherwise.
#[allow(clippy::unused_self)]
impl Vnni {
    /// Both vectors, one behind the other.
    #[inline(always)]
    pub fn both(self, low: &[u8; 32], high: &[u8; 32]) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let low = _mm512_castsi256_si512(_mm256_loadu_si256(low.as_ptr().cast()));
            _mm512_inserti64x4::<1>(low, _mm256_loadu_si256(high.as_ptr().cast()))
        }
    }

    #[inline(always)]
    pub fn load(self, bytes: &[u8; 64]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// The four, one behind the other.
    #[inline(always)]
    pub fn four(self, bytes: [&[u8; 16]; 4]) -> __m512i {
        let [second, third, fourth] = self.fours;
        // SAFETY: see above.
        unsafe {
            let all = _mm512_broadcast_i32x4(self.sixteen_bytes(bytes[0]));
            let all = _mm512_mask_broadcast_i32x4(all, second, self.sixteen_bytes(bytes[1]));
            let all = _mm512_mask_broadcast_i32x4(all, third, self.sixteen_bytes(bytes[2]));
            _mm512_mask_broadcast_i32x4(all, fourth, self.sixteen_bytes(bytes[3]))
        }
    }

    #[inline(always)]
    fn sixteen_bytes(self, bytes: &[u8; 16]) -> __m128i {
        // SAFETY: see above.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// The first halves of the four, one behind the other, and the second halves.
    #[inline(always)]
    pub fn halves_of_four(self, bytes: [&[u8; 32]; 4]) -> [__m512i; 2] {
        let low = self.both(bytes[0], bytes[1]);
        let high = self.both(bytes[2], bytes[3]);
        // SAFETY: see above.
        unsafe {
            [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high),
            ]
        }
    }

    /// The lower halves of the bytes of all four, and the upper halves.
    #[inline(always)]
    pub fn nibbles_of_four(self, bytes: [&[u8; 16]; 4]) -> [__m512i; 2] {
        let all = self.four(bytes);
        // SAFETY: see above.
        let upper = unsafe { _mm512_srli_epi16::<4>(all) };
        [self.and(all, 15), self.and(upper, 15)]
    }

    /// The lower halves of 32 bytes, then their upper halves.
    #[inline(always)]
    pub fn nibbles(self, bytes: &[u8; 32]) -> __m512i {
        self.and(self.shift_right(self.both(bytes, bytes), 0, 4), 15)
    }

    /// Words of 64 bits shifted towards the lower bits, by `low` in the first half and by `high` in the
    /// second.
    #[inline(always)]
    pub fn shift_right(self, x: __m512i, low: i64, high: i64) -> __m512i {
        // SAFETY: see above.
        unsafe {
            _mm512_srlv_epi64(x, _mm512_set_epi64(high, high, high, high, low, low, low, low))
        }
    }

    /// The bits of each byte that `mask` has.
    #[inline(always)]
    pub fn and(self, x: __m512i, mask: i8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(x, _mm512_set1_epi8(mask)) }
    }

    #[inline(always)]
    pub fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(a, b) }
    }

    /// Each byte plus 128, signed to unsigned.
    #[inline(always)]
    pub fn flip(self, x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_xor_si512(x, _mm512_set1_epi8(-128)) }
    }

    /// 16 more for each byte whose bit is set.
    #[inline(always)]
    pub fn add_sixteen(self, x: __m512i, bits: u64) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_mask_add_epi8(x, bits, x, _mm512_set1_epi8(16)) }
    }

    /// Of each byte in the first half whether it has a bit of `low`, and in the second of `high`.
    #[inline(always)]
    pub fn has(self, x: __m512i, low: u8, high: u8) -> u64 {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_set1_epi8(low as i8);
            let high = _mm256_set1_epi8(high as i8);
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            _mm512_test_epi8_mask(x, both)
        }
    }

    /// The bits of each byte moved up by 4, of bytes below 16.
    #[inline(always)]
    pub fn up(self, x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_slli_epi16::<4>(x) }
    }

    /// The sums of four products each, of the bytes of a span with its parts of `x`, all vectors summed up.
    ///
    /// # Panics
    ///
    /// If there is another number of parts.
    #[inline(always)]
    fn products<B: Block>(self, vectors: B::Vectors, x: &[Part]) -> __m512 {
        let vectors = vectors.as_ref();
        assert!(x.len() == vectors.len());
        // SAFETY: see above; a part begins where the alignment asks for it.
        unsafe {
            let mut sum = _mm512_setzero_si512();
            for limb in 0..3 {
                if limb > 0 {
                    sum = _mm512_slli_epi32::<7>(sum);
                }
                for at in 0..vectors.len() {
                    let limb = _mm512_load_si512(x[at].limbs[limb].as_ptr().cast());
                    sum = _mm512_dpbusd_epi32(sum, vectors[at], limb);
                }
            }
            let sum = match B::EXCESS {
                0 => sum,
                _ => _mm512_add_epi32(sum, _mm512_load_si512(x[0].excess.as_ptr().cast())),
            };
            _mm512_cvtepi32_ps(sum)
        }
    }

    /// `sum`, and what span `at` of a unit gives, whose groups have these scales.
    #[inline(always)]
    pub(super) fn add_products<B: Block>(
        self,
        vectors: B::Vectors,
        x: &[Part],
        scales: &[f32; 16],
        at: usize,
        sum: __m512,
    ) -> __m512 {
        let products = self.products::<B>(vectors, x);
        let scale = match span::<B>() / B::GROUP {
            2 => self.spread::<2>(scales, 2 * at),
            _ => self.spread::<4>(scales, 4 * at),
        };
        self.sixteen.mul_add(products, scale, sum)
    }

    /// Some of the scales, each for as many of sixteen numbers as any other.
    ///
    /// # Panics
    ///
    /// If they are beyond the sixteen.
    #[inline(always)]
    fn spread<const SCALES: usize>(self, scales: &[f32; 16], first: usize) -> __m512 {
        const { assert!(SCALES == 2 || SCALES == 4) };
        let scales = &scales[first..][..SCALES];
        // SAFETY: see above; two scales are 8 bytes, and four 16.
        unsafe {
            if SCALES == 2 {
                let two = _mm_castpd_ps(_mm_load_sd(scales.as_ptr().cast()));
                let each = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
                _mm512_permutexvar_ps(each, _mm512_castps128_ps512(two))
            } else {
                let four = _mm_loadu_ps(scales.as_ptr());
                let each = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
                _mm512_permutexvar_ps(each, _mm512_castps128_ps512(four))
            }
        }
    }

    /// The sum of each.
    #[inline(always)]
    pub(super) fn sums(self, x: [__m512; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            let first = _mm256_hadd_ps(self.halves(x[0]), self.halves(x[1]));
            let second = _mm256_hadd_ps(self.halves(x[2]), self.halves(x[3]));
            let all = _mm256_hadd_ps(first, second);
            let sums = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            let mut to = [0.0; 4];
            _mm_storeu_ps(to.as_mut_ptr(), sums);
            to
        }
    }

    /// The sum of both halves.
    #[inline(always)]
    fn halves(self, x: __m512) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
    }
}
