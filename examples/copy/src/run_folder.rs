//! The folder of a run: written whole or not at all, and loaded again.
//!
//! Everything is written into a temporary folder beside the right one, which then gets its name. So
//! there is never half a run.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn_decoder::decoder::LanguageModelConfig;
use serde::{Deserialize, Serialize};

use super::args::Settings;
use super::failure::Failure;
use super::model::CopyModel;
use super::train::Look;

const CONFIG: &str = "config.json";
const MODEL: &str = "model.bpk";
const HISTORY: &str = "history.csv";

/// config.json: enough to build the model, and to draw the same strings again.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub settings: Settings,
    pub model: LanguageModelConfig,
}

/// A folder that can be written, but isn't yet.
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Finds out, before any training, whether the folder can be written. Leaves nothing behind.
    pub fn check(path: &Path) -> Result<Self, Failure> {
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Failure::Input(format!(
                        "--out {}: expected a new or an empty folder, got one with files in it; \
                         name another, or remove it first",
                        path.display()
                    )));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file("--out", path, error)),
        }
        let path =
            std::path::absolute(path).map_err(|error| Failure::file("--out", path, error))?;
        let there = path.ancestors().skip(1).find(|folder| folder.exists());
        let there = there.unwrap_or(Path::new("/"));
        tempfile::tempdir_in(there)
            .map_err(|error| Failure::file("--out: cannot write to", there, error))?;
        Ok(Self(path))
    }

    /// Writes the run, with whatever `pictures` draws into the folder that it is given.
    pub fn write(
        &self,
        config: &RunConfig,
        model: &CopyModel,
        looks: &[Look],
        pictures: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: &dyn Display| Failure::file("--out", &self.0, error);
        let parent = self.0.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|error| failed(&error))?;
        // Removes itself when it goes out of scope, unless it was renamed.
        let folder = tempfile::Builder::new()
            .prefix(".copy-")
            .tempdir_in(parent)
            .map_err(|error| failed(&error))?;

        let json = serde_json::to_string_pretty(config).map_err(|error| failed(&error))?;
        fs::write(folder.path().join(CONFIG), json).map_err(|error| failed(&error))?;
        let record = model.language.clone().into_record();
        record.save(folder.path().join(MODEL)).map_err(|error| failed(&error))?;
        fs::write(folder.path().join(HISTORY), csv(looks)).map_err(|error| failed(&error))?;
        pictures(folder.path())?;

        if self.0.exists() {
            fs::remove_dir(&self.0).map_err(|error| failed(&error))?; // empty, or it fails
        }
        fs::rename(folder.path(), &self.0).map_err(|error| failed(&error))
    }
}

fn csv(looks: &[Look]) -> String {
    let mut csv = String::from("step,loss,first_half,copied_half,exact,learning_rate,seconds\n");
    for Look { step, loss, first, copied, exact, learning_rate, seconds } in looks {
        csv += &format!("{step},{loss},{first},{copied},{exact},{learning_rate},{seconds:.3}\n");
    }
    csv
}

/// A run that was written before.
pub struct SavedRun {
    folder: PathBuf,
    pub config: RunConfig,
}

impl SavedRun {
    /// Reads and checks the config.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(CONFIG);
        let failed = |error: &dyn Display| Failure::file("--prove", &path, error);
        let json = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let config: RunConfig = serde_json::from_str(&json).map_err(|error| failed(&error))?;
        config.settings.check().map_err(|error| failed(&error))?;
        Ok(Self { folder: folder.into(), config })
    }

    /// Gives a new model, made from `config`, the parameters of the run.
    pub fn load(
        &self,
        model: CopyModel,
        config: &LanguageModelConfig,
    ) -> Result<CopyModel, Failure> {
        let json = |config| serde_json::to_value(config).ok();
        if json(config) != json(&self.config.model) {
            let path = self.folder.join(CONFIG);
            let why = "expected settings and model to describe the same model, got two that differ";
            return Err(Failure::file("--prove", &path, why));
        }
        let path = self.folder.join(MODEL);
        let language = model.language.clone().try_load_file(&path);
        let language = language.map_err(|error| Failure::file("--prove", &path, error))?;
        Ok(CopyModel { language, ..model })
    }
}
