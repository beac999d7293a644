//! What the programs of this package have in common: a published model or a kept run of the copy
//! example, its checks, and the page of what was found.

pub mod checks;
pub mod page;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use burn_decoder::config::from_json;
use burn_decoder::decoder::{LanguageModel, LanguageModelConfig};
use burn_decoder::import::{LoadOptions, gguf, hugging_face};
use serde::Deserialize;

/// What this package needs to know of the run's config.json.
#[derive(Deserialize)]
struct RunConfig {
    model: serde_json::Value,
}

/// Why there is no answer.
pub enum Failure {
    /// Something that the user gave cannot be used.
    Input(String),
    /// What was found could not be written.
    Output(String),
}

impl Failure {
    /// A file of the user's that cannot be used.
    pub fn input(path: &Path, error: impl Display) -> Self {
        Self::Input(format!("{}: {error}", path.display()))
    }
}

impl From<burn_decoder::Error> for Failure {
    fn from(error: burn_decoder::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(format!("standard output: {error}"))
    }
}

/// The model of the run in the folder.
pub fn load(folder: &Path, device: &Device) -> Result<LanguageModel, Failure> {
    let path = folder.join("config.json");
    let json = fs::read_to_string(&path).map_err(|error| Failure::input(&path, error))?;
    let config: RunConfig =
        serde_json::from_str(&json).map_err(|error| Failure::input(&path, error))?;
    let config: LanguageModelConfig = from_json(&config.model.to_string())
        .map_err(|error| Failure::input(&path, format!("model: {error}")))?;
    let model = config.init(device).map_err(|error| Failure::input(&path, error))?;
    let path = folder.join("model.bpk");
    model.try_load_file(&path).map_err(|error| Failure::input(&path, error))
}

/// The published model in f32: a folder of Hugging Face, or a GGUF file.
pub fn load_published(path: &Path, device: &Device) -> Result<LanguageModel, Failure> {
    let options = LoadOptions::new();
    Ok(match path.is_file() {
        true => gguf::load(path, device, options)?.model,
        false => hugging_face::load(path, device, options)?.model,
    })
}
