//! Masks: which keys a query may see.

mod grid;
mod lowered;

pub use grid::Grid;
pub use lowered::{HiddenCells, LoweredMask, Span};
