//! Weights as they are stored: f32 row by row, half precision, and numbers in blocks that share a scale.
//!
//! A matrix in a [`Format`] stands in a projection or an embedding as [`Blocks`]: a
//! [reparameterization](burn::module::Reparameterization) of its `weight`. The modules stay Burn's own
//! [`Linear`](burn::nn::Linear) and [`Embedding`](burn::nn::Embedding), records hold the bytes, and
//! whoever asks for the parameter's value gets the numbers. The layers of this crate do not ask: on the
//! CPU they multiply with the blocks, of which a product for one token reads each byte once.
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::Device;
//! use burn_decoder::weights::{Blocks, Format, blocks};
//!
//! let device = Device::flex();
//! let layer = LinearConfig::new(64, 3).init(&device);
//! let bytes = vec![0; 3 * 68]; // 3 rows of 2 blocks of 34 bytes, one row an output
//! let layer: Linear = Blocks::projection(Format::Q8_0, [3, 64], bytes, &device)?.stand_in(layer);
//! assert_eq!(layer.weight.val().dims(), [64, 3]);
//! assert_eq!(blocks(&layer.weight).unwrap().format(), Format::Q8_0);
//! # }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! [`with_blocks`] does so for all matrices of a model: that is how a record is read whose weights lie in
//! blocks, into a model with some of the same formats.
//!
//! **How they are multiplied.** A few rows, as of the tokens of a decoding step, with each number of a
//! block in f32, and of more rows a panel of the matrix becomes f32 and is multiplied as f32 is. On x86
//! with AVX-512 and VNNI both in whole numbers, with activations to 21 bits of the largest of each 32 (20
//! where many rows meet Q8_0). Either way a result is off by some 1e-7 of the sum of the sizes of its
//! terms. Activations are never rounded to 8 bits.
//!
//! **In sight.** Burn's [`num_params`](burn::module::Module::num_params) counts two numbers for a matrix in
//! blocks, and its `Linear` shows itself as 1 by 1; [`num_numbers`] counts all of them.
//!
//! **Training.** Blocks have no gradient: a pass on a device with autodiff refuses a weight that still
//! asks for one, by its format. [`Module::apply_lora`](burn::module::Module::apply_lora) freezes it and
//! trains two small matrices beside it; the bytes stay as they are. Without an adapter,
//! [`Module::freeze`](burn::module::Module::freeze) or
//! [`no_grad`](burn::module::Module::no_grad) says that the weight is not trained.
//!
//! **Other devices.** Where the crate has no kernel for them, blocks become f32 for each product; an
//! import makes f32 of them at once there.

mod blocks;
mod count;
mod together;
mod use_blocks;

pub use crate::kernels::Format;
pub use blocks::{Blocks, StoredBytes, blocks, with_blocks};
pub use count::num_numbers;
pub(crate) use together::{feed_forward_together, project_together, read_next};
#[cfg(feature = "import")]
pub(crate) use use_blocks::keeps;
pub(crate) use use_blocks::{embed, linear, shape, unembed};
