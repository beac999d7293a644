//! Masks: which keys a query may see.

mod dense;
mod documents;
mod draw;
mod expression;
mod grid;
mod leaf;
mod leaves;
mod lower;
mod lowered;
mod modules;
mod parts;
mod picture;
mod questions;
mod rule;
mod svg;
mod why;

pub use draw::Drawing;
pub use grid::Grid;
pub use lowered::{HiddenCells, LoweredMask, Span};
pub use modules::{
    LookAheadMask, LookAheadMaskConfig, PaddingMask, PaddingMaskConfig, SequenceInput,
    SequenceMask, SequenceMaskConfig,
};
pub use questions::DeadRow;
pub use rule::Mask;
pub use why::{Cause, HidingPart, Reason};
