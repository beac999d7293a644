//! Masks: which keys a query may see.
//!
//! A [`Mask`] is a rule over positions: small, cheap to clone, combined with `&`, `|` and `!`. A
//! [`Grid`] says how many queries and keys there are and where they stand. A rule on a grid is
//! lowered, once for a batch, to a [`LoweredMask`], which is what attention takes.
//!
//! | leaf | query `q` sees key `k` if |
//! |---|---|
//! | [`Mask::look_ahead`] | `k <= q` |
//! | [`Mask::window_keys`]`(w)` | `q - w < k <= q` |
//! | [`Mask::look_back`]`(w)` | `q - w <= k <= q` |
//! | [`Mask::look_around`]`(a, b)` | `q - a <= k <= q + b` |
//! | [`Mask::lengths`] | `k < length` of its row: right padding |
//! | [`Mask::pad_counts`] | `k >= count` of its row: left padding |
//! | [`Mask::padding`] | the token of `k` isn't the pad id |
//! | [`Mask::prefix`]`(n)`, [`Mask::sinks`]`(n)` | `k < n` |
//! | [`Mask::chunks`]`(c)` | `q / c = k / c`, rounded down |
//! | [`Mask::document_lengths`], [`Mask::document_ids`] | both lie in one document |
//! | [`Mask::from_hidden`], [`Mask::from_hidden_keys`], and the same from `visible` | its flag says so |
//!
//! `q` and `k` are positions, so a rule means the same in a full sequence, in a chunk of it, and
//! behind a cache. Only flags of tensors go by index. Position 0 is the first place of a row; for
//! rows that begin with padding, [`Mask::left_padded`] lets it be the first token.
//!
//! A rule answers for itself, without a model: is it [causal](Mask::is_causal), which queries see
//! [nothing](Mask::dead_rows), [how much](Mask::density) is visible, do two rules [mean the
//! same](Mask::equals), and [why](Mask::why_hidden) is this cell hidden? [`Mask::draw`] shows it.
//!
//! Dense masks are true where **hidden**, as Burn's are, and have `hidden` or `visible` in the name
//! of whatever takes or gives one.
//!
//! In reading order: `grid`, `rule`, `leaf` and `documents` (what leaves mean), `leaves` (their
//! constructors), `left_padded`, `expression`; `lowered`, `lower`, `parts` and `array`; `dense`; `questions`, `why`;
//! `past` and `rows`, for caches;
//! `draw`, `picture`, `svg`; `modules`.

mod array;
mod dense;
mod documents;
mod draw;
mod expression;
mod grid;
mod leaf;
mod leaves;
mod left_padded;
mod lower;
mod lowered;
mod modules;
mod parts;
mod past;
mod picture;
mod questions;
mod rows;
mod rule;
mod svg;
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
