//! Products of rows in blocks with rows of f32, expanded in registers.
//!
//! ```text
//! Σ x (scale (q - BIAS) + offset)  =  Σ x (scale q)  +  Σ over groups (offset - BIAS scale) (Σ x)
//! ```
//!
//! The sums of `x` over each group are the same for all rows of the matrix.

use std::borrow::Cow;
use std::hint::black_box;
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use super::limbs::Limbs;
#[cfg(target_arch = "x86_64")]
use super::vnni::Vnni;
#[cfg(target_arch = "x86_64")]
use super::whole::{Prepare, WholeDots};
use super::{Block, Format, OnFormat, OnSixteen, Plain, Sixteen, on_format, on_sixteen};
use crate::kernels::cpu::simd;

/// Rows that are worked on side by side: of a matrix in blocks, or of `x`.
pub(in crate::kernels::cpu) const ABREAST: usize = 4;
/// Bytes from what is read to what is asked of memory: caches look no further than a page ahead.
pub(super) const AHEAD: usize = 4096;

/// Rows of `x`, prepared for products with rows in blocks.
pub(in crate::kernels::cpu) struct Factor<'a> {
    format: Format,
    x: Rows<'a>,
    /// What [`group_sums`] gives for each row of `x`.
    sums: Vec<Vec<f32>>,
}

/// In which form they are.
enum Rows<'a> {
    Floats(Vec<Cow<'a, [f32]>>),
    #[cfg(target_arch = "x86_64")]
    Limbs(Vnni, Vec<Limbs>),
}

impl<'a> Factor<'a> {
    /// Of rows that are as long as the numbers of a row in blocks.
    pub(in crate::kernels::cpu) fn new(format: Format, x: &[&'a [f32]]) -> Self {
        let sums = x.iter().map(|x| group_sums(format, x)).collect();
        #[cfg(target_arch = "x86_64")]
        if let Some(on) = Vnni::try_new().filter(|_| format.is_quantized()) {
            return Self { format, x: Rows::Limbs(on, on_format(format, Prepare(on, x))), sums };
        }
        let x = x.iter().map(|&x| match format {
            Format::Bf16 => Cow::Owned(evens_and_odds(x)),
            _ => Cow::Borrowed(x),
        });
        Self { format, x: Rows::Floats(x.collect()), sums }
    }

    /// The products with the rows of a matrix, one behind the other in `bytes`, of so many bytes each,
    /// not 0: `[rows in blocks, rows of x]`.
    pub(in crate::kernels::cpu) fn dots(
        &self,
        bytes: &[u8],
        row_bytes: usize,
        products: &mut [f32],
    ) {
        let Self { format, x, sums } = self;
        if asks_ahead(*format) {
            // What is asked for ahead begins behind this.
            simd::prefetch(bytes.as_ptr(), AHEAD.min(bytes.len()));
        }
        match x {
            Rows::Floats(x) => {
                on_format(*format, Dots { bytes, row_bytes, x, sums, products });
            }
            #[cfg(target_arch = "x86_64")]
            &Rows::Limbs(on, ref x) => {
                on_format(*format, WholeDots { on, bytes, row_bytes, x, sums, products });
            }
        }
    }
}

/// Whether rows of a format are asked of memory before they are read.
fn asks_ahead(format: Format) -> bool {
    format.is_quantized() || !simd::caches_read_ahead()
}

/// Of each 32 numbers those with an even place, then the others; the rest as it is.
fn evens_and_odds(x: &[f32]) -> Vec<f32> {
    let mut sorted = x.to_vec();
    for (to, from) in sorted.as_chunks_mut::<32>().0.iter_mut().zip(x.as_chunks::<32>().0) {
        for i in 0..16 {
            (to[i], to[i + 16]) = (from[2 * i], from[2 * i + 1]);
        }
    }
    sorted
}

/// The products of rows of `x` with rows in blocks.
struct Dots<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    x: &'a [Cow<'a, [f32]>],
    sums: &'a [Vec<f32>],
    products: &'a mut [f32],
}

/// The sums of `x` over each group, sixteen numbers for each unit of blocks, as the products take them;
/// nothing for a format that needs none.
fn group_sums(format: Format, x: &[f32]) -> Vec<f32> {
    on_format(format, GroupSums(x))
}

struct GroupSums<'a>(&'a [f32]);

