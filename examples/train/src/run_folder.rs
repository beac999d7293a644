//! The folder of a run: made whole, gone on with by the same command alone, one process at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::{new_folder, replace_file, sync_all, sync_folder};

use super::args::Args;
use super::failure::{Failure, Verdict};
use super::start;
use super::text::Texts;

/// What makes a folder a run: settings and text.
const RUN: &str = "run.json";
/// How the training ended.
const OUTCOME: &str = "outcome.json";
const LOCK: &str = "lock";

/// The folder of a run that no other process writes to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether this process made it.
    is_new: bool,
    /// Held as long as the process lives, however it ends.
    _lock: File,
}

/// How a training ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Why it was stopped, if it was.
    pub stopped: Option<String>,
    /// The step whose model is kept: that of the lowest validation loss.
    pub step: usize,
    /// In nats a token.
    pub validation_loss: f64,
    pub bits_per_byte: f64,
    /// Mean over the steps before that validation, in nats a token.
    pub training_loss: f64,
}

impl RunFolder {
    /// Makes the folder, or opens that of the same command.
    pub fn open(args: &Args, texts: &Texts) -> Result<Self, Failure> {
        let refuse = |why: &dyn std::fmt::Display| Failure::file("--out", &args.out, why);
        let wanted = json!({ "settings": &args.settings, "text": texts.checksum });
        let path = match fs::canonicalize(&args.out) {
            Ok(path) => path,
            Err(_) => std::path::absolute(&args.out).map_err(|error| refuse(&error))?,
        };
        if path.exists() && !path.join(RUN).is_file() {
            let mut entries = fs::read_dir(&path).map_err(|error| refuse(&error))?;
            if entries.next().is_some() {
                return Err(refuse(&format_args!(
                    "expected a new or empty folder, or one with {RUN} in it, got one with other \
                     files"
                )));
            }
        }
        let is_new = !path.join(RUN).is_file();
        if is_new {
            make(&path, args, texts, &wanted)?;
        }
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(|error| Failure::write(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(refuse(&"another process trains here; wait, or end it first"));
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        check_same(&path.join(RUN), &wanted)?;
        Ok(Self { path, is_new, _lock: lock })
    }

    /// The folder if all else could be made ready, too. If not, one that this process made is removed: the
    /// same command, once it can be followed, begins anew, with a tokenizer that may be another.
    pub fn unless_refused<T>(self, ready: Result<T, Failure>) -> Result<(Self, T), Failure> {
        match ready {
            Ok(ready) => Ok((self, ready)),
            Err(failure) => {
                if self.is_new {
                    let _ = fs::remove_dir_all(&self.path); // The failure says what matters.
                }
                Err(failure)
            }
        }
    }

    /// Where the run is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where burn-train keeps its logs.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// How the training ended, if it has.
    pub fn outcome(&self) -> Result<Option<Outcome>, Failure> {
        let path = self.path.join(OUTCOME);
        if !path.is_file() {
            return Ok(None);
        }
        let refuse = |error: &dyn std::fmt::Display| Failure::file("--out", &path, error);
        let text = fs::read(&path).map_err(|error| refuse(&error))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| refuse(&error))
    }

    /// Keeps how the training ended: the last that is written.
    pub fn finish(&self, outcome: &Outcome) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(outcome).expect("JSON can be written");
        self.put(OUTCOME, text.as_bytes())
    }

    /// Writes a file, whole or not at all.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        replace_file(&path, bytes).map_err(|error| Failure::write(&path, error))
    }

    /// Removes the logs of epochs behind the checkpoint: a killed process began them.
    pub fn forget_logs_after(&self, done: usize) -> Result<(), Failure> {
        for split in ["train", "valid"] {
            let folder = self.logs().join(split);
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let epoch =
                    name.to_str().and_then(|name| name.strip_prefix("epoch-")?.parse().ok());
                if epoch.is_some_and(|epoch: usize| epoch > done) {
                    fs::remove_dir_all(entry.path())
                        .map_err(|error| Failure::write(&entry.path(), error))?;
                }
            }
        }
        Ok(())
    }
}

/// Makes the folder aside and puts it into its place, so that it is there whole or not at all.
fn make(path: &Path, args: &Args, texts: &Texts, run: &Value) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file("--out: cannot write to", path, error);
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed)?;
    let folder = new_folder(parent).map_err(failed)?;
    start::describe(folder.path(), &args.settings, texts)?;
    let text = serde_json::to_string_pretty(run).expect("JSON can be written");
    fs::write(folder.path().join(RUN), text).map_err(failed)?;
    sync_all(folder.path()).map_err(failed)?;
    fs::rename(folder.path(), path).map_err(failed)?;
    sync_folder(parent).map_err(failed)
}

/// An error that names what another command or text has changed.
fn check_same(path: &Path, wanted: &Value) -> Result<(), Failure> {
    let refuse = |error: &dyn std::fmt::Display| Failure::file("--out", path, error);
    let text = fs::read(path).map_err(|error| refuse(&error))?;
    let there: Value = serde_json::from_slice(&text).map_err(|error| refuse(&error))?;
    // Through text, as the file went: so that numbers compare as they are written.
    let wanted: Value =
        serde_json::from_str(&wanted.to_string()).map_err(|error| refuse(&error))?;
    if there["text"] != wanted["text"] {
        return Err(refuse(&format_args!(
            "expected the text that the run was begun with ({}), got another ({})",
            there["text"], wanted["text"]
        )));
    }
    let empty = serde_json::Map::new();
    let [there, wanted] =
        [&there, &wanted].map(|json| json["settings"].as_object().unwrap_or(&empty));
    let null = Value::Null;
    let differing: Vec<String> = wanted
        .iter()
        .map(|(name, value)| (name, value, there.get(name).unwrap_or(&null)))
        .filter(|(_, wanted, there)| wanted != there)
        .map(|(name, wanted, there)| {
            format!("--{}: expected {there}, got {wanted}", name.replace('_', "-"))
        })
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(refuse(&format_args!(
        "the run was begun with other settings: {}; give the same, or another --out",
        differing.join("; ")
    )))
}
