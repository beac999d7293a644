//! Generation: a model's own continuation of prompts, token by token.
//!
//! A [`Generation`] is an iterator over the tokens as they come. Prompts of different lengths go
//! through the model together, padded on the left; every row is what it would be alone. (Of a
//! sampled row the random numbers are a part: they are those of the stream that the row's number
//! names, so a prompt draws the same tokens alone only where it has the same number.) A row ends
//! with a stop token of its own or at the greatest length, and leaves the batch then.
//!
//! - [`SamplingConfig`]: how the next token is chosen;
//! - [`hooks`]: what changes the scores before it is, yours or ready-made: banned and forced tokens,
//!   a least length, no repeated n-grams, stop strings;
//! - [`Generation`]: batched generation;
//! - [`beam_search`]: the likeliest continuations as a whole;
//! - [`Threads`]: what the CPU's threads do meanwhile.
//!
//! To drive a model and its cache yourself, see the guide,
//! [generate by hand](crate::guide::generate_by_hand).

mod beam;
mod driver;
mod generated;
pub mod hooks;
mod logits;
mod sampling;
mod stream;

pub use crate::kernels::Threads;
pub use beam::{BeamConfig, EarlyStopping, Hypothesis, beam_search, beam_search_with_hook};
pub use generated::{Finish, Generated, GeneratedToken, UnfinishedGeneration};
pub use hooks::RowTokens;
pub use sampling::SamplingConfig;
pub use stream::{Generation, GenerationConfig};
