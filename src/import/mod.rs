//! Weights from elsewhere: Hugging Face's checkpoints, GGUF files, PyTorch's state dicts, burn-nn's
//! decoder; and back.
//!
//! - [`hugging_face`]: a folder with `config.json` and safetensors becomes a
//!   [`LanguageModel`](crate::decoder::LanguageModel), and one becomes a folder again;
//! - [`gguf`]: a GGUF file becomes one, with its tokenizer as plain values;
//! - [`pytorch`]: state dicts of `nn.MultiheadAttention`, `nn.TransformerDecoderLayer` and
//!   `nn.TransformerDecoder`;
//! - [`mapping`]: any other state dict, by a table of names;
//! - [`burn_nn`]: Burn's own `TransformerDecoder`, as a module or as a record;
//! - [`parity`]: do a model's logits agree with those of the original?
//!
//! A load compares names, shapes and types before it reads any tensor, and an error lists all that
//! does not fit. It then holds the parameters that are done and one tensor of the file, no more.
//! What was loaded in the precision of the file is written back bit for bit.

mod arrange;
pub mod burn_nn;
mod files;
mod form;
pub mod gguf;
mod hints;
pub mod hugging_face;
mod keep;
mod load;
pub mod mapping;
mod open;
mod options;
mod parameters;
pub mod parity;
pub mod pytorch;
mod safetensors_file;
mod save;
mod source;
mod stored;
mod table;

pub use crate::weights_mismatch::{WeightsMismatch, WrongShape};
pub use options::{LoadOptions, Precision, Progress};
