//! Products of many rows with a matrix in blocks in whole numbers, on machines that have the
//! instructions: `x Wᵀ`.
//!
//! A number of the result is a sum in a fixed order, whatever the number of threads and of rows beside it.

use std::cell::Cell;

use super::blocks::{ManyRows, OUTPUTS, Panel, SHEET_ROWS, Sheet};
use super::matrix::Matrix;
use super::memory::{SharedSlice, written_in_blocks};
use super::simd::prefetch;
use super::stored::{StoredMatrix, threads_for};
use super::threads;

/// Panels of one matrix that keep a few threads busy; of fewer the rows of `x` are shared out too.
const ENOUGH_PARTS: usize = 16;

thread_local! {
    /// Kept by the thread: fresh memory from the system costs more than to write to it.
    static PANEL: Cell<Panel> = Cell::default();
}

/// `x Wᵀ`, plus `bias` in each row; nothing where the machine or the format has no such products.
/// Nothing is empty.
pub(super) fn product_of_many(
    x: Matrix,
    weight: StoredMatrix,
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    let StoredMatrix { format, rows: outputs, columns, .. } = weight;
    let many = ManyRows::new(format, columns)?;
    assert!(x.columns == columns, "matrices that do not fit");
    assert!(bias.is_none_or(|bias| bias.len() == outputs), "a bias that does not fit");
    let threads = threads_for(outputs * columns * x.rows);
    let sheets = sheets(x, many, threads);
    let panels = outputs.div_ceil(OUTPUTS);
    let pieces = ENOUGH_PARTS.div_ceil(panels).min(sheets.len());
    let in_piece = sheets.len().div_ceil(pieces);
    let len = x.rows * outputs;
    let mut products = Vec::with_capacity(len);
    let shared = SharedSlice::new(&mut products.spare_capacity_mut()[..len]);
    threads::for_each(panels * pieces, threads, |part| {
        let (first, piece) = (part / pieces * OUTPUTS, part % pieces);
        let of_panel = first..outputs.min(first + OUTPUTS);
        let mut start = [0.0; OUTPUTS];
        if let Some(bias) = bias {
            start[..of_panel.len()].copy_from_slice(&bias[of_panel.clone()]);
        }
        let mut panel = PANEL.take();
        many.turn(weight.bytes_of(of_panel.clone()), &mut panel);
        let of_piece = sheets.iter().enumerate().skip(piece * in_piece).take(in_piece);
        for (at, sheet) in of_piece {
            let rows = at * SHEET_ROWS..x.rows.min((at + 1) * SHEET_ROWS);
            let places = rows.map(|row| {
                // SAFETY: every part has numbers of its own.
                unsafe { shared.slice(row * outputs + first, of_panel.len()) }
            });
            // Memory gives the lines that will be written while their numbers are computed.
            places.clone().for_each(|to| prefetch(to.as_ptr(), size_of_val(to)));
            let tile = many.tile(sheet, &panel, &start);
            for (to, numbers) in places.zip(&tile) {
                to.write_copy_of_slice(&numbers[..of_panel.len()]);
            }
        }
        PANEL.set(panel);
    });
    // SAFETY: the parts are all panels of all rows, hence all numbers.
    unsafe { products.set_len(len) };
    Some(products)
}

/// All rows of `x`, [`SHEET_ROWS`] in a sheet.
fn sheets(x: Matrix, many: ManyRows, threads: usize) -> Vec<Sheet> {
    let sheet = |sheet: usize| {
        let rows = sheet * SHEET_ROWS..x.rows.min((sheet + 1) * SHEET_ROWS);
        many.sheet(&rows.map(|row| x.row(row)).collect::<Vec<_>>())
    };
    let count = x.rows.div_ceil(SHEET_ROWS);
    if threads == 1 {
        return (0..count).map(sheet).collect();
    }
    // SAFETY: each block of one sheet is written.
    let (sheets, _) = unsafe {
        written_in_blocks(count, 1, |at, to| {
            to[0].write(sheet(at));
        })
    };
    sheets
}
