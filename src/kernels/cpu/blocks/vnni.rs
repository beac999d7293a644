//! Products in whole numbers, by AVX-512's instruction for four products of bytes each (VNNI).
//!
//! Of 64 numbers of a row in blocks the `q` stay bytes, and are multiplied with the three limbs of `x`:
//! nothing is rounded before the sum of four, which is multiplied by scale and step in f32.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::marker::PhantomData;

use pulp::Arch;

use super::dot::{ABREAST, AHEAD};
use super::limbs::{Limbs, Part};
use super::x86::Avx512;
use super::{Block, OnFormat, Plain, Sixteen};
use crate::kernels::cpu::simd;

/// AVX-512 (F, BW, CD, DQ, VL) with VNNI. A value of this type proves that the machine has it.
#[derive(Clone, Copy)]
pub(in crate::kernels::cpu) struct Vnni {
    sixteen: Avx512,
    /// The upper eight of sixteen. As a constant the compiler would see through it, and take three
    /// shuffles for what memory gives in its place.
    upper: __mmask16,
}

impl Vnni {
    pub fn try_new() -> Option<Self> {
        match simd::arch() {
            Arch::V4(v4) if simd::has_vnni() => {
                Some(Self { sixteen: Avx512::new(v4), upper: black_box(0xff00) })
            }
            _ => None,
        }
    }

    /// Runs `work`, which is compiled for these instructions if it is marked `#[inline(always)]`.
    fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
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

    /// Numbers `64 at` to `64 at + 63` of a block of 256; of blocks of 32, those of two.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes.
    fn bytes(on: Vnni, blocks: &[u8], at: usize) -> __m512i;
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

    /// The lower halves of 16 bytes, then their upper halves; the same of the others behind.
    #[inline(always)]
    pub fn nibbles_of_two(self, first: &[u8; 16], second: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let first = _mm512_broadcast_i32x4(_mm_loadu_si128(first.as_ptr().cast()));
            let second = _mm_loadu_si128(second.as_ptr().cast());
            let both = _mm512_mask_broadcast_i32x4(first, self.upper, second);
            let moved = _mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
            _mm512_and_si512(moved, _mm512_set1_epi8(15))
        }
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

    /// The sums of four products each.
    #[inline(always)]
    fn products(self, bytes: __m512i, x: &Part) -> __m512 {
        // SAFETY: see above; a part begins where the alignment asks for it.
        unsafe {
            let limb = |limb: &[i8; 64]| _mm512_load_si512(limb.as_ptr().cast());
            let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, limb(&x.high));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(sum), bytes, limb(&x.middle));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(sum), bytes, limb(&x.low));
            let excess = _mm512_load_si512(x.excess.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_add_epi32(sum, excess))
        }
    }

    /// The same of bytes that are what they stand for.
    #[inline(always)]
    fn plain_products(self, bytes: __m512i, x: &Part) -> __m512 {
        // SAFETY: see above; a part begins where the alignment asks for it.
        unsafe {
            let limb = |limb: &[i8; 64]| _mm512_load_si512(limb.as_ptr().cast());
            let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, limb(&x.high));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(sum), bytes, limb(&x.middle));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<7>(sum), bytes, limb(&x.low));
            _mm512_cvtepi32_ps(sum)
        }
    }

    /// `sum`, and what part `at` of a unit gives, whose groups have these scales.
    #[inline(always)]
    fn add_products<B: Block>(
        self,
        bytes: __m512i,
        x: &Part,
        scales: &[f32; 16],
        at: usize,
        sum: __m512,
    ) -> __m512 {
        let products = match B::EXCESS {
            0 => self.plain_products(bytes, x),
            _ => self.products(bytes, x),
        };
        let scale = match B::GROUP {
            32 => self.spread::<32>(scales, 2 * at),
            _ => self.spread::<16>(scales, 4 * at),
        };
        self.sixteen.mul_add(products, scale, sum)
    }

    /// The scales of 64 numbers, of which groups of so many share one, for their sums of four.
    ///
    /// # Panics
    ///
    /// If they are beyond the sixteen.
    #[inline(always)]
    fn spread<const GROUP: usize>(self, scales: &[f32; 16], first: usize) -> __m512 {
        let scales = &scales[first..][..64 / GROUP];
        // SAFETY: see above; two scales are 8 bytes, and four 16.
        unsafe {
            if GROUP == 32 {
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
}

/// Rows of `x` in limbs for products with a format.
pub(super) struct Prepare<'a>(pub Vnni, pub &'a [&'a [f32]]);

impl OnFormat for Prepare<'_> {
    type Output = Vec<Limbs>;

    fn blocks<B: Block>(self) -> Vec<Limbs> {
        let Self(on, x) = self;
        on.vectorize(
            #[inline(always)]
            || {
                let mut limbs = Vec::with_capacity(x.len());
                for x in x {
                    limbs.push(Limbs::new::<B>(x, B::EXCESS));
                }
                limbs
            },
        )
    }

    fn plain<P: Plain>(self) -> Vec<Limbs> {
        unreachable!("numbers that stand by themselves are no bytes")
    }
}

/// The products of such rows with rows in blocks; the rest as in [`Dots`](super::Dots).
pub(super) struct WholeDots<'a> {
    pub on: Vnni,
    pub bytes: &'a [u8],
    pub row_bytes: usize,
    pub x: &'a [Limbs],
    pub sums: &'a [Vec<f32>],
    pub products: &'a mut [f32],
}

impl OnFormat for WholeDots<'_> {
    type Output = ();

    fn blocks<B: Block>(self) {
        let rows = Rows::<B>(self, PhantomData);
        rows.0.on.vectorize(
            #[inline(always)]
            || rows.run(),
        );
    }

    fn plain<P: Plain>(self) {
        unreachable!("numbers that stand by themselves are no bytes")
    }
}

