//! Twelve rows of f32 as whole numbers in limbs, side by side, for products of many rows with a panel.

use std::arch::x86_64::*;

use super::Block;
use super::column::{Column, EMPTY, OUTPUTS, QUAD};
use super::limbs::{GROUP as STEP, LIMBS, MOST};
use super::vnni::Vnni;

/// Rows of a sheet: as many sums as there are vectors for.
pub(in crate::kernels::cpu) const ROWS: usize = 12;

/// The largest `a` for numbers of 8 bits: 128 times it, 32 times, is an i32. Of those of fewer bits the sum
/// over a group is one with [`MOST`] too.
const MOST_FOR_BYTES: f32 = 520_000.0;

/// Some rows of `x`, with what stands in one place of them side by side; rows that are missing are zeros.
pub(in crate::kernels::cpu) struct Sheet {
    /// Of each group of the format the high limbs, the middle and the low ones, four numbers at a time:
    /// `[groups, LIMBS, numbers of a group / QUAD]`.
    pub(super) limbs: Vec<[[u8; QUAD]; ROWS]>,
    /// What a group comes to, times what bytes are more than what they stand for; to be taken off.
    pub(super) excess: Vec<[i32; ROWS]>,
    /// The step of each [`STEP`] numbers, and for a format with offsets their sum.
    pub(super) steps: Vec<[f32; ROWS]>,
    pub(super) sums: Vec<[f32; ROWS]>,
}

impl Sheet {
    /// Of up to [`ROWS`] rows of `columns` numbers each, for products with blocks of `B`.
    #[inline(always)]
    pub(super) fn new<B: Block>(on: Vnni, rows: &[&[f32]], columns: usize) -> Self {
        let quads = B::GROUP / QUAD;
        let most = if B::EXCESS == 128 { MOST_FOR_BYTES } else { MOST };
        let steps = columns / STEP;
        let mut sheet = Self {
            limbs: Vec::with_capacity(columns / QUAD * LIMBS),
            excess: vec![[0; ROWS]; if B::EXCESS == 0 { 0 } else { columns / B::GROUP }],
            steps: vec![[0.0; ROWS]; steps],
            sums: vec![[0.0; ROWS]; if B::OFFSETS.is_some() { steps } else { 0 }],
        };
        let mut bytes = [[EMPTY; 2]; OUTPUTS];
        for step in 0..steps {
            for row in 0..rows.len() {
                let x = &rows[row].as_chunks::<STEP>().0[step];
                let (whole, of_all) = on.whole_numbers(x, most);
                sheet.steps[step][row] = of_all;
                let [first, second] = &mut bytes[row];
                let (high, middle) = first.0.as_flattened_mut().split_at_mut(STEP);
                let low = second.0.as_flattened_mut();
                for (half, &whole) in whole.iter().enumerate() {
                    let limbs = on.limbs(whole);
                    let of_half = 16 * half..16 * half + 16;
                    on.store_limb(limbs[0], &mut high[of_half.clone()]);
                    on.store_limb(limbs[1], &mut middle[of_half.clone()]);
                    on.store_limb(limbs[2], &mut low[of_half]);
                }
            }
            let turned = [on.turned(&bytes, 0), on.turned(&bytes, 1)];
            for group in 0..STEP / B::GROUP {
                let mut sums = [0; OUTPUTS];
                for limb in 0..LIMBS {
                    let first = limb * STEP / QUAD + group * quads;
                    let columns = &turned[first / OUTPUTS][first % OUTPUTS..][..quads];
                    if B::EXCESS != 0 || B::OFFSETS.is_some() {
                        sums = on.sums_with_limb(sums, columns);
                    }
                    for Column(column) in columns {
                        let of_rows = column.first_chunk();
                        sheet.limbs.push(*of_rows.expect("fewer rows than a column has"));
                    }
                }
                let group = step * STEP / B::GROUP + group;
                for (row, &sum) in sums[..ROWS].iter().enumerate() {
                    if B::EXCESS != 0 {
                        // Modulo 2^32, as what it is taken off.
                        sheet.excess[group][row] = sum.wrapping_mul(-B::EXCESS);
                    }
                    if B::OFFSETS.is_some() {
                        sheet.sums[group][row] = sum as f32 * sheet.steps[step][row];
                    }
                }
            }
        }
        sheet
    }
}

