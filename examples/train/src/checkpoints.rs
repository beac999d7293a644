//! Checkpoints that are there whole or not at all.
//!
//! burn-train saves model, optimizer and schedule one by one, each from a thread of its own. Here each
//! is written aside and renamed; when the last of the three is on the disk, a manifest with their
//! lengths and checksums is written, and without a manifest that holds there is no checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::{ModuleRecord, burn_pack};
use burn::tensor::Bytes;
use burn::train::checkpoint::{Checkpoint, Checkpointer, CheckpointerError};
use serde::{Deserialize, Serialize};
use shared::replace_file;

use super::failure::Failure;

/// The parts of a checkpoint.
const PARTS: [&str; 3] = ["model", "optimizer", "schedule"];

/// The folder of checkpoints.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    /// Of the model, only the adapters are kept.
    adapters: bool,
    /// Parts of epochs that are not complete yet.
    written: Mutex<BTreeMap<usize, Manifest>>,
}

/// What the files of a checkpoint must be.
type Manifest = BTreeMap<String, Part>;

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    bytes: u64,
    crc32: u32,
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is made if it is not there.
    pub fn open(folder: &Path, adapters: bool) -> Result<Arc<Self>, Failure> {
        fs::create_dir_all(folder).map_err(|error| Failure::write(folder, error))?;
        let folder = folder.to_path_buf();
        Ok(Arc::new(Self { folder, adapters, written: Mutex::default() }))
    }

    fn manifest(&self, epoch: usize) -> PathBuf {
        self.folder.join(format!("{epoch}.json"))
    }

    fn part(&self, part: &str, epoch: usize) -> PathBuf {
        self.folder.join(format!("{part}-{epoch}.bpk"))
    }

    /// The newest checkpoint that is whole, by its epoch. `refused` is told of the others by name.
    pub fn newest(&self, mut refused: impl FnMut(String)) -> Option<usize> {
        let mut epochs = self.epochs();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        epochs.into_iter().find(|&epoch| match self.check(epoch) {
            Ok(()) => true,
            Err(why) => {
                refused(format!("checkpoint {epoch} is refused: {why}"));
                false
            }
        })
    }

    /// All epochs of which there is any file.
    fn epochs(&self) -> Vec<usize> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let epoch = |name: &str| {
            let (stem, ending) = name.rsplit_once('.')?;
            let number = match ending {
                "json" => stem,
                "bpk" => stem.rsplit_once('-')?.1,
                _ => return None,
            };
            number.parse().ok()
        };
        let mut epochs: Vec<usize> =
            entries.filter_map(|entry| epoch(entry.file_name().to_str()?)).collect();
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// Whether a checkpoint is whole, or what is wrong with it.
    fn check(&self, epoch: usize) -> Result<(), String> {
        let path = self.manifest(epoch);
        let told = |path: &Path, what: String| format!("{}: {what}", path.display());
        let text = fs::read(&path)
            .map_err(|error| told(&path, format!("expected its manifest, got {error}")))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| told(&path, format!("expected a manifest, got {error}")))?;
        for part in PARTS {
            let path = self.part(part, epoch);
            let Some(expected) = manifest.get(part) else {
                return Err(told(&self.manifest(epoch), format!("expected a {part}, got none")));
            };
            let bytes = fs::read(&path).map_err(|error| told(&path, error.to_string()))?;
            let got = Part::of(&bytes);
            if got != *expected {
                return Err(told(
                    &path,
                    format!(
                        "expected {} bytes with CRC-32 {:08x}, got {} with {:08x}",
                        expected.bytes, expected.crc32, got.bytes, got.crc32
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Removes what is newer than `epoch`, and what a killed writer left.
    pub fn forget_after(&self, epoch: usize) -> Result<(), Failure> {
        for newer in self.epochs().into_iter().filter(|newer| *newer > epoch) {
            for part in PARTS {
                self.delete(part, newer).map_err(|error| Failure::write(&self.folder, error))?;
            }
        }
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(".unfinished-")) {
                fs::remove_file(entry.path())
                    .map_err(|error| Failure::write(&entry.path(), error))?;
            }
        }
        Ok(())
    }

    /// The model of an epoch.
    pub fn model(&self, epoch: usize) -> Result<ModuleRecord, Failure> {
        let path = self.part("model", epoch);
        let refuse = |error: String| Failure::file("checkpoint", &path, error);
        let bytes = fs::read(&path).map_err(|error| refuse(error.to_string()))?;
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes));
        record.map(|record| self.partial(record)).map_err(|error| refuse(error.to_string()))
    }

    /// The bytes of the model of an epoch.
    pub fn model_bytes(&self, epoch: usize) -> Result<Vec<u8>, Failure> {
        let path = self.part("model", epoch);
        fs::read(&path).map_err(|error| Failure::file("checkpoint", &path, error))
    }

    fn partial(&self, record: ModuleRecord) -> ModuleRecord {
        record.allow_partial(self.adapters)
    }

    fn put(&self, part: &str, epoch: usize, bytes: &[u8]) -> Result<(), CheckpointerError> {
        // Counted before the write, so that a part that is written again is not counted as done.
        replace_file(&self.part(part, epoch), bytes).map_err(CheckpointerError::IOError)?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let manifest = written.entry(epoch).or_default();
        manifest.insert(part.into(), Part::of(bytes));
        if manifest.len() < PARTS.len() {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(manifest).expect("JSON can be written");
        written.remove(&epoch);
        replace_file(&self.manifest(epoch), &text).map_err(CheckpointerError::IOError)
    }

    fn delete(&self, part: &str, epoch: usize) -> Result<(), CheckpointerError> {
        // The manifest goes first: from then on there is no checkpoint.
        for path in [self.manifest(epoch), self.part(part, epoch)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CheckpointerError::IOError(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What burn-train saves models, optimizers and schedules by.
    pub fn checkpointers(self: &Arc<Self>) -> (ModelPart, PlainPart, PlainPart) {
        let plain = |name| PlainPart { all: self.clone(), name };
        (ModelPart(self.clone()), plain(PARTS[1]), plain(PARTS[2]))
    }
}

/// Saves the optimizer or the schedule.
pub struct PlainPart {
    all: Arc<Checkpoints>,
    name: &'static str,
}

impl PlainPart {
    fn save_any<R: Checkpoint>(&self, epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let bytes = record.checkpoint_into_bytes().map_err(CheckpointerError::Record)?;
        self.all.put(self.name, epoch, &bytes)
    }

    fn restore_any<R: Checkpoint>(&self, epoch: usize) -> Result<R, CheckpointerError> {
        let bytes =
            fs::read(self.all.part(self.name, epoch)).map_err(CheckpointerError::IOError)?;
        R::checkpoint_from_bytes(Bytes::from_bytes_vec(bytes)).map_err(CheckpointerError::Record)
    }
}

macro_rules! save_as_it_is {
    ($record:ty) => {
        impl Checkpointer<$record> for PlainPart {
            fn save(&self, epoch: usize, record: $record) -> Result<(), CheckpointerError> {
                self.save_any(epoch, record)
            }

            fn restore(&self, epoch: usize) -> Result<$record, CheckpointerError> {
                self.restore_any(epoch)
            }

            fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
                self.all.delete(self.name, epoch)
            }
        }
    };
}

save_as_it_is!(OptimizerRecord);
save_as_it_is!(LrSchedulerRecord);

/// Saves the model, or its adapters alone.
pub struct ModelPart(Arc<Checkpoints>);

impl Checkpointer<ModuleRecord> for ModelPart {
    fn save(&self, epoch: usize, record: ModuleRecord) -> Result<(), CheckpointerError> {
        let mut bytes = record.into_bytes().map_err(CheckpointerError::Record)?;
        if self.0.adapters {
            bytes = adapters_of(bytes)
                .map_err(|error| CheckpointerError::Unknown(error.to_string()))?;
        }
        self.0.put(PARTS[0], epoch, &bytes)
    }

    fn restore(&self, epoch: usize) -> Result<ModuleRecord, CheckpointerError> {
        self.0.model(epoch).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        self.0.delete(PARTS[0], epoch)
    }
}

/// The adapters in the record of a model, which burn-train gives whole.
fn adapters_of(record: Bytes) -> Result<Bytes, burn_pack::Error> {
    let tensors = burn_pack::Reader::from_bytes(record)?.into_tensors()?;
    let adapters = tensors.into_iter().filter(|tensor| is_adapter(&tensor.name)).collect();
    burn_pack::Writer::new(adapters).into_bytes()
}

fn is_adapter(path: &str) -> bool {
    path.ends_with(".lora.a") || path.ends_with(".lora.b")
}
