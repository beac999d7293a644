//! Checks on any Burn model: does information flow from the future, from padding, from another
//! document, from another row of the batch?
//!
//! A causal leak makes a model look good: the loss falls, and only generation shows that nothing
//! was learnt. [`CausalityCheck`] looks for leaks from outside. It takes the forward pass as a
//! closure, so the model may be anyone's.
//!
//! # Check your model in ten lines
//!
//! ```
//! # #![allow(deprecated)]
//! # #[cfg(feature = "ndarray")] fn main() -> burn_decoder::Result<()> {
//! use burn::nn::attention::generate_autoregressive_mask;
//! use burn::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
//! use burn::tensor::Device;
//! use burn_decoder::causality::CausalityCheck;
//!
//! let device = Device::ndarray();
//! let model = TransformerEncoderConfig::new(8, 16, 2, 1).init(&device);
//!
//! // Width 8, sequences of 12 positions; for a model that reads tokens: CausalityCheck::tokens.
//! let check = CausalityCheck::embeddings(8, 12, &device, |x| {
//!     let mask = generate_autoregressive_mask(x.dims()[0], 12, &device);
//!     model.forward(TransformerEncoderInput::new(x).mask_attn(mask))
//! });
//! let report = check.run()?;
//! report.assert_causal();
//! # println!("{report}");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "ndarray"))] fn main() {}
//! ```
//!
//! Without `mask_attn` the same check fails. Printed, the report begins:
//!
//! ```text
//! NOT CAUSAL: information flows where the mask hides it
//! ...
//!   leak: changing key 1 moves query 0 by 2.8e-1 (row 0): mask missing, or without effect
//! ```
//!
//! and ends with who moves whom, beside what was promised (`!` is a leak):
//!
//! ```text
//!   promised       seen (rows: queries, columns: keys)
//!   █···           █!!!
//!   ██··           ██!!
//!   ███·           ███!
//!   ████           ████
//! ```
//!
//! [`Influence::to_svg`] draws the same as a picture; the whole [`Report`] can be saved with serde.
//!
//! In a test of your own crate it is one line, [`assert_causal`], whose message explains a leak to one
//! who has never met any; the guide's page on [the exam](crate::guide::the_exam) shows it.
//!
//! # What it says
//!
//! [`Report::verdict`]: *causal*, a *leak*, or *not proven* with the reason. Nothing is called causal
//! that was not compared: outputs that are not finite or of no width, a random model (one left in
//! training mode with dropout), one that keeps a state from call to call, a tolerance that is not
//! far below what the outputs do, a model in which no position moves another one, weights that move
//! nothing, a loss that is no probability's, are [`Unproven`], and [`Report::assert_causal`] fails on
//! them.
//!
//! # What it takes
//!
//! | model | how |
//! |---|---|
//! | from tokens, from embeddings | [`CausalityCheck::tokens`], [`CausalityCheck::embeddings`] |
//! | a loss | [`CausalityCheck::losses`]: one for each token, not their mean |
//! | a recurrent one, as a whole and step by step | [`with_steps`](CausalityCheck::with_steps): are the two the same? |
//! | one with a state | its closure starts each call from a fresh state |
//! | an encoder and a decoder | the closure holds the source; [`with_memory`](CausalityCheck::with_memory) looks at what the decoder reads |
//! | one that shifts its inputs itself | [`with_own_hidden`](CausalityCheck::with_own_hidden) |
//! | one for any length | [`with_prefixes`](CausalityCheck::with_prefixes): does it know how much follows? |
//! | one with gates or projections of zero | [`with_module`](CausalityCheck::with_module) disturbs its weights |
//!
//! **Dead paths.** A closure hides the weights. Where a gate is closed, no change of the input passes
//! it, and a leak behind it is there all the same: training opens the gate. Given the module, the
//! checker looks once more with noise on every float tensor that Burn knows as a parameter, and tells
//! by gradients which tensors move nothing even then (a `relu` far below zero, a gate of `-1e9`). Those
//! it names, and proves nothing. Without the module only the extreme case shows: that nothing flows.
//!
//! **Below rounding.** Of embeddings the gradients show an influence that no output rounds to; such a
//! leak is called [rounding](Diagnosis::Rounding). From tokens there is no gradient: *causal* then
//! means that these outputs hold not a bit of the future.
//!
//! # What it looks at
//!
//! | way | what is changed | what must not move |
//! |---|---|---|
//! | [`Way::OtherRows`] | whole rows of the batch | the other rows |
//! | [`Way::OneKey`] | one position, randomly and extremely | queries it is hidden from |
//! | [`Way::HiddenRandom`], [`Way::HiddenExtreme`] | all that is hidden from a query, for prefixes of many lengths | that query, and those that see no more |
//! | [`Way::HiddenNan`] (embeddings) | the same, to NaN | reported as [`Poisoned`], not as a leak |
//! | [`Way::Gradient`] (embeddings) | nothing | derivatives by hidden inputs are exactly 0 |
//! | [`Way::Weights`] (if returned) | nothing | weights of hidden keys are exactly 0 |
//! | [`Way::Memory`] (if given) | one position | what the cross-attention reads |
//! | [`Way::Length`] (if asked for) | what follows a prefix is cut off | the prefix |
//! | [`Way::Targets`] (losses) | every id is put in a place | `exp(-loss)` over all ids sum to 1 |
//!
//! All of it once more on each other path that is given: [cached](CausalityCheck::with_cached),
//! [weights returned](CausalityCheck::with_weights), [dropout on](CausalityCheck::with_dropout),
//! [steps](CausalityCheck::with_steps), [weights disturbed](CausalityCheck::with_module),
//! [any other](CausalityCheck::with_path). Their outputs must also be those of the plain path.
//!
//! **The promise** is look-ahead unless [`with_promise`](CausalityCheck::with_promise) gives another
//! [`Mask`](crate::mask::Mask): a window (say the number of layers too), a prefix, documents,
//! padding. A promise that is given is held against the model from both sides: what it hides must
//! not be seen, and what it shows must be ([`Missing`]). The closure gets exactly
//! [`with_batch`](CausalityCheck::with_batch) rows, so a promise that speaks of rows fits the rows
//! that the closure knows. Under a padding promise the padded positions hold random tokens: a
//! model that finds its padding by an id must be told the lengths by the closure.
//!
//! **Exactness.** Where equal runs agree to the last bit (Burn's CPU backends), a single changed bit
//! is a leak. Elsewhere moves up to four times the largest difference between equal runs do not
//! count, as long as that is at most a hundredth of what visible keys do; the report says which. Gradients and weights are asked for exact zeros everywhere.
//!
//! **Cost.** [`CausalityCheck::cost`] tells it beforehand. With the 8 rows of the default, 128 tokens
//! take fewer forward passes than there are tokens; never more than 4 times as many on a path.
//!
//! # An alarm for training
//!
//! [`LossAlarm`] stops a training whose loss is below what any causal model can reach. See
//! [its statistics](alarm).

mod advice;
pub mod alarm;
mod assert;
mod check;
mod compare;
mod diagnosis;
mod disambiguate;
mod disturb;
mod first_pair;
mod gradient;
mod influence;
mod input;
mod leaks;
mod measure;
mod memory;
mod patterns;
mod perturb;
mod prefixes;
mod receptive_field;
mod report;
mod rows;
mod run;
mod schedule;
mod steady;
mod suspect;
mod targets;
mod verdict;
mod weights;

pub use alarm::LossAlarm;
pub use assert::{assert_causal, assert_causal_embeddings};
pub use check::CausalityCheck;
pub use diagnosis::Diagnosis;
pub use influence::Influence;
pub use input::ModelInput;
pub use report::{Disagreement, Leak, Missing, Path, PathReport, Poisoned, Report};
pub use run::Cost;
pub use schedule::Way;
pub use verdict::{Quantity, Unproven, Verdict};
