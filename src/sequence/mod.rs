//! What is known of the rows of a batch: what they hide, where their tokens stand, what they look at
//! beside themselves.
//!
//! - [`Positions`]: how the tokens of each row are numbered; [`PositionIds`], a piece of them;
//! - [`Batch`]: that, with padding and other masks, and a memory for the cross-attention.

mod batch;
mod positions;

pub use batch::Batch;
pub use positions::{PositionIds, Positions};
