//! The folder of a run: written whole or not at all, and loaded again.
//!
//! Everything is written into a temporary folder beside the right one, synced to the disk, and then
//! renamed. Into a folder that is there already, if an empty one, the files are moved one by one, as
//! others may hold the folder itself (a link, a shell); `config.json` comes last, and without it a
//! folder is no run. So there is never half a run, whenever the process ends.

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn_decoder::config;
use burn_decoder::decoder::LanguageModelConfig;
use serde::{Deserialize, Deserializer, Serialize};
use shared::{new_folder, say, sync_all, sync_folder};

use super::args::Settings;
use super::failure::Failure;
use super::model::CopyModel;
use super::task::{Task, TextChecksum};
use super::train::Look;

/// What may fail while a run is written.
type Written<T> = Result<T, Box<dyn Error>>;

const CONFIG: &str = "config.json";
const MODEL: &str = "model.bpk";
const HISTORY: &str = "history.csv";

/// config.json: enough to build the model, and to draw the same strings again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub settings: Settings,
    /// As `burn_decoder::config` reads it: older runs too.
    #[serde(deserialize_with = "model_config")]
    pub model: LanguageModelConfig,
    /// Tells whether the text is still what the model was trained on.
    #[serde(default)]
    pub text: Option<TextChecksum>,
}

fn model_config<'de, D: Deserializer<'de>>(json: D) -> Result<LanguageModelConfig, D::Error> {
    let json = serde_json::Value::deserialize(json)?;
    config::from_json(&json.to_string()).map_err(serde::de::Error::custom)
}

/// What is kept of a run.
pub struct Run<'a> {
    pub config: &'a RunConfig,
    pub model: &'a CopyModel,
    pub looks: &'a [Look],
    /// Draws the pictures into the folder that it is given.
    pub pictures: &'a dyn Fn(&Path) -> Result<(), Failure>,
}

/// A folder that can be written, but isn't yet.
#[derive(Debug)]
pub struct RunFolder {
    /// Absolute, and behind all links.
    path: PathBuf,
    is_there: bool,
}

impl RunFolder {
    /// Finds out, before any training, whether the folder can be written. Leaves nothing behind.
    pub fn check(path: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| Err(Failure::file("--out", path, why));
        let failed = |error: io::Error| Failure::file("--out", path, error);
        let is_there = fs::symlink_metadata(path).is_ok();
        if !is_there {
            if path.file_name().is_none() {
                return refuse("expected the name of a folder that is there or can be made");
            }
            let path = std::path::absolute(path).map_err(failed)?;
            // A link that leads nowhere counts as there: no folder can be made in its place.
            let parent = path.ancestors().skip(1).find(|path| fs::symlink_metadata(path).is_ok());
            let parent = parent.unwrap_or(Path::new("/"));
            new_folder(parent)
                .map_err(|error| Failure::file("--out: cannot write to", parent, error))?;
            return Ok(Self { path, is_there });
        }
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return refuse("expected a folder, got a link that leads nowhere");
            }
            path => path.map_err(failed)?,
        };
        if fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return refuse(
                "expected a new or an empty folder, got one with files in it; name another, or \
                 remove it first",
            );
        }
        new_folder(&path).map_err(|error| Failure::file("--out: cannot write to", &path, error))?;
        Ok(Self { path, is_there })
    }

    /// Where the run is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the run here, or, if that fails, in the folder for temporary files: the error says where.
    pub fn write(&self, run: &Run) -> Result<(), Failure> {
        let failed = |error: &dyn Display| format!("--out {}: {error}", self.path.display());
        let error = match self.put(run) {
            Ok(None) => return Ok(()),
            Ok(Some(error)) => {
                return Err(Failure::Output(format!(
                    "{}; the run is kept without all of its pictures",
                    failed(&error)
                )));
            }
            Err(error) => failed(&error),
        };
        let rescue = || -> Written<PathBuf> {
            let folder = new_folder(&std::env::temp_dir())?;
            fill(folder.path(), run)?;
            Ok(folder.keep())
        };
        Err(Failure::Output(match rescue() {
            Ok(folder) => format!("{error}; the run is kept in {} instead", folder.display()),
            Err(second) => format!("{error}; nor could it be kept elsewhere: {second}"),
        }))
    }

    /// Writes the run. Gives what is wrong with the pictures, if anything is.
    fn put(&self, run: &Run) -> Written<Option<Failure>> {
        if self.is_there {
            let folder = new_folder(&self.path)?;
            let pictures = fill(folder.path(), run)?;
            for entry in fs::read_dir(folder.path())? {
                let name = entry?.file_name();
                if name != CONFIG {
                    fs::rename(folder.path().join(&name), self.path.join(&name))?;
                }
            }
            sync_folder(&self.path)?;
            fs::rename(folder.path().join(CONFIG), self.path.join(CONFIG))?;
            sync_folder(&self.path)?;
            return Ok(pictures);
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let folder = new_folder(parent)?;
        let pictures = fill(folder.path(), run)?;
        fs::rename(folder.path(), &self.path)?;
        sync_folder(parent)?;
        Ok(pictures)
    }
}

/// Writes all files of the run into the folder, and brings them to the disk. A run without pictures
/// is a run: what is wrong with them is given back.
fn fill(folder: &Path, run: &Run) -> Written<Option<Failure>> {
    fs::write(folder.join(CONFIG), serde_json::to_string_pretty(run.config)?)?;
    run.model.language.clone().into_record().save(folder.join(MODEL))?;
    fs::write(folder.join(HISTORY), csv(run.looks))?;
    let pictures = (run.pictures)(folder).err();
    sync_all(folder)?;
    Ok(pictures)
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

    /// Refuses a text that is not what the model was trained on: what is called unseen would not be.
    pub fn check_text(&self, task: &Task) -> Result<(), Failure> {
        let (Some(path), Some(now)) = (&self.config.settings.text, task.text_checksum()) else {
            return Ok(());
        };
        match self.config.text {
            Some(then) if then == now => Ok(()),
            Some(then) => Err(Failure::file(
                "--prove: --text",
                path,
                format!(
                    "expected the text of the training ({then}), got another ({now}), of which the \
                     model may have seen what is called unseen"
                ),
            )),
            None => {
                let config = self.folder.join(CONFIG);
                say(format_args!(
                    "warning: {} has no checksum of its text: whether {} is still what the model \
                     was trained on is not known",
                    config.display(),
                    path.display()
                ));
                Ok(())
            }
        }
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
