//! Products in whole numbers of rows in blocks with rows of f32.
//!
//! The `q` of a row in blocks stay bytes, and are multiplied with the three limbs of `x`: nothing is
//! rounded before a sum of four or eight, which is multiplied by scale and step in f32.

use std::arch::x86_64::__m512;
use std::hint::black_box;
use std::marker::PhantomData;

use super::dot::{ABREAST, AHEAD};
use super::limbs::Limbs;
use super::vnni::Vnni;
use super::{Block, OnFormat, Plain, Sixteen};

/// Numbers that are taken at once: four blocks of 32, or a quarter of one of 256.
pub(super) const fn span<B: Block>() -> usize {
    if B::LENGTH == 32 { 4 * 32 } else { 64 }
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
        let spans = (row_bytes / B::BYTES * B::LENGTH).div_ceil(span::<B>());
        let parts = spans * span::<B>() / 64;
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
                let abreast: [&[u8]; ABREAST] =
                    [row(first), row(first + 1), row(first + 2), row(first + 3)];
                // SAFETY: rows of whole blocks, `x` as wide, as asserted above.
                let dots = unsafe { dots::<B, ABREAST, 1>(on, abreast, [(&x[0], &sums[0])]) };
                products[..ABREAST].copy_from_slice(dots.as_flattened());
                first += ABREAST;
                continue;
            }
            let mut m = 0;
            while m < x.len() {
                if m + ABREAST <= x.len() {
                    let mut of_x = [(&x[m], &sums[m][..]); ABREAST];
                    for i in 1..ABREAST {
                        of_x[i] = (&x[m + i], &sums[m + i]);
                    }
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
    /// Stands for blocks that a row does not have.
    static NOTHING: [u8; 34] = [0; 34];
    const { assert!(B::LENGTH == 32 && B::BYTES <= 34 || B::LENGTH == 256 && B::UNIT == 1) };
    let sixteen = on.sixteen;
    let mut totals = [[sixteen.splat(0.0); M]; R];
    let mut constant = [[sixteen.splat(0.0); M]; R];
    // Where numbers take little work, memory gives one long piece faster than several at a time.
    let abreast = if B::BYTES > B::LENGTH { 1 } else { R };
    let mut first_row = 0;
    while first_row < R {
        let behind = first_row + abreast;
        let mut start = 0; // byte of the unit
        let mut unit = 0;
        while start < rows[0].len() {
            let length = (rows[0].len() - start).min(B::UNIT * B::BYTES);
            let mut scales = [[[0.0; 16]; M]; R];
            for r in first_row..behind {
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
                        constant[r][m] =
                            sixteen.mul_add(offset, sixteen.load(sums), constant[r][m]);
                    }
                    sixteen.store(sixteen.mul(scale, sixteen.load(steps)), &mut scales[r][m]);
                }
            }
            // A few are spread while they are loaded.
            let scales = black_box(&scales);
            let first = unit * (B::UNIT * B::LENGTH / 64);
            let numbers = length / B::BYTES * B::LENGTH;
            let whole = numbers / span::<B>();
            for at in 0..whole {
                for r in first_row..behind {
                    // SAFETY: rows are as long as the first, and the unit has the whole span.
                    let blocks = unsafe {
                        blocks_of_span::<B>(rows[r].get_unchecked(start..start + length), at)
                    };
                    match B::LENGTH {
                        32 => {
                            sixteen.prefetch(blocks[0], AHEAD);
                            sixteen.prefetch(blocks[2], AHEAD);
                        }
                        _ => sixteen.prefetch(blocks[0], AHEAD + 64 * at),
                    }
                    // SAFETY: limbs for all spans.
                    unsafe {
                        add_span::<B, M>(on, blocks, at, first, x, &scales[r], &mut totals[r])
                    };
                }
            }
            if whole * span::<B>() < numbers {
                for r in first_row..behind {
                    let rest = &rows[r][start + whole * 4 * B::BYTES..start + length];
                    let mut blocks = [&NOTHING[..B::BYTES.min(34)]; 4];
                    for i in 0..rest.len() / B::BYTES {
                        blocks[i] = &rest[i * B::BYTES..][..B::BYTES];
                    }
                    // SAFETY: the same.
                    unsafe {
                        add_span::<B, M>(on, blocks, whole, first, x, &scales[r], &mut totals[r])
                    };
                }
            }
            start += length;
            unit += 1;
        }
        first_row = behind;
    }
    let mut sums = [[sixteen.splat(0.0); M]; R];
    for r in 0..R {
        for m in 0..M {
            sums[r][m] = sixteen.add(constant[r][m], totals[r][m]);
        }
    }
    let mut products = [[0.0; M]; R];
    for (products, sums) in
        products.as_flattened_mut().chunks_mut(4).zip(sums.as_flattened().chunks(4))
    {
        let last = sums.len() - 1;
        let four = on.sums([sums[0], sums[1.min(last)], sums[2.min(last)], sums[last]]);
        products.copy_from_slice(&four[..products.len()]);
    }
    products
}

/// Adds to `totals` what span `at` of a unit gives, whose parts begin with part `first`.
///
/// # Safety
///
/// `x` has limbs for it.
#[inline(always)]
unsafe fn add_span<B: Block, const M: usize>(
    on: Vnni,
    blocks: [&[u8]; 4],
    at: usize,
    first: usize,
    x: [(&Limbs, &[f32]); M],
    scales: &[[f32; 16]; M],
    totals: &mut [__m512; M],
) {
    let vectors = span::<B>() / 64;
    let begin = first + vectors * at;
    let bytes = B::bytes(on, blocks, at);
    for m in 0..M {
        // SAFETY: the caller's word: a part for each vector.
        let parts = unsafe { x[m].0.parts.get_unchecked(begin..begin + vectors) };
        totals[m] = on.add_products::<B>(bytes, parts, &scales[m], at, totals[m]);
    }
}

/// The blocks of a span, as [`Bytes::bytes`](super::Bytes::bytes) takes them.
///
/// # Safety
///
/// `unit` has them.
#[inline(always)]
unsafe fn blocks_of_span<B: Block>(unit: &[u8], at: usize) -> [&[u8]; 4] {
    // One after the other, since a loop over them is not taken apart.
    // SAFETY: the caller's word.
    unsafe {
        match B::LENGTH {
            32 => [
                block::<B>(unit, 4 * at),
                block::<B>(unit, 4 * at + 1),
                block::<B>(unit, 4 * at + 2),
                block::<B>(unit, 4 * at + 3),
            ],
            _ => [block::<B>(unit, 0); 4],
        }
    }
}

/// A block of some.
///
/// # Safety
///
/// It is among them.
#[inline(always)]
unsafe fn block<B: Block>(blocks: &[u8], index: usize) -> &[u8] {
    // SAFETY: the caller's word.
    unsafe { blocks.get_unchecked(index * B::BYTES..(index + 1) * B::BYTES) }
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
