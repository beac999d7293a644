//! Sixteen rows that stand one behind the other, turned: columns of them.

use std::arch::x86_64::*;

use super::vnni::Vnni;

/// Rows of a column.
pub(in crate::kernels::cpu) const OUTPUTS: usize = 16;
/// Bytes of each row in a column.
pub(super) const QUAD: usize = 4;

/// What sixteen rows have in one place: four bytes that follow each other, or an f32. Or as much of one
/// row: 64 bytes, or sixteen f32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Column(pub [[u8; QUAD]; OUTPUTS]);

pub(super) const EMPTY: Column = Column([[0; QUAD]; OUTPUTS]);

// SAFETY, of every block in this file: the machine has the instructions, as `self` proves; loads and
// stores stay within the column that the reference is to, which begins where the alignment asks for it.
#[allow(clippy::unused_self)]
impl Vnni {
    #[inline(always)]
    pub(super) fn store_floats(self, x: __m512, to: &mut Column) {
        // SAFETY: see above.
        unsafe { _mm512_store_ps(to.0.as_mut_ptr().cast(), x) }
    }

    /// Writes sixteen numbers as bytes to a quarter of `to`.
    #[inline(always)]
    pub(super) fn store_bytes(self, x: __m512i, to: &mut Column, quarter: usize) {
        let to = &mut to.0[quarter * OUTPUTS / 4..][..OUTPUTS / 4];
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x)) }
    }

    /// Vector `at` of each of sixteen rows, as columns.
    #[inline(always)]
    pub(super) fn turned<const N: usize>(
        self,
        rows: &[[Column; N]; OUTPUTS],
        at: usize,
    ) -> [Column; OUTPUTS] {
        let mut columns = [EMPTY; OUTPUTS];
        // SAFETY: see above.
        unsafe {
            let mut x = [_mm512_setzero_si512(); OUTPUTS];
            for row in 0..OUTPUTS {
                x[row] = _mm512_load_si512(rows[row][at].0.as_ptr().cast());
            }
            // Of each four words of a vector the first two columns of two rows, and the last two.
            let mut twos = x;
            for i in 0..8 {
                twos[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
                twos[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
            }
            // Of each four words one column of four rows.
            let mut fours = x;
            for i in 0..4 {
                let first = 4 * i;
                fours[first] = _mm512_unpacklo_epi64(twos[first], twos[first + 2]);
                fours[first + 1] = _mm512_unpackhi_epi64(twos[first], twos[first + 2]);
                fours[first + 2] = _mm512_unpacklo_epi64(twos[first + 1], twos[first + 3]);
                fours[first + 3] = _mm512_unpackhi_epi64(twos[first + 1], twos[first + 3]);
            }
            for i in 0..4 {
                let evens = _mm512_shuffle_i32x4::<0x88>(fours[i], fours[4 + i]);
                let other_evens = _mm512_shuffle_i32x4::<0x88>(fours[8 + i], fours[12 + i]);
                let odds = _mm512_shuffle_i32x4::<0xdd>(fours[i], fours[4 + i]);
                let other_odds = _mm512_shuffle_i32x4::<0xdd>(fours[8 + i], fours[12 + i]);
                x[i] = _mm512_shuffle_i32x4::<0x88>(evens, other_evens);
                x[4 + i] = _mm512_shuffle_i32x4::<0x88>(odds, other_odds);
                x[8 + i] = _mm512_shuffle_i32x4::<0xdd>(evens, other_evens);
                x[12 + i] = _mm512_shuffle_i32x4::<0xdd>(odds, other_odds);
            }
            for i in 0..OUTPUTS {
                _mm512_store_si512(columns[i].0.as_mut_ptr().cast(), x[i]);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_rows() {
        let Some(on) = Vnni::try_new() else { return };
        let mut rows = [[EMPTY; 3]; OUTPUTS];
        let byte = |row: usize, at: usize, quad: usize, i: usize| {
            (97 * row + 31 * at + 7 * quad + i) as u8
        };
        for (row, vectors) in rows.iter_mut().enumerate() {
            for (at, vector) in vectors.iter_mut().enumerate() {
                for (quad, bytes) in vector.0.iter_mut().enumerate() {
                    *bytes = std::array::from_fn(|i| byte(row, at, quad, i));
                }
            }
        }
        for at in 0..3 {
            for (quad, column) in on.turned(&rows, at).iter().enumerate() {
                for (row, bytes) in column.0.iter().enumerate() {
                    assert_eq!(*bytes, std::array::from_fn(|i| byte(row, at, quad, i)));
                }
            }
        }
    }
}
