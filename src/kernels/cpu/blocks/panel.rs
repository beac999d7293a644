//! Products in whole numbers of many rows of f32 with rows in blocks.
//!
//! Sixteen rows in blocks become a panel, in which a vector has four bytes of each of them. It is
//! multiplied with all rows of `x`, twelve at a time, four numbers with one instruction for each limb of
//! `x`: three instructions where f32 has four.

use std::arch::x86_64::*;

use super::column::{Column, EMPTY, OUTPUTS, QUAD};
use super::limbs::{GROUP as STEP, LIMBS};
use super::sheet::{ROWS, Sheet};
use super::vnni::Vnni;
use super::{Block, Format, OnFormat, Plain, Sixteen, on_format};

/// Numbers of a row that are turned at a time, at most: those of a unit.
const MOST_TURNED: usize = 512;

/// Products of many rows of `x` with rows in blocks.
#[derive(Clone, Copy)]
pub(in crate::kernels::cpu) struct ManyRows {
    on: Vnni,
    format: Format,
    /// Numbers of a row.
    columns: usize,
}

/// Up to sixteen rows in blocks, turned; those that are missing are zeros.
#[derive(Default)]
pub(in crate::kernels::cpu) struct Panel {
    /// Of each row four bytes that follow each other, `[columns / QUAD]`.
    quads: Vec<Column>,
    /// Scales and offsets of the groups, f32, `[groups]`.
    scales: Vec<Column>,
    offsets: Vec<Column>,
}

impl ManyRows {
    /// Nothing if `format` is not of blocks, or the machine has no VNNI.
    pub(in crate::kernels::cpu) fn new(format: Format, columns: usize) -> Option<Self> {
        let on = Vnni::try_new().filter(|_| format.is_quantized())?;
        Some(Self { on, format, columns })
    }

    /// Up to [`ROWS`] rows of `x`.
    ///
    /// # Panics
    ///
    /// If there are more, or of another width.
    pub(in crate::kernels::cpu) fn sheet(self, x: &[&[f32]]) -> Sheet {
        on_format(self.format, Write { of: self, x })
    }

    /// Makes `panel` that of up to [`OUTPUTS`] rows in blocks, which stand one behind the other.
    ///
    /// # Panics
    ///
    /// If there are more.
    pub(in crate::kernels::cpu) fn turn(self, bytes: &[u8], panel: &mut Panel) {
        on_format(self.format, Turn { of: self, bytes, panel });
    }

    /// `start`, and the products of each row of `x` with each of the panel.
    ///
    /// # Panics
    ///
    /// If they are of another width.
    pub(in crate::kernels::cpu) fn tile(
        self,
        x: &Sheet,
        panel: &Panel,
        start: &[f32; OUTPUTS],
    ) -> [[f32; OUTPUTS]; ROWS] {
        on_format(self.format, Tile { of: self, x, panel, start })
    }
}

struct Write<'a> {
    of: ManyRows,
    x: &'a [&'a [f32]],
}

impl OnFormat for Write<'_> {
    type Output = Sheet;

    fn blocks<B: Block>(self) -> Sheet {
        let Self { of: ManyRows { on, columns, .. }, x } = self;
        assert!(x.len() <= ROWS && x.iter().all(|x| x.len() == columns), "rows that do not fit");
        on.vectorize(
            #[inline(always)]
            || Sheet::new::<B>(on, x, columns),
        )
    }

    fn plain<P: Plain>(self) -> Sheet {
        unreachable!("numbers that stand by themselves are not whole")
    }
}

struct Turn<'a> {
    of: ManyRows,
    bytes: &'a [u8],
    panel: &'a mut Panel,
}

