//! Where a model comes from: a folder of Hugging Face's, or a GGUF file.

use std::path::Path;

use burn::tensor::Device;
use burn_decoder::decoder::{LanguageModel, LanguageModelConfig};
use burn_decoder::import::LoadOptions;
use burn_decoder::import::gguf::Gguf;
use burn_decoder::import::hugging_face::Checkpoint;
use tokenizers::Tokenizer;

use crate::chat::ChatTemplate;
use crate::failure::Failure;
use crate::{gguf_tokenizer, tokenizer};

/// A model whose configuration was read, and none of its weights.
pub enum Source {
    /// A folder.
    Folder(Checkpoint),
    /// A file.
    File(Gguf),
}

/// A model, and what ends its answers.
pub struct Loaded {
    pub model: LanguageModel,
    pub stop_tokens: Vec<u32>,
}

impl Source {
    /// A file if its name ends with `.gguf`, a folder else.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let is_gguf = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        Ok(match is_gguf && !path.is_dir() {
            true => Self::File(Gguf::open(path)?),
            false => Self::Folder(Checkpoint::open(path)?),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &LanguageModelConfig {
        match self {
            Self::Folder(checkpoint) => checkpoint.config(),
            Self::File(file) => file.config(),
        }
    }

    /// The model's tokenizer; `path` is what was opened.
    pub fn tokenizer(&self, path: &Path) -> Result<Tokenizer, Failure> {
        match self {
            Self::Folder(_) => tokenizer::open(path),
            Self::File(file) => gguf_tokenizer::build(&file.tokenizer()?)
                .map_err(|error| format!("{}: {error}", path.display()).into()),
        }
    }

    /// The model's chat template; `path` is what was opened.
    pub fn chat_template(&self, path: &Path) -> Result<ChatTemplate, Failure> {
        match self {
            Self::Folder(_) => ChatTemplate::open(path),
            Self::File(file) => ChatTemplate::of_file(file, path),
        }
    }

    /// Loads the weights.
    pub fn load(self, device: &Device, options: LoadOptions) -> Result<Loaded, Failure> {
        Ok(match self {
            Self::Folder(checkpoint) => {
                let loaded = checkpoint.load(device, options)?;
                Loaded { model: loaded.model, stop_tokens: loaded.eos_tokens }
            }
            Self::File(file) => {
                let loaded = file.load(device, options)?;
                Loaded { model: loaded.model, stop_tokens: loaded.eos_tokens }
            }
        })
    }
}
