//! Masks: tables written by hand, random expressions against a predicate of the tests' own, and
//! the dense tensors of every backend.

mod catalogue;
mod dense;
mod draw;
mod errors;
mod modules;
mod random;
mod tables;
mod why;

use burn::tensor::Device;
use burn_decoder::mask::{Grid, LoweredMask, Mask};

pub use random::random_masks;

/// A mask on a grid as text, first row of the batch, first head: `x` visible, `.` hidden.
fn table(mask: &Mask, grid: &Grid) -> Vec<String> {
    table_of_row(&mask.lower(grid).unwrap(), 0)
}

fn table_of_row(mask: &LoweredMask, batch: usize) -> Vec<String> {
    let grid = mask.grid();
    let cell = |q, k| if mask.is_visible(batch, 0, q, k) { 'x' } else { '.' };
    (0..grid.queries()).map(|q| (0..grid.keys()).map(|k| cell(q, k)).collect()).collect()
}

/// Where the tensors live that masks are made from: a CPU, if one is compiled in.
fn host() -> Device {
    let cpus: &[fn() -> Device] = &[
        #[cfg(feature = "flex")]
        Device::flex,
        #[cfg(feature = "ndarray")]
        Device::ndarray,
    ];
    cpus.first().map_or_else(Device::default, |cpu| cpu())
}
