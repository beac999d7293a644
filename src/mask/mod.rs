//! Masks: which keys a query may see.
//!
//! A [`Mask`] is a rule over positions: small, cheap to clone, combined with `&`, `|` and `!`. A
//! [`Grid`] says how many queries and keys there are and where they stand. A rule on a grid is
//! lowered, once for a batch, to a [`LoweredMask`], which is what attention takes.
//!
//! The [leaves] in a table, and how to add one: there.
//!
//! A rule answers for itself, without a model: is it [causal](Mask::is_causal), which queries see
//! [nothing](Mask::dead_rows), [how much](Mask::density) is visible, do two rules [mean the
//! same](Mask::equals), and [why](Mask::why_hidden) is this cell hidden? [`Mask::draw`] shows it.
//!
//! Dense masks are true where **hidden**, as Burn's are, and have `hidden` or `visible` in the name
//! of whatever takes or gives one.
//!
//! In reading order: `grid`, `rule` and its `tree`, the `leaves`, `left_padded`, `expression`;
//! `lowered` (what a kernel gets, with its `memo`), `lower`, `parts`, `row_spans` and `array` (how it comes about),
//! `dense`; `questions`, `why`; `past` and `rows`, for caches; `draw`; `modules`.

mod array;
mod dense;
mod draw;
mod expression;
mod grid;
pub mod leaves;
mod left_padded;
mod lower;
mod lowered;
mod memo;
mod modules;
mod parts;
mod past;
mod questions;
mod row_spans;
mod rows;
mod rule;
mod tree;
mod why;

pub use crate::kernels::{HiddenCells, RowSpans, Span};
pub use draw::Drawing;
pub use grid::Grid;
pub use lowered::LoweredMask;
pub use modules::{
    LookAheadMask, LookAheadMaskConfig, PaddingMask, PaddingMaskConfig, SequenceInput,
    SequenceMask, SequenceMaskConfig,
};
pub(crate) use past::Past;
pub use questions::DeadRow;
pub use rule::Mask;
pub use why::{Cause, HidingPart, Reason};
