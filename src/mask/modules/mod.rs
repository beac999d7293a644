//! The masks as Burn modules: a config that serde saves and loads, `init`, `forward`.
//!
//! | module | hides | dense shape |
//! |---|---|---|
//! | [`PaddingMask`] | every pad token | `[batch, 1, 1, keys]` |
//! | [`LookAheadMask`] | the future | `[1, 1, queries, keys]` |
//! | [`SequenceMask`] | both, and what lies outside windows, chunks and documents | as wide as need be |
//!
//! `forward` gives the rule, a [`Mask`](super::Mask), to be combined and lowered; `hidden_tensor` and
//! `visible_tensor` give it as a tensor. None of them holds a parameter or a tensor, so a model that
//! contains them trains, saves and moves between devices as if they weren't there.

mod look_ahead;
mod padding;
mod sequence;

pub use look_ahead::{LookAheadMask, LookAheadMaskConfig};
pub use padding::{PaddingMask, PaddingMaskConfig};
pub use sequence::{SequenceInput, SequenceMask, SequenceMaskConfig};