#[allow(clippy::unused_self)]
impl Vnni {
    /// What twelve rows and more come to by their limbs so far and one more limb.
    #[inline(always)]
    fn sums_with_limb(self, sums: [i32; OUTPUTS], limbs: &[Column]) -> [i32; OUTPUTS] {
        let mut to = sums;
        // SAFETY: the machine has the instructions, as `self` proves; loads and stores stay within the
        // arrays, and a column begins where the alignment asks for it.
        unsafe {
            let ones = _mm512_set1_epi8(1);
            let mut sums = _mm512_slli_epi32::<7>(_mm512_loadu_si512(sums.as_ptr().cast()));
            for limb in limbs {
                let limb = _mm512_load_si512(limb.0.as_ptr().cast());
                sums = _mm512_dpbusd_epi32(sums, ones, limb);
            }
            _mm512_storeu_si512(to.as_mut_ptr().cast(), sums);
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::blocks::{q4::Q4_1, q6_k::Q6K, q8::Q8_0};

    /// Of a format that takes numbers as whole ones of up to `most`.
    fn check<B: Block>(columns: usize, most: f64) {
        let Some(on) = Vnni::try_new() else { return };
        let number = |i: usize| ((i * 31) as f32 * 12.9898).sin() * 43758.547 % 1.0;
        let row = |row: usize| -> Vec<f32> {
            (0..columns).map(|i| number(columns * row + i) * (1 + row + i / STEP) as f32).collect()
        };
        let rows: Vec<_> = (0..5).map(row).collect();
        let slices: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let sheet = Sheet::new::<B>(on, &slices, columns);
        let (quads, groups) = (B::GROUP / QUAD, columns / B::GROUP);
        assert_eq!(sheet.limbs.len(), groups * LIMBS * quads);
        for (row, x) in rows.iter().enumerate() {
            for (group, x) in x.chunks(B::GROUP).enumerate() {
                let at = group * B::GROUP / STEP;
                let step = f64::from(sheet.steps[at][row]);
                let of_step = &rows[row][at * STEP..][..STEP];
                let largest = f64::from(of_step.iter().fold(0.0f32, |max, x| max.max(x.abs())));
                let (mut sum, mut sum_of_x) = (0, 0.0);
                for (i, &x) in x.iter().enumerate() {
                    let limb = |limb: usize| {
                        let quad = (group * LIMBS + limb) * quads + i / QUAD;
                        i32::from(sheet.limbs[quad][row][i % QUAD] as i8)
                    };
                    let whole = (limb(0) << 14) + (limb(1) << 7) + limb(2);
                    // Half a step, and two roundings of x in f32.
                    let error = (f64::from(whole) * step - f64::from(x)).abs();
                    assert!(error <= largest * (0.5 / most + 2e-7), "{whole} times {step} for {x}");
                    sum += whole;
                    sum_of_x += f64::from(x);
                }
                if B::EXCESS != 0 {
                    assert_eq!(sheet.excess[group][row], sum.wrapping_mul(-B::EXCESS));
                }
                if B::OFFSETS.is_some() {
                    let error = (f64::from(sheet.sums[group][row]) - sum_of_x).abs();
                    assert!(error <= 32.0 * step, "{} for {sum_of_x}", sheet.sums[group][row]);
                }
            }
        }
        assert!(sheet.limbs.iter().all(|quads| quads[5..] == [[0; QUAD]; ROWS - 5]));
        assert!(sheet.steps.iter().all(|steps| steps[5..] == [0.0; ROWS - 5]));
    }

    #[test]
    fn a_sheet_has_the_numbers_of_its_rows() {
        check::<Q8_0>(96, 520_000.0);
        check::<Q4_1>(96, 2_080_000.0);
        check::<Q6K>(256, 2_080_000.0);
    }
}
