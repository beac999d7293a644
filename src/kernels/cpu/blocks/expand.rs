//! Blocks to f32: one multiplication and at most one addition for each number, never fused, so that
//! every instruction set gives the same bits.

use std::marker::PhantomData;

use super::{Block, Format, OnFormat, OnSixteen, Plain, Sixteen, on_format, on_sixteen};

/// Writes the numbers of `bytes` to `numbers`: some whole blocks, or of plain numbers any number.
///
/// # Panics
///
/// If the two differ in their number.
pub(crate) fn expand(format: Format, bytes: &[u8], numbers: &mut [f32]) {
    assert!(format.row_bytes(numbers.len()) == Some(bytes.len()), "blocks that do not fit");
    on_format(format, Expand { bytes, numbers });
}

struct Expand<'a> {
    bytes: &'a [u8],
    numbers: &'a mut [f32],
}

impl OnFormat for Expand<'_> {
    type Output = ();

    fn blocks<B: Block>(self) {
        on_sixteen(ExpandBlocks::<B>(self, PhantomData));
    }

    fn plain<P: Plain>(self) {
        on_sixteen(ExpandPlain::<P>(self, PhantomData));
    }
}

struct ExpandBlocks<'a, B>(Expand<'a>, PhantomData<B>);

impl<B: Block> OnSixteen for ExpandBlocks<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sixteen>(self, on: S) {
        let Expand { bytes, numbers } = self.0;
        let units = bytes.chunks(B::UNIT * B::BYTES);
        for (unit, numbers) in units.zip(numbers.chunks_mut(B::UNIT * B::LENGTH)) {
            let (mut scales, mut offsets) = ([0.0; 16], [0.0; 16]);
            let [scale, offset] = B::scales(on, unit);
            on.store(scale, &mut scales);
            on.store(offset, &mut offsets);
            let blocks = unit.chunks_exact(B::BYTES).zip(numbers.chunks_exact_mut(B::LENGTH));
            for (index, (block, numbers)) in blocks.enumerate() {
                B::whole(
                    on,
                    block,
                    #[inline(always)]
                    |i, q| {
                        let group = (index * B::LENGTH + 16 * i) / B::GROUP;
                        let q = on.floats(on.less(q, B::BIAS));
                        let mut x = on.mul(q, on.splat(scales[group]));
                        if let Some(first) = B::OFFSETS {
                            x = on.add(x, on.splat(offsets[first + group]));
                        }
                        on.store(x, sixteen_mut(numbers, i));
                    },
                );
            }
        }
    }
}

struct ExpandPlain<'a, P>(Expand<'a>, PhantomData<P>);

impl<P: Plain> OnSixteen for ExpandPlain<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sixteen>(self, on: S) {
        let Expand { bytes, numbers } = self.0;
        let sixteens = bytes.chunks_exact(16 * P::BYTES);
        let rest = sixteens.remainder();
        let mut to = numbers.chunks_exact_mut(16);
        for (bytes, to) in sixteens.zip(&mut to) {
            on.store(P::floats(on, bytes), sixteen_mut(to, 0));
        }
        let to = to.into_remainder();
        if !to.is_empty() {
            let (mut bytes, mut last) = ([0; 64], [0.0; 16]);
            bytes[..rest.len()].copy_from_slice(rest);
            on.store(P::floats(on, &bytes), &mut last);
            to.copy_from_slice(&last[..to.len()]);
        }
    }
}

#[inline(always)]
fn sixteen_mut(numbers: &mut [f32], index: usize) -> &mut [f32; 16] {
    (&mut numbers[16 * index..][..16]).try_into().expect("a range of its length")
}
