//! Weights from elsewhere and back: Hugging Face's folders, PyTorch's state dicts, burn-nn's decoder.

pub mod allocations;
mod burn_nn;
mod config;
mod families;
mod gguf;
mod mapping;
#[cfg(target_os = "linux")]
mod memory;
mod mutations;
mod parity;
mod pytorch;
mod round_trip;
mod torch_file;
mod wrong;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Every folder of tests/fixtures, and how close its logits must be to the original's in f32 on a
/// CPU: rounding of these small models is at most 1.4e-5, and the quietest mistakes begin at 4e-5 in
/// the families of `make_families.py`, at 2e-4 in the two of `make_fixtures.py`.
pub const FOLDERS: [(&str, f64); 12] = [
    ("bart_tiny", 5e-5),
    ("gemma2_tiny", 5e-5),
    ("gemma3_tiny", 5e-5),
    ("gpt2_tiny", 1e-4),
    ("gptneox_tiny", 5e-5),
    ("llama3rope_tiny", 5e-5),
    ("llama_tiny", 1e-4),
    ("mistral_tiny", 5e-5),
    ("olmo2_tiny", 5e-5),
    ("phi_tiny", 5e-5),
    ("qwen2_tiny", 5e-5),
    ("qwen3_tiny", 5e-5),
];

/// A folder or file of tests/fixtures.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a folder of tests/fixtures that may be broken.
pub fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// A copy of a folder whose `config.json` was changed.
pub fn with_config(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> tempfile::TempDir {
    let copy = copy_of(name);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(config.as_object_mut().unwrap());
    std::fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    copy
}
