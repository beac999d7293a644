//! AVX-512 with its instruction for four products of bytes each (VNNI): what `whole` is made of.

use std::arch::x86_64::*;

use pulp::Arch;

use super::avx512::Avx512;
use super::limbs::Part;
use super::whole::span;
use super::{Block, Sixteen, bytes};
use crate::kernels::cpu::simd;

/// AVX-512 (F, BW, CD, DQ, VL) with VNNI. A value of this type proves that the machine has it.
#[derive(Clone, Copy)]
pub(in crate::kernels::cpu) struct Vnni {
    pub(super) sixteen: Avx512,
}

impl Vnni {
    pub fn try_new() -> Option<Self> {
        match simd::arch() {
            Arch::V4(v4) if simd::has_vnni() => Some(Self { sixteen: Avx512::new(v4) }),
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

    /// Of a span of four blocks of 32 the first sixteen numbers of each, then the last sixteen of each;
    /// of a block of 256 numbers `64 at` to `64 at + 63`. If not `WHOLE`, blocks may be missing at the end.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes.
    fn bytes<const WHOLE: bool>(on: Vnni, span: &[u8], at: usize) -> Self::Vectors;
}

/// Where sixteen bytes of each of four blocks stand, in pieces of so many bytes, in two vectors: those of
/// the first three in one, those of the last in the other.
const fn sixteens(block_bytes: usize, piece: usize) -> [u16; 32] {
    let starts = [0, block_bytes, 2 * block_bytes, 64];
    let each = 16 / piece;
    let mut from = [0; 32];
    let mut i = 0;
    while i < 4 * each {
        from[i] = (starts[i / each] / piece + i % each) as u16;
        i += 1;
    }
    from
}

/// `N` bytes from `start` on, or zeros if they are missing, which those of what is `WHOLE` aren't.
///
/// # Panics
///
/// If any is missing of what is whole.
#[inline(always)]
pub(super) fn bytes_or_zeros<const N: usize, const WHOLE: bool>(
    block: &[u8],
    start: usize,
) -> &[u8; N] {
    if WHOLE || start < block.len() { bytes(block, start) } else { &[0; N] }
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

    /// Sixteen bytes of each of four blocks of `BYTES` bytes, from byte `START` on, one behind the other;
    /// zeros for what is missing at the end, unless they are `WHOLE`.
    #[inline(always)]
    pub fn sixteens_of_four<const BYTES: usize, const START: usize, const WHOLE: bool>(
        self,
        blocks: &[u8],
    ) -> __m512i {
        // Those of three blocks within 64 bytes, and the last, which cross fewer lines of the cache than
        // twice 64 bytes.
        const { assert!(16 <= BYTES && BYTES <= 24) };
        let three = self.some::<WHOLE>(blocks, START);
        let last = bytes_or_zeros::<16, WHOLE>(blocks, START + 3 * BYTES);
        // SAFETY: see above.
        unsafe {
            let last = _mm512_castsi128_si512(_mm_loadu_si128(last.as_ptr().cast()));
            if BYTES.is_multiple_of(4) {
                let from = const { sixteens(BYTES, 4) };
                let from = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
                _mm512_permutex2var_epi32(three, from, last)
            } else {
                let from = const { sixteens(BYTES, 2) };
                _mm512_permutex2var_epi16(three, _mm512_loadu_si512(from.as_ptr().cast()), last)
            }
        }
    }

    /// 64 bytes from `start` on; zeros for those that are missing, unless it is `WHOLE`.
    ///
    /// # Panics
    ///
    /// If any is missing of what is whole.
    #[inline(always)]
    fn some<const WHOLE: bool>(self, bytes: &[u8], start: usize) -> __m512i {
        if WHOLE {
            return self.load(bytes[start..start + 64].try_into().expect("a range of its length"));
        }
        let count = bytes.len().saturating_sub(start);
        let mask = if count < 64 { (1 << count) - 1 } else { u64::MAX };
        // SAFETY: see above; what is masked out is not read.
        unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().wrapping_add(start).cast()) }
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

    /// The lower halves of bytes, and the upper halves.
    #[inline(always)]
    pub fn halves_of_each(self, bytes: __m512i) -> [__m512i; 2] {
        // SAFETY: see above.
        let upper = unsafe { _mm512_srli_epi16::<4>(bytes) };
        [self.and(bytes, 15), self.and(upper, 15)]
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
        scales: __m512,
        at: usize,
        sum: __m512,
    ) -> __m512 {
        let products = self.products::<B>(vectors, x);
        let scale = match span::<B>() / B::GROUP {
            2 => self.spread::<2>(scales, at),
            _ => self.spread::<4>(scales, at),
        };
        self.sixteen.mul_add(products, scale, sum)
    }

    /// Of the scales so many from `COUNT * at` on, each for as many of sixteen numbers as any other.
    #[inline(always)]
    fn spread<const COUNT: usize>(self, scales: __m512, at: usize) -> __m512 {
        const { assert!(COUNT == 2 || COUNT == 4) };
        // SAFETY: see above; of an index the lowest four bits count.
        unsafe {
            let each = match COUNT {
                2 => _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                _ => _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
            };
            let from = _mm512_add_epi32(each, _mm512_set1_epi32((COUNT * at) as i32));
            _mm512_permutexvar_ps(from, scales)
        }
    }

    /// Four numbers for each of so many spans, one or four, and zeros.
    ///
    /// # Safety
    ///
    /// They can be read.
    #[inline(always)]
    pub(super) unsafe fn load_some<const SPANS: usize>(self, from: *const f32) -> __m512 {
        const { assert!(SPANS == 1 || SPANS == 4) };
        // SAFETY: see above, and the caller's word.
        unsafe {
            match SPANS {
                1 => _mm512_zextps128_ps512(_mm_loadu_ps(from)),
                _ => _mm512_loadu_ps(from),
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
