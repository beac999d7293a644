//! Metrics for burn-train's `Learner`: a training that sees the future is found out and stopped.
//!
//! A metric of burn-train is handed what a model's step returns, so each of these asks the output for
//! one thing, by [`Adaptor`](burn::train::metric::Adaptor), and is then one line of a
//! `SupervisedTraining`:
//!
//! | metric | asks for | tells | stops |
//! |---|---|---|---|
//! | [`NoiseAlarmMetric`] | [`ForwardPass`] | the loss on fresh random tokens, in nats | when it is lower than any causal model can reach |
//! | [`LossAlarmMetric`] | [`UnpredictableLoss`] | the loss of your own unpredictable tokens | the same |
//! | [`CausalityMetric`] | [`ForwardPass`] | how many positions see what they must not | if asked to |
//! | [`BitsPerByteMetric`] | [`TextLoss`] | bits for each byte of text, whatever the tokenizer | |
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Int, Tensor};
//! use burn::train::metric::{Adaptor, ItemLazy};
//! use burn::train::{InferenceStep, SupervisedTraining};
//! use burn_decoder::decoder::{LanguageModel, Request};
//! use burn_decoder::training::{CausalityMetric, ForwardPass, NoiseAlarmMetric};
//! # use burn::train::{TrainOutput, TrainStep};
//!
//! // What a validation step returns: the model itself, which costs no copy of its parameters.
//! pub struct Output {
//!     pass: ForwardPass,
//! }
//!
//! impl ItemLazy for Output {
//!     fn sync(self) -> Result<Self, burn::tensor::ExecutionError> {
//!         Ok(self)
//!     }
//! }
//!
//! impl Adaptor<ForwardPass> for Output {
//!     fn adapt(&self) -> ForwardPass {
//!         self.pass.clone()
//!     }
//! }
//!
//! # #[derive(Module, Debug)]
//! # struct NextToken { model: LanguageModel }
//! # impl TrainStep for NextToken {
//! #     type Input = [Tensor<2, Int>; 2];
//! #     type Output = ();
//! #     fn step(&self, [tokens, targets]: Self::Input) -> TrainOutput<()> {
//! #         let loss = burn_decoder::loss::CrossEntropyConfig::new().init().expect("settings that fit");
//! #         let batch = burn_decoder::sequence::Batch::new();
//! #         let loss = self.model.loss(tokens, batch, targets, &loss).expect("tokens of the vocabulary");
//! #         TrainOutput::new(self, loss.backward(), ())
//! #     }
//! # }
//! impl InferenceStep for NextToken {
//!     // ...
//! #   type Input = ();
//!     type Output = Output;
//!
//!     fn step(&self, _: Self::Input) -> Output {
//!         let model = self.model.clone();
//!         let device = model.embedding.weight.device();
//!         let pass = move |tokens: Tensor<2, Int>| {
//!             model.forward(tokens, Request::new()).expect("tokens of the vocabulary").logits
//!         };
//!         Output { pass: ForwardPass::new(&device, pass) }
//!     }
//! }
//!
//! fn watched(training: SupervisedTraining<NextToken>) -> burn_decoder::Result<SupervisedTraining<NextToken>> {
//!     let interrupter = training.interrupter();
//!     Ok(training
//!         .metric_valid_numeric(NoiseAlarmMetric::new(0..100, 64, &interrupter)?)
//!         .metric_valid_numeric(CausalityMetric::new(100, 16).stopping(&interrupter)))
//! }
//! ```
//!
//! Both are for validation: they run a model a few times at the first batch of each.
//!
//! burn-train forgets why an `Interrupter` was stopped where its dashboard is on, so each metric that
//! stops has a [`Found`] that keeps it.

mod bits_per_byte;
mod causality;
mod forward_pass;
mod found;
mod loss_alarm;
mod noise_alarm;
#[cfg(test)]
mod tests;

pub use bits_per_byte::{BitsPerByteMetric, TextLoss};
pub use causality::CausalityMetric;
pub use forward_pass::ForwardPass;
pub use found::Found;
pub use loss_alarm::{LossAlarmMetric, UnpredictableLoss};
pub use noise_alarm::NoiseAlarmMetric;
