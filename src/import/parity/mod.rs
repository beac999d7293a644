//! Do a model's logits agree with those of the original?
//!
//! A [`ParityCase`] is an input and the logits that the original computed from it: your own numbers,
//! or those of a file that the original's program wrote ([`read`]). [`ParityCase::check`] runs the
//! model and says where it strays furthest.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_decoder::import::{LoadOptions, hugging_face, parity};
//!
//! let device = Device::default();
//! let model = hugging_face::load("llama", &device, LoadOptions::new())?.model;
//! for case in parity::read("llama/reference.safetensors", &device)? {
//!     let parity = case.check(&model, 1e-4)?;
//!     assert!(parity.agrees(), "{parity}");
//! }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! Two programs that compute the same in f32 differ by rounding: about 1e-5 for small models, 1e-3
//! for large ones. Quiet mistakes, such as another form of GELU, begin at 1e-4: take the smallest
//! tolerance that a right model meets.

mod case;
mod dump;

pub use case::{Parity, ParityCase};
pub use dump::read;
