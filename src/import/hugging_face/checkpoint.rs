//! A checkpoint's folder: opened, loaded, written back.

use std::path::{Path, PathBuf};

use super::description::Description;
use super::family;
use super::fields::Fields;
use super::folder;
use super::tokens::Tokens;
use crate::decoder::{LanguageModel, LanguageModelConfig};
use crate::file::Links;
use crate::import::LoadOptions;
use crate::import::files::{is_there, show, write_text};
use crate::import::load;
use crate::import::save;
use crate::import::table::Table;
use crate::{Error, Result};
use burn::tensor::Device;

/// A checkpoint's folder whose configuration was read, and none of its weights.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: LanguageModelConfig,
    table: Table,
    tokens: Tokens,
    /// The text of `config.json`.
    config_text: String,
    /// The text of `generation_config.json`, if there is one.
    generation_text: Option<String>,
}

/// A model from a checkpoint.
#[derive(Debug)]
pub struct Loaded {
    /// The model, with the checkpoint's parameters.
    pub model: LanguageModel,
    /// Where it came from: its configuration, and the way back.
    pub checkpoint: Checkpoint,
    /// The token that a text begins with, if the checkpoint says one.
    pub bos_token: Option<u32>,
    /// The token that a decoder with a memory begins with, if the checkpoint says one.
    pub decoder_start_token: Option<u32>,
    /// The tokens that a text ends with: what generation stops at.
    pub eos_tokens: Vec<u32>,
    /// The token that padding is filled with, if the checkpoint says one.
    pub pad_token: Option<u32>,
}

/// Loads the model of `folder` to `device`.
///
/// # Errors
///
/// [`Error::File`] for a file that is missing, broken or no JSON; [`Error::ConfigFile`] for an
/// architecture or an option that this crate does not have; [`Error::Weights`] if the tensors are
/// not those of the configuration; [`Error::Config`] if the configuration makes no sense, or for a
/// [`Precision`](crate::import::Precision) that the device does not have.
pub fn load(folder: impl AsRef<Path>, device: &Device, options: LoadOptions) -> Result<Loaded> {
    Checkpoint::open(folder)?.load(device, options)
}

impl Checkpoint {
    /// Reads the configuration of `folder`.
    ///
    /// # Errors
    ///
    /// Those of [`load`] that concern `config.json` and `generation_config.json`: all of them, so
    /// that nothing is found wrong with these once weights were read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(folder::CONFIG);
        let (config_text, config_values) = folder::json(&path)?;
        let Description { config, table } =
            family::read(&Fields::new(&show(&path), &config_values))?;
        let generation_path = folder.join(folder::GENERATION);
        let generation =
            is_there(&generation_path).then(|| folder::json(&generation_path)).transpose()?;
        let (names, config_name) = (show(&generation_path), show(&path));
        let mut files: Vec<_> =
            generation.iter().map(|(_, values)| Fields::new(&names, values)).collect();
        files.push(Fields::new(&config_name, &config_values));
        let tokens = Tokens::read(&files)?;
        let generation_text = generation.map(|(text, _)| text);
        let folder = folder.to_path_buf();
        Ok(Self { folder, config, table, tokens, config_text, generation_text })
    }

    /// The model's configuration, in this crate's terms.
    pub fn config(&self) -> &LanguageModelConfig {
        &self.config
    }

    /// Loads the weights to `device`.
    ///
    /// # Errors
    ///
    /// Those of [`load`] that concern the weights.
    pub fn load(self, device: &Device, options: LoadOptions) -> Result<Loaded> {
        let model = self.config.init(device)?;
        let source = folder::weights(&self.folder)?;
        let (model, table) = load::load(model, &source, self.table.clone(), options)?;
        let Tokens { bos, decoder_start, eos, pad } = self.tokens.clone();
        Ok(Loaded {
            model,
            bos_token: bos,
            decoder_start_token: decoder_start,
            eos_tokens: eos,
            pad_token: pad,
            checkpoint: Self { table, ..self },
        })
    }

    /// Writes `model` to `folder` as a checkpoint of the same family: its parameters in their own
    /// type, under the names that they were loaded from, in one `model.safetensors`; the
    /// configuration files as they were read. The folder is made if it is not there.
    ///
    /// What would belong to another checkpoint then is removed: the shards and the index of an
    /// earlier one, and its `generation_config.json` if this one has none. Every file is written
    /// aside and moved to its place. A symbolic link in that place makes way, and what it leads to
    /// stays: in the folders of Hugging Face's cache that is the one copy for all.
    ///
    /// A model that was loaded with [`Precision::AsStored`](crate::import::Precision::AsStored) or
    /// in the precision of the file gives the file's tensors bit for bit.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if a file can't be written or removed, [`Error::Weights`] if `model` has
    /// parameters that the family does not.
    pub fn save(&self, model: &LanguageModel, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|error| Error::File {
            path: show(folder),
            expected: "a folder that can be made".into(),
            got: error.to_string(),
        })?;
        save::save(model, &self.table, &folder.join(folder::WEIGHTS), Links::Replaced)?;
        // The whole file goes before an index, so that nothing is lost if this is broken off.
        folder::remove_shards(folder)?;
        write_text(&folder.join(folder::CONFIG), &self.config_text)?;
        let generation = folder.join(folder::GENERATION);
        match &self.generation_text {
            Some(text) => write_text(&generation, text),
            None => folder::remove(&generation),
        }
    }
}
