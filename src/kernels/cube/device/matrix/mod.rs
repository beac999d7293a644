//! Attention by the matrix units (tensor cores) of a card, for f16 and bf16: products of
//! 16 x 16 x 16, summed in f32.
//!
//! A cube of four planes holds a panel of 64 rows, a plane 16 of them, and walks over the same tiles of
//! 32 columns. What a matrix unit keeps can't be looked into, so that scores go through shared memory,
//! where two units share a row: unit `n` of a plane has row `n % 16` and every column of the first or the
//! second half. Weights go back through shared memory as f16 or bf16.
//!
//! A matrix unit multiplies hidden cells, too: their weights are 0, and what they are multiplied with
//! must be a number. Where a tile hides anything, values that are no numbers are left out of the
//! product ([`clear_odd`](staging::clear_odd)), and added to the rows that see them one by one.
//!
//! In reading order: `layout` (what stands where), `staging` (rows of the inputs), `sums` (what a matrix
//! unit keeps), `products`; the kernels `forward`, `query_gradient` and `key_value_gradients`.

pub mod forward;
pub mod key_value_gradients;
mod layout;
mod products;
pub mod query_gradient;
mod staging;
mod sums;

pub use layout::{EDGE, PLANE, ROWS, UNITS, bytes};