impl OnFormat for GroupSums<'_> {
    type Output = Vec<f32>;

    fn blocks<B: Block>(self) -> Vec<f32> {
        let (first, factor) = match B::OFFSETS {
            Some(first) => (first, 1.0),
            None if B::BIAS != 0 => (0, -B::BIAS as f32),
            None => return Vec::new(),
        };
        let sums = self.0.chunks(B::UNIT * B::LENGTH).flat_map(|x| {
            let mut sums = [0.0; 16];
            for (sum, group) in sums[first..].iter_mut().zip(x.chunks_exact(B::GROUP)) {
                let mut lanes = [0.0f32; 8];
                for x in group.as_chunks::<8>().0 {
                    lanes.iter_mut().zip(x).for_each(|(lane, x)| *lane += x);
                }
                *sum = factor * lanes.iter().sum::<f32>();
            }
            sums
        });
        sums.collect()
    }

    fn plain<P: Plain>(self) -> Vec<f32> {
        Vec::new()
    }
}

impl OnFormat for Dots<'_> {
    type Output = ();

    fn blocks<B: Block>(self) {
        on_sixteen(DotBlocks::<B>(self, PhantomData));
    }

    fn plain<P: Plain>(self) {
        on_sixteen(DotPlain::<P>(self, PhantomData));
    }
}

struct DotBlocks<'a, B>(Dots<'a>, PhantomData<B>);

impl<B: Block> OnSixteen for DotBlocks<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sixteen>(self, on: S) {
        let Dots { bytes, row_bytes, x, sums, products, .. } = self.0;
        for (row, products) in bytes.chunks_exact(row_bytes).zip(products.chunks_exact_mut(x.len()))
        {
            let mut first = 0;
            let mut groups = products.chunks_exact_mut(ABREAST);
            for group in &mut groups {
                let rows = std::array::from_fn(|m| (&x[first + m][..], &sums[first + m][..]));
                group.copy_from_slice(&dot_blocks::<B, S, ABREAST, 2>(on, row, rows));
                first += ABREAST;
            }
            for product in groups.into_remainder() {
                [*product] = dot_blocks::<B, S, 1, 4>(on, row, [(&x[first][..], &sums[first][..])]);
                first += 1;
            }
        }
    }
}

/// The products of one row in blocks with `M` rows of `x`, each over `N` sums.
#[inline(always)]
fn dot_blocks<B: Block, S: Sixteen, const M: usize, const N: usize>(
    on: S,
    row: &[u8],
    x: [(&[f32], &[f32]); M],
) -> [f32; M] {
    let mut totals = [[on.splat(0.0); N]; M];
    let mut constant = [on.splat(0.0); M];
    for (index, unit) in row.chunks(B::UNIT * B::BYTES).enumerate() {
        let [scale, offset] = B::scales(on, unit);
        let mut scales = [0.0; 16];
        on.store(scale, &mut scales);
        // From memory a scale is spread while it is loaded; from a register that would take a shuffle.
        let scales = black_box(&scales);
        if B::OFFSETS.is_some() || B::BIAS != 0 {
            let factor = if B::OFFSETS.is_some() { offset } else { scale };
            for m in 0..M {
                let sums = on.load(sixteen(&x[m].1[16 * index..]));
                constant[m] = on.mul_add(factor, sums, constant[m]);
            }
        }
        let x: [&[f32]; M] = std::array::from_fn(|m| &x[m].0[index * B::UNIT * B::LENGTH..]);
        let mut pairs = unit.chunks_exact(2 * B::BYTES);
        let mut at = 0;
        for pair in &mut pairs {
            prefetch(on, pair);
            let [one, two] = [&pair[..B::BYTES], &pair[B::BYTES..]];
            add_block::<B, S, M, N>(on, one, at, 0, scales, x, &mut totals);
            add_block::<B, S, M, N>(on, two, at + 1, N / 2, scales, x, &mut totals);
            at += 2;
        }
        if !pairs.remainder().is_empty() {
            let last = pairs.remainder();
            prefetch(on, last);
            add_block::<B, S, M, N>(on, last, at, 0, scales, x, &mut totals);
        }
    }
    std::array::from_fn(|m| {
        let total = totals[m].into_iter().fold(constant[m], |sum, total| on.add(sum, total));
        on.sum(total)
    })
}