struct Rows<'a, B>(WholeDots<'a>, PhantomData<B>);

impl<B: Block> Rows<'_, B> {
    #[inline(always)]
    fn run(self) {
        let WholeDots { on, bytes, row_bytes, x, sums, products } = self.0;
        let units = row_bytes.div_ceil(B::UNIT * B::BYTES);
        let parts = (row_bytes / B::BYTES * B::LENGTH).div_ceil(64);
        assert!(row_bytes.is_multiple_of(B::BYTES), "blocks that do not fit");
        for (x, sums) in x.iter().zip(sums) {
            let fits = x.parts.len() == parts && x.steps.len() == 16 * units;
            assert!(
                fits && (B::OFFSETS.is_none() || sums.len() == 16 * units),
                "x of another width"
            );
        }
        let row = |at: usize| &bytes[at * row_bytes..][..row_bytes];
        let rows = products.len() / x.len();
        let mut first = 0;
        while first < rows {
            // One row of `x` with some in blocks, or some with one: no sum waits for itself, and what is
            // read of one serves all of the others.
            let several = x.len() == 1 && first + ABREAST <= rows;
            let products = &mut products[first * x.len()..];
            if several {
                let abreast: [_; ABREAST] = std::array::from_fn(|r| row(first + r));
                // SAFETY: rows of whole blocks, `x` as wide, as asserted above.
                let dots = unsafe { dots::<B, ABREAST, 1>(on, abreast, [(&x[0], &sums[0])]) };
                products[..ABREAST].copy_from_slice(dots.as_flattened());
                first += ABREAST;
                continue;
            }
            let mut m = 0;
            while m < x.len() {
                if m + ABREAST <= x.len() {
                    let of_x: [_; ABREAST] = std::array::from_fn(|i| (&x[m + i], &sums[m + i][..]));
                    // SAFETY: the same.
                    let dots = unsafe { dots::<B, 1, ABREAST>(on, [row(first)], of_x) };
                    products[m..m + ABREAST].copy_from_slice(&dots[0]);
                    m += ABREAST;
                } else {
                    // SAFETY: the same.
                    let dots = unsafe { dots::<B, 1, 1>(on, [row(first)], [(&x[m], &sums[m])]) };
                    products[m] = dots[0][0];
                    m += 1;
                }
            }
            first += 1;
        }
    }
}

