//! Burn's AdamW in one pass over memory on a CPU.
//!
//! Burn's optimizer is made of tensor operations, some fifteen a parameter, each of which reads and
//! writes all of it. [`AdamW`] is the same optimizer, to the bit: on the CPU backends of this crate in
//! f32 it takes one pass that writes parameter and moments where they lie; elsewhere it is Burn's. It
//! stands behind Burn's `Optimizer`, so everything of Burn's goes with it: parameter groups, gradient
//! clipping, learning-rate schedules, records. A record of one loads into the other.
//!
//! ```
//! # #[cfg(feature = "ndarray")] {
//! use burn::module::Module;
//! use burn::optim::GradientsParams;
//! use burn::tensor::{Device, Tensor};
//! use burn_decoder::optim::AdamWConfig;
//!
//! # #[allow(deprecated)]
//! let device = Device::ndarray().autodiff();
//! let model = burn::nn::LinearConfig::new(3, 2).init(&device);
//! // No decay on norms, biases and embeddings.
//! let mut optimizer = AdamWConfig::new().with_weight_decay(0.1).init_for(&model);
//! let loss = model.forward(Tensor::<2>::ones([1, 3], &device)).sum();
//! let gradients = GradientsParams::from_grads(loss.backward(), &model);
//! let model = optimizer.step(1e-3, model, gradients);
//! # }
//! ```
//!
//! [`clip_by_global_norm`] limits the gradients of a step all together.

mod adamw;
mod clipping;

pub use adamw::{AdamW, AdamWConfig, without_decay};
pub use clipping::clip_by_global_norm;