/// Adds what block `at` of a unit gives to sums from `first` on.
#[inline(always)]
fn add_block<B: Block, S: Sixteen, const M: usize, const N: usize>(
    on: S,
    block: &[u8],
    at: usize,
    first: usize,
    scales: &[f32; 16],
    x: [&[f32]; M],
    totals: &mut [[S::Floats; N]; M],
) {
    // Of a known length, so that nothing is checked within.
    let x: [&[f32]; M] = std::array::from_fn(|m| &x[m][at * B::LENGTH..][..B::LENGTH]);
    let groups = B::LENGTH / B::GROUP;
    let scales = &scales[at * groups..][..groups];
    let mut part = on.splat(0.0);
    B::whole(
        on,
        block,
        #[inline(always)]
        |i, q| {
            let (group, q) = (16 * i / B::GROUP, on.floats(q));
            let scale = on.splat(scales[group]);
            if M == 1 {
                // Summed up in the group, and scaled once.
                let x = on.load(sixteen(&x[0][16 * i..]));
                let is_first = 16 * i % B::GROUP == 0;
                part = if is_first { on.mul(x, q) } else { on.mul_add(x, q, part) };
                if 16 * (i + 1) % B::GROUP == 0 {
                    let total = &mut totals[0][(first + group) % N];
                    *total = on.mul_add(part, scale, *total);
                }
                return;
            }
            let weights = on.mul(q, scale);
            for m in 0..M {
                let total = &mut totals[m][(first + i) % N];
                *total = on.mul_add(on.load(sixteen(&x[m][16 * i..])), weights, *total);
            }
        },
    );
}

struct DotPlain<'a, P>(Dots<'a>, PhantomData<P>);

impl<P: Plain> OnSixteen for DotPlain<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Sixteen>(self, on: S) {
        let ahead = !simd::caches_read_ahead();
        let Dots { bytes, row_bytes, x, products, .. } = self.0;
        for (row, products) in bytes.chunks_exact(row_bytes).zip(products.chunks_exact_mut(x.len()))
        {
            let mut first = 0;
            let mut groups = products.chunks_exact_mut(ABREAST);
            for group in &mut groups {
                let rows = std::array::from_fn(|m| &x[first + m][..]);
                group.copy_from_slice(&dot_plain::<P, S, ABREAST>(on, row, rows, ahead));
                first += ABREAST;
            }
            for product in groups.into_remainder() {
                [*product] = dot_plain::<P, S, 1>(on, row, [&x[first][..]], ahead);
                first += 1;
            }
        }
    }
}

/// The same for plain numbers, asked of memory `ahead` or not.
#[inline(always)]
fn dot_plain<P: Plain, S: Sixteen, const M: usize>(
    on: S,
    row: &[u8],
    x: [&[f32]; M],
    ahead: bool,
) -> [f32; M] {
    let mut totals = [[on.splat(0.0); 2]; M];
    let pairs = row.chunks_exact(32 * P::BYTES);
    let rest = pairs.remainder();
    let mut start = 0;
    for pair in pairs {
        if ahead {
            prefetch(on, pair);
        }
        let x: [&[f32]; M] = std::array::from_fn(|m| &x[m][start..start + 32]);
        for (i, weights) in P::pair(on, pair).into_iter().enumerate() {
            for m in 0..M {
                let x = on.load(sixteen(&x[m][16 * i..]));
                totals[m][i] = on.mul_add(x, weights, totals[m][i]);
            }
        }
        start += 32;
    }
    for (i, rest) in rest.chunks(16 * P::BYTES).enumerate() {
        let mut bytes = [0; 64];
        bytes[..rest.len()].copy_from_slice(rest);
        let weights = P::floats(on, &bytes);
        for m in 0..M {
            let mut last = [0.0; 16];
            let x = &x[m][start + 16 * i..];
            let length = x.len().min(16);
            last[..length].copy_from_slice(&x[..length]);
            totals[m][i] = on.mul_add(on.load(&last), weights, totals[m][i]);
        }
    }
    std::array::from_fn(|m| on.sum(on.add(totals[m][0], totals[m][1])))
}

#[inline(always)]
fn prefetch<S: Sixteen>(on: S, bytes: &[u8]) {
    let mut line = 0;
    while line < bytes.len() {
        on.prefetch(bytes, AHEAD + line);
        line += 64;
    }
}

#[inline(always)]
fn sixteen(numbers: &[f32]) -> &[f32; 16] {
    numbers[..16].try_into().expect("a range of its length")
}
