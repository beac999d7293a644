//! GGUF files: a model, its settings and its tokenizer in one file, as llama.cpp's tools write them.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use burn_decoder::generation::{Generation, GenerationConfig};
//! use burn_decoder::import::{LoadOptions, gguf};
//!
//! let loaded = gguf::load("SmolLM2-135M.gguf", &Device::default(), LoadOptions::new())?;
//! let config = GenerationConfig::new(20).with_stop_tokens(loaded.eos_tokens.clone());
//! for token in Generation::new(&loaded.model, &[vec![504, 2]], &config)? {
//!     println!("{}", token?.token);
//! }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! | `general.architecture` | models |
//! |---|---|
//! | `llama` | Llama 1 to 3, SmolLM, TinyLlama, Mistral without windows |
//! | `qwen2`, `qwen3` | Qwen2, Qwen2.5, Qwen3 |
//! | `gemma2`, `gemma3` | Gemma 2, Gemma 3's text models |
//! | `olmo2` | OLMo 2 |
//! | `phi2`, `phi3` | Phi 1, 1.5, 2; Phi 3 and 4 without longrope |
//!
//! Versions 2 and 3 of the format are read, little-endian. What a file says is put in the words of
//! [`hugging_face`](super::hugging_face), so that one place knows each family. A key of the model's
//! that this crate does not know the meaning of is an error that names it, and so is a tensor that no
//! parameter uses.
//!
//! - Llama's query and key are stored with the rows of each head pair by pair; they are put into
//!   halves, as everywhere else here.
//! - A norm whose scale is `1 + γ` is stored as that sum, and the model's norms are made so.
//! - The factors that Llama 3 divides its frequencies by (`rope_freqs`) become the settings of its
//!   formula, [`RotaryScaling::Llama3`](crate::attention::RotaryScaling::Llama3).
//! - A file without `output.weight` has a tied head.
//!
//! The file is mapped, not read: what nobody asks for is never fetched from the disk. A file that is
//! cut off, damaged or made to do harm is an error that says what was expected at which byte; reading
//! its head takes time and memory in proportion to its length.

mod architecture;
mod architectures;
mod cursor;
mod file;
mod header;
mod keys;
mod names;
mod rotary;
mod source;
mod special;
mod tensor_type;
mod tokenizer;
mod value;
mod wrong;

pub use file::{Gguf, LoadedFile, load};
pub use tokenizer::{Token, TokenKind, Tokenizer, TokenizerKind};
