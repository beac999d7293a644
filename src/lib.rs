//! Attention masks, attention and Transformer decoder layers for [Burn](https://burn.dev): exactly
//! causal on every path, on every backend, switched at run time.
//!
//! ```text
//! output = softmax(Q Kᵀ · scale, over the visible keys) V
//! ```
//!
//! # Ten lines
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use burn_decoder::attention::MultiHeadAttentionConfig;
//! use burn_decoder::decoder::*;
//!
//! # #[cfg(feature = "ndarray")] {
//! # #[allow(deprecated)]
//! let device = Device::ndarray(); // or Device::flex(), Device::wgpu(..): nothing else changes
//! let layer = DecoderLayerConfig::new(
//!     MultiHeadAttentionConfig::new(64, 4), // d_model, heads
//!     FeedForwardConfig::new(64, 256),      // d_model, d_ff
//! );
//! let model = LanguageModelConfig::new(100, DecoderConfig::new(layer, 2)).init(&device)?;
//! let tokens = Tensor::<2, Int>::from_ints([[5, 3, 8, 1], [7, 2, 0, 0]], &device);
//! let padded = Batch::new().with_lengths([4, 2]); // the second row has 2 tokens
//! assert_eq!(model.forward(tokens, padded)?.logits.dims(), [2, 4, 100]);
//! # }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! # Masks: what true means
//!
//! A query *sees* a key or the key is *hidden* from it. A **dense mask says true where a key is
//! hidden**, which is Burn's convention; PyTorch's `scaled_dot_product_attention` has it the other
//! way round. Whatever takes or returns a dense mask has `hidden` or `visible` in its name, so that
//! no polarity is ever guessed.
//!
//! Most masks are not dense at all. A [`Mask`](mask::Mask) is a rule over positions, combined with
//! `&` (visible where both say so), `|` and `!`; a [`Grid`](mask::Grid) says where queries and keys
//! stand; and [`lower`](mask::Mask::lower) turns the two into what a kernel reads, in memory
//! proportional to the queries where the rule allows it.
//!
//! ```
//! use burn_decoder::mask::{Grid, Mask};
//!
//! let mask = Mask::look_ahead() & Mask::lengths([5, 3]);
//! let lowered = mask.lower(&Grid::square(2, 5))?;
//! assert!(!lowered.is_visible(0, 0, 2, 3)); // batch, head, query, key: the future
//! assert!(!lowered.is_visible(1, 0, 4, 3)); // padding
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! A query from which every key is hidden is a *dead row*: its output, its weights and every
//! gradient through it are exactly 0, on every path and backend.
//!
//! # Reading order
//!
//! - [`mask`]: which keys a query may see. Rules, combined, asked, drawn.
//! - [`sequence`]: what else is known of the rows of a batch: positions, padding, a memory.
//! - [`attention`]: the function above under a mask, its kernels, multi-head attention.
//! - [`decoder`]: layers, stacks, and models built from them.
//! - [`loss`]: a model's loss and its gradients, without its logits.
//! - [`cache`] and [`generation`]: going on from a past that is kept, token by token.
//! - [`causality`]: a leak checker for any Burn model, and an alarm for training.
//! - [`verify`](mod@verify): does your device compute attention right?
//! - [`config`]: configurations from JSON files, old ones too.
#![cfg_attr(feature = "optim", doc = "- [`optim`]: Burn's AdamW in one pass over memory on a CPU.")]
#![cfg_attr(
    feature = "train",
    doc = "- [`training`]: metrics for burn-train that find out a training that sees the future."
)]
#![cfg_attr(
    feature = "import",
    doc = "- [`import`]: weights from Hugging Face, PyTorch and burn-nn, and back."
)]
//!
//! The [`guide`] leads from a paper's table, or from a published checkpoint, to a running model.
//!
//! # Features
//!
//! - `ndarray` (default): Burn's ndarray CPU backend.
//! - `flex`: Burn's flex CPU backend, which succeeds ndarray.
//! - `wgpu`: Burn's wgpu GPU backend; `vulkan`, `metal` and `webgpu` for the compilers of its
//!   platforms, `cuda` for Burn's CUDA backend. Attention runs there by this crate's own kernels.
//! - `import`: weights from checkpoints of other programs, and back.
//! - `optim`: Burn's AdamW in one pass over memory on a CPU.
//! - `train`: metrics for burn-train.
//!
//! Any other backend that you turn on in your own `burn` dependency works too, through Burn's own
//! operations.
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod attention;
pub mod cache;
pub mod causality;
pub mod config;
pub mod decoder;
mod error;
mod file;
pub mod generation;
pub mod guide;
mod hash;
#[cfg(feature = "import")]
pub mod import;
mod kernels;
pub mod loss;
pub mod mask;
pub mod norm;
#[cfg(feature = "optim")]
pub mod optim;
mod picture;
pub mod sequence;
#[cfg(feature = "train")]
pub mod training;
pub mod verify;
pub mod weights;
mod weights_mismatch;

pub use error::{CacheMisuse, Error, Result};
#[doc(inline)]
pub use verify::verify;
pub use weights_mismatch::{WeightsMismatch, WrongShape};