impl OnFormat for Turn<'_> {
    type Output = ();

    fn blocks<B: Block>(self) {
        let Self { of: ManyRows { on, columns, .. }, bytes, panel } = self;
        let row_bytes = columns / B::LENGTH * B::BYTES;
        assert!(bytes.len() <= OUTPUTS * row_bytes, "more rows than a panel has");
        let groups = columns / B::GROUP;
        panel.quads.resize(columns / QUAD, EMPTY);
        panel.scales.resize(groups, EMPTY);
        panel.offsets.resize(if B::OFFSETS.is_some() { groups } else { 0 }, EMPTY);
        on.vectorize(
            #[inline(always)]
            || panel.write::<B>(on, bytes, row_bytes),
        );
    }

    fn plain<P: Plain>(self) {
        unreachable!("numbers that stand by themselves are not whole")
    }
}

impl Panel {
    #[inline(always)]
    fn write<B: Block>(&mut self, on: Vnni, bytes: &[u8], row_bytes: usize) {
        const { assert!(B::UNIT * B::LENGTH <= MOST_TURNED) };
        let mut rows = [[EMPTY; MOST_TURNED / QUAD / OUTPUTS]; OUTPUTS];
        let (mut scales, mut offsets) = ([[EMPTY]; OUTPUTS], [[EMPTY]; OUTPUTS]);
        let unit_bytes = B::UNIT * B::BYTES;
        for unit in 0..row_bytes.div_ceil(unit_bytes) {
            let part = unit * unit_bytes..row_bytes.min((unit + 1) * unit_bytes);
            for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
                let bytes = &bytes[part.clone()];
                let [scale, offset] = B::scales(on.sixteen, bytes);
                on.store_floats(scale, &mut scales[row][0]);
                on.store_floats(offset, &mut offsets[row][0]);
                for (block, bytes) in bytes.chunks_exact(B::BYTES).enumerate() {
                    let first = block * B::LENGTH / 16;
                    let columns = &mut rows[row];
                    B::whole(
                        on.sixteen,
                        bytes,
                        #[inline(always)]
                        |i, q| {
                            let byte = on.sixteen.less(q, B::BIAS - B::EXCESS);
                            let at = first + i;
                            on.store_bytes(byte, &mut columns[at / 4], at % 4);
                        },
                    );
                }
            }
            let numbers = part.len() / B::BYTES * B::LENGTH;
            let first = unit * B::UNIT * B::LENGTH;
            let groups = first / B::GROUP..(first + numbers) / B::GROUP;
            let turned = on.turned(&scales, 0);
            self.scales[groups.clone()].copy_from_slice(&turned[..groups.len()]);
            if let Some(begin) = B::OFFSETS {
                let turned = on.turned(&offsets, 0);
                self.offsets[groups.clone()].copy_from_slice(&turned[begin..][..groups.len()]);
            }
            for (at, quads) in
                self.quads[first / QUAD..][..numbers / QUAD].chunks_mut(16).enumerate()
            {
                quads.copy_from_slice(&on.turned(&rows, at)[..quads.len()]);
            }
        }
    }
}

struct Tile<'a> {
    of: ManyRows,
    x: &'a Sheet,
    panel: &'a Panel,
    start: &'a [f32; OUTPUTS],
}