/// The products of `R` rows in blocks with `M` rows of `x`: each the same bits as alone.
///
/// # Safety
///
/// The rows in blocks are as long, a whole number of blocks; limbs and sums of `x` are for that many.
#[inline(always)]
unsafe fn dots<B: Block, const R: usize, const M: usize>(
    on: Vnni,
    rows: [&[u8]; R],
    x: [(&Limbs, &[f32]); M],
) -> [[f32; M]; R] {
    const { assert!(B::LENGTH == 32 && B::BYTES <= 34 || B::LENGTH == 256 && B::UNIT == 1) };
    let sixteen = on.sixteen;
    let mut totals = [[sixteen.splat(0.0); M]; R];
    let mut constant = [[sixteen.splat(0.0); M]; R];
    let mut start = 0; // byte of the unit
    let mut unit = 0;
    while start < rows[0].len() {
        let length = (rows[0].len() - start).min(B::UNIT * B::BYTES);
        let mut scales = [[[0.0; 16]; M]; R];
        for r in 0..R {
            // SAFETY: rows are as long as the first.
            let [scale, offset] =
                B::scales(sixteen, unsafe { rows[r].get_unchecked(start..start + length) });
            for m in 0..M {
                // SAFETY: sixteen for each unit.
                let (steps, sums) = unsafe {
                    let sums = if B::OFFSETS.is_some() { x[m].1 } else { &x[m].0.steps };
                    (sixteen_of(&x[m].0.steps, unit), sixteen_of(sums, unit))
                };
                if B::OFFSETS.is_some() {
                    constant[r][m] = sixteen.mul_add(offset, sixteen.load(sums), constant[r][m]);
                }
                sixteen.store(sixteen.mul(scale, sixteen.load(steps)), &mut scales[r][m]);
            }
        }
        // Two are spread while they are loaded.
        let scales = black_box(&scales);
        let parts = B::UNIT * B::LENGTH / 64;
        let first = unit * parts;
        let whole = length / B::BYTES * B::LENGTH / 64;
        for at in 0..whole {
            for r in 0..R {
                // Two blocks of 32, or all of one of 256.
                let (from, length) = match B::LENGTH {
                    32 => (start + 2 * at * B::BYTES, 2 * B::BYTES),
                    _ => (start, B::BYTES),
                };
                // SAFETY: so many blocks are there in the unit.
                let blocks = unsafe { rows[r].get_unchecked(from..from + length) };
                sixteen.prefetch(blocks, AHEAD + if B::LENGTH == 32 { 0 } else { 64 * at });
                let bytes = B::bytes(on, blocks, at);
                for m in 0..M {
                    // SAFETY: a part for each 64 numbers.
                    let part = unsafe { x[m].0.parts.get_unchecked(first + at) };
                    let total = &mut totals[r][m];
                    *total = on.add_products::<B>(bytes, part, &scales[r][m], at, *total);
                }
            }
        }
        // A last block of 32 without a second one.
        if B::LENGTH == 32 && whole * 2 * B::BYTES < length {
            for r in 0..R {
                // No block is longer than 34 bytes.
                let mut pair = [0; 68];
                let last = &rows[r][start + whole * 2 * B::BYTES..];
                pair[..B::BYTES].copy_from_slice(&last[..B::BYTES]);
                let bytes = B::bytes(on, &pair[..2 * B::BYTES], 0);
                for m in 0..M {
                    let (part, total) = (&x[m].0.parts[first + whole], &mut totals[r][m]);
                    *total = on.add_products::<B>(bytes, part, &scales[r][m], whole, *total);
                }
            }
        }
        start += length;
        unit += 1;
    }
    let mut products = [[0.0; M]; R];
    for r in 0..R {
        for m in 0..M {
            products[r][m] = sixteen.sum(sixteen.add(constant[r][m], totals[r][m]));
        }
    }
    products
}

/// Sixteen numbers for a unit.
///
/// # Safety
///
/// There are sixteen for each, this one among them.
#[inline(always)]
unsafe fn sixteen_of(numbers: &[f32], unit: usize) -> &[f32; 16] {
    // SAFETY: the caller's word.
    unsafe { &*numbers.as_ptr().add(16 * unit).cast() }
}
