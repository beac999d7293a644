//! Blocks to f32.

use super::{Block, Format, OnBlocks, OnSixteen, Sixteen, on_blocks, on_sixteen};

/// Writes the numbers of `bytes` to `numbers`: some whole blocks, or of plain numbers any number.
///
/// # Panics
///
/// If the two differ in their number.
pub(crate) fn expand(format: Format, bytes: &[u8], numbers: &mut [f32]) {
    assert!(format.row_bytes(numbers.len()) == Some(bytes.len()), "blocks that do not fit");
    on_blocks(format, Expand { bytes, numbers });
}

struct Expand<'a> {
    bytes: &'a [u8],
    numbers: &'a mut [f32],
}

impl OnBlocks for Expand<'_> {
    type Output = ();

    fn run<B: Block>(self) {
        on_sixteen(ExpandBlocks::<B>(self, std::marker::PhantomData));
    }
}

struct ExpandBlocks<'a, B>(Expand<'a>, std::marker::PhantomData<B>);

impl<B: Block> OnSixteen for ExpandBlocks<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sixteen>(self, on: S) {
        let Expand { bytes, numbers } = self.0;
        let (blocks, rest) = (bytes.chunks_exact(B::BYTES), bytes.len() % B::BYTES);
        let mut to = numbers.chunks_exact_mut(B::LENGTH);
        for (block, to) in blocks.zip(&mut to) {
            B::expand(on, block, |i, x| on.store(x, sixteen_mut(to, i)));
        }
        if rest > 0 {
            // Plain numbers: their block here is longer than what a row is made of.
            let mut block = [0; 128];
            block[..rest].copy_from_slice(&bytes[bytes.len() - rest..]);
            let mut last = [0.0; 32];
            B::expand(on, &block[..B::BYTES], |i, x| on.store(x, sixteen_mut(&mut last, i)));
            let to = to.into_remainder();
            to.copy_from_slice(&last[..to.len()]);
        }
    }
}

#[inline(always)]
fn sixteen_mut(numbers: &mut [f32], index: usize) -> &mut [f32; 16] {
    (&mut numbers[16 * index..][..16]).try_into().expect("a range of its length")
}