impl OnFormat for Tile<'_> {
    type Output = [[f32; OUTPUTS]; ROWS];

    fn blocks<B: Block>(self) -> Self::Output {
        let on = self.of.on;
        on.vectorize(
            #[inline(always)]
            || self.products::<B>(on),
        )
    }

    fn plain<P: Plain>(self) -> Self::Output {
        unreachable!("numbers that stand by themselves are not whole")
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn products<B: Block>(self, on: Vnni) -> [[f32; OUTPUTS]; ROWS] {
        let Self { x, panel, start, .. } = self;
        let groups = panel.scales.len();
        let quads = B::GROUP / QUAD;
        let fits = panel.quads.len() == groups * quads
            && x.limbs.len() == LIMBS * panel.quads.len()
            && x.steps.len() == groups * B::GROUP / STEP
            && (B::EXCESS == 0 || x.excess.len() == groups)
            && (B::OFFSETS.is_none() || panel.offsets.len() == groups && x.sums.len() == groups);
        assert!(fits, "x of another width");
        let mut totals = [on.sixteen.load(start); ROWS];
        for group in 0..groups {
            // SAFETY: as asserted above; a step is of one group or of two, a sum is of one.
            unsafe {
                let of_panel = panel.quads.get_unchecked(group * quads..(group + 1) * quads);
                let limbs =
                    x.limbs.get_unchecked(LIMBS * group * quads..LIMBS * (group + 1) * quads);
                let mut sums = on.products_of_limbs(of_panel, limbs);
                if B::EXCESS != 0 {
                    on.add_whole(x.excess.get_unchecked(group), &mut sums);
                }
                let steps = x.steps.get_unchecked(group * B::GROUP / STEP);
                on.add_scaled(sums, panel.scales.get_unchecked(group), steps, &mut totals);
                if B::OFFSETS.is_some() {
                    let offsets = panel.offsets.get_unchecked(group);
                    on.add_offsets(offsets, x.sums.get_unchecked(group), &mut totals);
                }
            }
        }
        let mut tile = [[0.0; OUTPUTS]; ROWS];
        for row in 0..ROWS {
            on.sixteen.store(totals[row], &mut tile[row]);
        }
        tile
    }
}

// SAFETY, of every block in this file that does not say otherwise: the machine has the instructions, as
// `self` proves; loads stay within the array or column that the reference is to, and a column begins where
// the alignment asks for it.
#[allow(clippy::unused_self)]
impl Vnni {
    /// The sums of the products of the bytes of a group with each row of `x`, modulo 2^32.
    #[inline(always)]
    fn products_of_limbs(self, quads: &[Column], x: &[[[u8; QUAD]; ROWS]]) -> [__m512i; ROWS] {
        // SAFETY: see above.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); ROWS];
            for (limb, x) in x.chunks_exact(quads.len()).enumerate() {
                if limb > 0 {
                    for sum in &mut sums {
                        *sum = _mm512_slli_epi32::<7>(*sum);
                    }
                }
                for (quad, x) in quads.iter().zip(x) {
                    let quad = _mm512_load_si512(quad.0.as_ptr().cast());
                    for row in 0..ROWS {
                        let x = _mm512_set1_epi32(i32::from_le_bytes(x[row]));
                        sums[row] = _mm512_dpbusd_epi32(sums[row], quad, x);
                    }
                }
            }
            sums
        }
    }

    /// Adds a number for each row of `x`.
    #[inline(always)]
    fn add_whole(self, x: &[i32; ROWS], sums: &mut [__m512i; ROWS]) {
        for row in 0..ROWS {
            // SAFETY: see above.
            sums[row] = unsafe { _mm512_add_epi32(sums[row], _mm512_set1_epi32(x[row])) };
        }
    }

    /// Adds the sums of a group, times its scales and the steps of each row of `x`.
    #[inline(always)]
    fn add_scaled(
        self,
        sums: [__m512i; ROWS],
        scales: &Column,
        steps: &[f32; ROWS],
        totals: &mut [__m512; ROWS],
    ) {
        // SAFETY: see above.
        unsafe {
            let scales = _mm512_load_ps(scales.0.as_ptr().cast());
            for row in 0..ROWS {
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(steps[row]));
                totals[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row]), scale, totals[row]);
            }
        }
    }

    /// Adds the offsets of a group, times the sum of each row of `x` over it.
    #[inline(always)]
    fn add_offsets(self, offsets: &Column, sums: &[f32; ROWS], totals: &mut [__m512; ROWS]) {
        // SAFETY: see above.
        unsafe {
            let offsets = _mm512_load_ps(offsets.0.as_ptr().cast());
            for row in 0..ROWS {
                totals[row] = _mm512_fmadd_ps(offsets, _mm512_set1_ps(sums[row]), totals[row]);
            }
        }
    }
}
