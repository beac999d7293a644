//! Products in whole numbers of rows in blocks with rows of f32.
//!
//! The `q` of a row in blocks stay bytes, and are multiplied with the three limbs of `x`: nothing is
//! rounded before a sum of four or eight, which is multiplied by scale and step in f32.

use std::arch::x86_64::__m512;
use std::marker::PhantomData;

use super::dot::AHEAD;
use super::limbs::Limbs;
use super::vnni::Vnni;
use super::{Block, OnFormat, Plain, Sixteen};

/// Numbers that are taken at once: four blocks of 32, or a quarter of one of 256.
pub(super) const fn span<B: Block>() -> usize {
    if B::LENGTH == 32 { 4 * 32 } else { 64 }
}

/// Spans of a unit.
const SPANS: usize = 4;

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
                    limbs.push(Limbs::new::<B>(on, x));
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
        // One row after the other, since memory gives one long piece faster than several at a time; but
        // four products are summed up together.
        let nothing = on.sixteen.splat(0.0);
        if let ([x], [sums]) = (x, sums) {
            for (rows, products) in bytes.chunks(4 * row_bytes).zip(products.chunks_mut(4)) {
                let mut dots = [nothing; 4];
                for (dot, row) in dots.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                    // SAFETY: a row of whole blocks, `x` as wide, as asserted above.
                    [*dot] = unsafe { self::dots::<B, 1>(on, row, [(x, sums)]) };
                }
                write(products, on.sums(dots));
            }
            return;
        }
        for (row, products) in bytes.chunks_exact(row_bytes).zip(products.chunks_mut(x.len())) {
            for ((x, sums), products) in x.chunks(4).zip(sums.chunks(4)).zip(products.chunks_mut(4))
            {
                let mut dots = [nothing; 4];
                if let ([a, b, c, d], [e, f, g, h]) = (x, sums) {
                    let x = [(a, &e[..]), (b, &f[..]), (c, &g[..]), (d, &h[..])];
                    // SAFETY: the same.
                    dots = unsafe { self::dots::<B, 4>(on, row, x) };
                } else {
                    for (dot, (x, sums)) in dots.iter_mut().zip(x.iter().zip(sums)) {
                        // SAFETY: the same.
                        [*dot] = unsafe { self::dots::<B, 1>(on, row, [(x, sums)]) };
                    }
                }
                write(products, on.sums(dots));
            }
        }
    }
}

/// Writes as many products as there is room for.
#[inline(always)]
fn write(products: &mut [f32], dots: [f32; 4]) {
    match <&mut [f32; 4]>::try_from(&mut *products) {
        Ok(products) => *products = dots,
        Err(_) => products.copy_from_slice(&dots[..products.len()]),
    }
}

/// The products of a row in blocks with `M` rows of `x`: each the same bits as alone.
///
/// # Safety
///
/// The row is of whole blocks; limbs and sums of `x` are for that many.
#[inline(always)]
unsafe fn dots<B: Block, const M: usize>(
    on: Vnni,
    row: &[u8],
    x: [(&Limbs, &[f32]); M],
) -> [__m512; M] {
    const { assert!(B::LENGTH == 32 && B::UNIT == 16 || B::LENGTH == 256 && B::UNIT == 1) };
    let mut sums =
        Sums { totals: [on.sixteen.splat(0.0); M], constant: [on.sixteen.splat(0.0); M] };
    let length = B::UNIT * B::BYTES;
    let units = row.len() / length;
    for unit in 0..units {
        // SAFETY: within the row, and the caller's word.
        unsafe {
            let bytes = row.get_unchecked(unit * length..(unit + 1) * length);
            sums.add_spans::<B, SPANS, true>(on, bytes, SPANS * unit, x);
        }
    }
    let rest = &row[units * length..];
    let length = 4 * B::BYTES;
    for at in 0..rest.len() / length {
        // SAFETY: the same.
        unsafe {
            let bytes = rest.get_unchecked(at * length..(at + 1) * length);
            sums.add_spans::<B, 1, true>(on, bytes, SPANS * units + at, x);
        }
    }
    let at = rest.len() / length;
    let rest = &rest[at * length..];
    if !rest.is_empty() {
        // SAFETY: the same.
        unsafe { sums.add_spans::<B, 1, false>(on, rest, SPANS * units + at, x) };
    }
    for m in 0..M {
        sums.totals[m] = on.sixteen.add(sums.constant[m], sums.totals[m]);
    }
    sums.totals
}

/// What the products of a row are summed up in.
struct Sums<const M: usize> {
    totals: [__m512; M],
    constant: [__m512; M],
}

impl<const M: usize> Sums<M> {
    /// Adds what so many spans give, `WHOLE` or the last blocks of a row, before which there are `first`.
    ///
    /// # Safety
    ///
    /// `x` has limbs and sums for them.
    #[inline(always)]
    unsafe fn add_spans<B: Block, const SPANS: usize, const WHOLE: bool>(
        &mut self,
        on: Vnni,
        bytes: &[u8],
        first: usize,
        x: [(&Limbs, &[f32]); M],
    ) {
        let sixteen = on.sixteen;
        let mut line = 0;
        while line < bytes.len() {
            sixteen.prefetch(bytes, AHEAD + line);
            line += 64;
        }
        let [scale, offset] = B::scales(sixteen, bytes);
        let mut scales = [scale; M];
        for m in 0..M {
            // SAFETY: four for each span.
            unsafe {
                let steps = on.load_some::<SPANS>(x[m].0.steps.as_ptr().add(4 * first));
                scales[m] = sixteen.mul(scale, steps);
                if B::OFFSETS.is_some() {
                    let sums = on.load_some::<SPANS>(x[m].1.as_ptr().add(4 * first));
                    self.constant[m] = sixteen.mul_add(offset, sums, self.constant[m]);
                }
            }
        }
        let vectors = span::<B>() / 64;
        for at in 0..SPANS {
            let span = match B::LENGTH {
                // SAFETY: there are so many.
                32 if WHOLE => unsafe {
                    bytes.get_unchecked(at * 4 * B::BYTES..(at + 1) * 4 * B::BYTES)
                },
                _ => bytes,
            };
            let bytes = B::bytes::<WHOLE>(on, span, at);
            let begin = vectors * (first + at);
            for m in 0..M {
                // SAFETY: the caller's word: a part for each vector.
                let parts = unsafe { x[m].0.parts.get_unchecked(begin..begin + vectors) };
                self.totals[m] = on.add_products::<B>(bytes, parts, scales[m], at, self.totals[m]);
            }
        }
    }
}
