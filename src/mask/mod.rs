//! Masks: which keys a query may see.

mod dense;
mod documents;
mod expression;
mod grid;
mod leaf;
mod leaves;
mod lower;
mod lowered;
mod parts;
mod questions;
mod rule;
mod why;

pub use grid::Grid;
pub use lowered::{HiddenCells, LoweredMask, Span};
pub use questions::DeadRow;
pub use rule::Mask;
pub use why::{Cause, HidingPart, Reason};
