//! A GGUF file: opened, loaded.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;

use super::architecture::{self, Described};
use super::header::{Header, MAGIC};
use super::keys::Keys;
use super::names::ROPE_FACTORS;
use super::source;
use super::special::SpecialTokens;
use super::tokenizer::Tokenizer;
use crate::decoder::{LanguageModel, LanguageModelConfig};
use crate::import::files::{not_this_file, show};
use crate::import::{LoadOptions, load};
use crate::kernels::MappedFile;
use crate::{Error, Result};

/// A file whose metadata was read, and none of its tensors.
#[derive(Clone)]
pub struct Gguf {
    path: PathBuf,
    /// The path, for messages.
    shown: String,
    /// Bytes of the whole file.
    length: usize,
    /// Those of its head, of which texts and arrays are parts.
    head: Vec<u8>,
    header: Header,
    described: Described,
    special: SpecialTokens,
}

/// A model from a file.
#[derive(Debug)]
pub struct LoadedFile {
    /// The model, with the file's parameters.
    pub model: LanguageModel,
    /// Where it came from: its configuration, its tokenizer.
    pub file: Gguf,
    /// The token that a text begins with, if the file says one.
    pub bos_token: Option<u32>,
    /// The tokens that a text or an answer ends with: what generation stops at.
    pub eos_tokens: Vec<u32>,
    /// The token that padding is filled with, if the file says one.
    pub pad_token: Option<u32>,
}

/// Loads the model of `file` to `device`.
///
/// # Errors
///
/// [`Error::File`] for a file that can't be read, that is cut off or damaged;
/// [`Error::ConfigFile`] for an architecture, or a key of its metadata, that this crate does not have;
/// [`Error::Weights`] if the tensors are not those of the model, or in a type that this crate does not
/// have; [`Error::Config`] if the metadata makes no sense, or for a
/// [`Precision`](crate::import::Precision) that the device does not have.
pub fn load(file: impl AsRef<Path>, device: &Device, options: LoadOptions) -> Result<LoadedFile> {
    Gguf::open(file)?.load(device, options)
}

impl Gguf {
    /// Reads the metadata of `file`.
    ///
    /// # Errors
    ///
    /// Those of [`load`] but for the tensors'.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let path = file.as_ref();
        let shown = show(path);
        let bytes = map(path)?;
        let header = Header::read(&bytes).map_err(|wrong| Error::File {
            path: shown.clone(),
            expected: wrong.expected,
            got: wrong.got,
        })?;
        let keys = Keys::new(&shown, &header, &bytes);
        let factors = header.tensors.get(ROPE_FACTORS).and_then(|info| source::f32s(&bytes, info));
        let described = architecture::read(&keys, &header.tensors, factors)?;
        let special = SpecialTokens::read(&keys)?;
        let (length, head) = (bytes.len(), bytes[..header.length].to_vec());
        Ok(Self { path: path.into(), shown, length, head, header, described, special })
    }

    /// The model's configuration, in this crate's terms.
    pub fn config(&self) -> &LanguageModelConfig {
        &self.described.config
    }

    /// The tokenizer of the file, as plain values.
    ///
    /// # Errors
    ///
    /// [`Error::ConfigFile`] if there is none, for a kind that this crate does not know, and for values
    /// that contradict each other.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::read(&self.keys())
    }

    /// The text of a key of the metadata: `general.name`, `tokenizer.chat_template`. None if there is
    /// no such key, or if its value is no text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.header.get(&self.head, key) {
            Some(super::value::Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The template that makes a text of a conversation, in Jinja, if the file has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.text("tokenizer.chat_template")
    }

    /// Loads the tensors to `device`. The file is mapped meanwhile: another program must not cut it off.
    ///
    /// # Errors
    ///
    /// Those of [`load`] that concern the tensors.
    pub fn load(self, device: &Device, options: LoadOptions) -> Result<LoadedFile> {
        let Described { config, table, pairwise } = &self.described;
        let model = config.init(device)?;
        let attention = &config.decoder.layer.self_attention;
        let head_dim = attention.head_dim.unwrap_or(attention.d_model / attention.heads);
        let in_pairs = |name: &str| {
            let is_turned = ["attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias"]
                .iter()
                .any(|end| name.ends_with(end));
            (*pairwise && is_turned).then_some(head_dim)
        };
        let bytes = map(&self.path)?;
        if bytes.len() != self.length {
            return Err(Error::File {
                path: self.shown,
                expected: format!("{} bytes, as when it was opened", self.length),
                got: bytes.len().to_string(),
            });
        }
        let source = source::tensors(&self.shown, &Arc::new(bytes), &self.header.tensors, in_pairs);
        let (model, _) = load::load(model, &source, table.clone(), options)?;
        let SpecialTokens { bos, eos, pad } = self.special.clone();
        Ok(LoadedFile { model, bos_token: bos, eos_tokens: eos, pad_token: pad, file: self })
    }

    fn keys(&self) -> Keys<'_> {
        Keys::new(&self.shown, &self.header, &self.head)
    }
}

/// The bytes of a file that begins as one of the format does.
fn map(path: &Path) -> Result<MappedFile> {
    let unread = |got: String| not_this_file(path, "a GGUF file", got);
    let file = File::open(path).map_err(|error| unread(error.to_string()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unread("a folder".into()));
    }
    let bytes = MappedFile::open(&file).map_err(|error| unread(error.to_string()))?;
    if !bytes.starts_with(MAGIC) {
        let beginning: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
        return Err(unread(format!("{} bytes that begin with {beginning:?}", bytes.len())));
    }
    Ok(bytes)
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("bytes", &self.length)
            .field("tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}
