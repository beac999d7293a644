//! Checkpoints of Hugging Face's transformers: a folder with `config.json` and `model.safetensors`,
//! or several shards with `model.safetensors.index.json`.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_decoder::generation::{Generation, GenerationConfig};
//! use burn_decoder::import::{LoadOptions, hugging_face};
//!
//! let loaded = hugging_face::load("SmolLM2-135M", &Device::default(), LoadOptions::new())?;
//! let config = GenerationConfig::new(20).with_stop_tokens(loaded.eos_tokens.clone());
//! for token in Generation::new(&loaded.model, &[vec![504, 2]], &config)? {
//!     println!("{}", token?.token);
//! }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! | `model_type` | models | layer |
//! |---|---|---|
//! | `gpt2` | GPT-2 | pre-norm, learned positions, tied head |
//! | `llama` | Llama, SmolLM, TinyLlama | RMSNorm, rotary positions, SwiGLU, grouped heads |
//! | `mistral` | Mistral 7B | Llama's with a window in every layer |
//! | `qwen2` | Qwen2, Qwen2.5 | Llama's with biases on query, key and value, windows from a layer on |
//! | `qwen3` | Qwen3 | Llama's with a norm on each head's queries and keys |
//! | `gemma2` | Gemma 2 | sandwich norms, softcaps, GeGLU, alternating windows |
//! | `gemma3_text` | Gemma 3 1B | sandwich norms, QK-norm, two rotary bases |
//! | `phi` | Phi 1, 1.5, 2 | parallel with one norm, partly rotary |
//! | `phi3` | Phi 3, Phi 4 | Llama's, query, key and value in one tensor; no longrope |
//! | `gpt_neox` | GPT-NeoX, Pythia | parallel with two norms, partly rotary |
//! | `olmo2` | OLMo 2 | norms behind the parts, QK-norm across heads |
//! | `bart` | BART's decoder | post-norm, cross-attention, learned positions |
//!
//! A configuration is read as transformers reads it: a field that is not there has the family's
//! default, a `rope_scaling` takes the place of `rope_parameters`, a token id of -1 is none. An option
//! that changes what is computed and that this crate does not have is an error that names it; so is
//! anything said of rotary positions that nothing reads, and a tensor that no parameter uses, except
//! buffers that are computed here. Options that change no number are accepted (`pretraining_tp`,
//! which splits a product).
//!
//! In two places the numbers are not transformers' on purpose. It rounds Gemma's embedding scale √d to
//! the weights' type, which shows in half precision; here the scale is not rounded. And it numbers
//! left-padded rows of BART from the padding on;
//! [`Generation`](crate::generation::Generation) numbers every row from its first token, so that each
//! is what it would be alone.

mod activation;
mod bart;
mod checkpoint;
mod common;
mod description;
mod family;
mod fields;
mod folder;
mod gemma;
mod gpt2;
mod gpt_neox;
mod llama;
mod olmo2;
mod phi;
mod rotary;
mod tokens;
mod windows;

pub use checkpoint::{Checkpoint, Loaded, load};
pub(super) use description::Description;
pub(super) use family::read as read_family;
pub(super) use fields::Fields;
pub(super) use phi::packed_attention;
