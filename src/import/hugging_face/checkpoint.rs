//! A checkpoint's folder: opened, loaded, written back.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value};

use super::family::{self, Description};
use super::fields::Fields;
use super::folder;
use crate::decoder::{LanguageModel, LanguageModelConfig};
use crate::import::LoadOptions;
use crate::import::load;
use crate::import::save;
use crate::import::source::show;
use crate::import::table::Table;
use crate::{Error, Result};

/// A checkpoint's folder whose configuration was read, and none of its weights.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: LanguageModelConfig,
    table: Table,
    /// The text of `config.json`.
    config_text: String,
    config_values: Map<String, Value>,
    /// The text of `generation_config.json`, if there is one.
    generation: Option<(String, Map<String, Value>)>,
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
/// [`Error::File`] for a file that is missing, broken or no JSON; [`Error::ForeignConfig`] for an
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
    /// Those of [`load`] that concern `config.json` and `generation_config.json`.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(folder::CONFIG);
        let (config_text, config_values) = folder::json(&path)?;
        let Description { config, table } =
            family::read(&Fields::new(&show(&path), &config_values))?;
        let generation = folder.join(folder::GENERATION);
        let generation = generation.exists().then(|| folder::json(&generation)).transpose()?;
        let folder = folder.to_path_buf();
        Ok(Self { folder, config, table, config_text, config_values, generation })
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
        let source = folder::weights(&self.folder)?;
        let model = self.config.init(device)?;
        let (model, table) = load::load(model, &source, self.table.clone(), options)?;
        Ok(Loaded {
            model,
            bos_token: self.tokens("bos_token_id")?.first().copied(),
            decoder_start_token: self.tokens("decoder_start_token_id")?.first().copied(),
            eos_tokens: self.tokens("eos_token_id")?,
            pad_token: self.tokens("pad_token_id")?.first().copied(),
            checkpoint: Self { table, ..self },
        })
    }

    /// Writes `model` to `folder` as a checkpoint of the same family: its parameters in their own
    /// type, under the names that they were loaded from, in one `model.safetensors`; the
    /// configuration files as they were read. The folder is made if it is not there.
    ///
    /// A model that was loaded with [`Precision::AsStored`](crate::import::Precision::AsStored) or
    /// in the precision of the file gives the file's tensors bit for bit.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if a file can't be written, [`Error::Weights`] if `model` has parameters that
    /// the family does not.
    pub fn save(&self, model: &LanguageModel, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| Error::File {
                path: show(&path),
                expected: "a file that can be written".into(),
                got: error.to_string(),
            })
        };
        std::fs::create_dir_all(folder).map_err(|error| Error::File {
            path: show(folder),
            expected: "a folder that can be made".into(),
            got: error.to_string(),
        })?;
        save::save(model, &self.table, &folder.join(folder::WEIGHTS))?;
        write(folder::CONFIG, &self.config_text)?;
        match &self.generation {
            Some((text, _)) => write(folder::GENERATION, text),
            None => Ok(()),
        }
    }

    /// The token ids under `name`: one, several or none, where the generation's configuration goes
    /// before the model's.
    fn tokens(&self, name: &str) -> Result<Vec<u32>> {
        let (generation, config) =
            (self.folder.join(folder::GENERATION), self.folder.join(folder::CONFIG));
        let (generation, config) = (show(&generation), show(&config));
        let files = self.generation.iter().map(|(_, values)| Fields::new(&generation, values));
        let files = files.chain([Fields::new(&config, &self.config_values)]);
        for fields in files {
            let Some(value) = fields.get(name) else { continue };
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids = match value.as_array() {
                Some(ids) => ids.iter().map(id).collect(),
                None => id(value).map(|id| vec![id]),
            };
            return match ids {
                Some(ids) => Ok(ids),
                None => fields.refuse(name, "a token id, or several"),
            };
        }
        Ok(Vec::new())
    }
}
