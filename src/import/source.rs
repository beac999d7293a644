//! The tensors of a checkpoint: named, and read one by one when they are asked for.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::burn_pack;
use burn::store::{BurnpackStore, ModuleSnapshot, ModuleStore, PytorchStore};

use super::safetensors_file;
use crate::{Error, Result};

/// The tensors of a checkpoint.
pub struct Source {
    /// The file or folder, for messages.
    pub path: String,
    pub tensors: BTreeMap<String, burn_pack::Tensor>,
}

impl Source {
    /// A `.safetensors` file, a PyTorch file (`.pt`, `.pth`, `.bin`) or a Burn record (`.bpk`), by
    /// its ending.
    pub fn open(path: &Path, top_level_key: Option<&str>) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("safetensors") => {
                Ok(Self { path: show(path), tensors: safetensors_file::open(path)? })
            }
            Some("pt" | "pth" | "bin") => Self::pytorch(path, top_level_key),
            Some("bpk") => Self::burnpack(path),
            _ => Err(Error::File {
                path: show(path),
                expected: "a file that ends with .safetensors, .pt, .pth, .bin or .bpk".into(),
                got: "another ending".into(),
            }),
        }
    }

    fn pytorch(path: &Path, top_level_key: Option<&str>) -> Result<Self> {
        let mut store = PytorchStore::from_file(path);
        if let Some(key) = top_level_key {
            store = store.with_top_level_key(key);
        }
        Self::stored(path, "a PyTorch state dict", store.get_all_tensors())
    }

    fn burnpack(path: &Path) -> Result<Self> {
        let mut store = BurnpackStore::from_file(path).auto_extension(false);
        Self::stored(path, "a Burn record", store.get_all_tensors())
    }

    fn stored(
        path: &Path,
        expected: &str,
        tensors: Result<&BTreeMap<String, burn_pack::Tensor>, impl std::fmt::Display>,
    ) -> Result<Self> {
        match tensors {
            Ok(tensors) => Ok(Self { path: show(path), tensors: tensors.clone() }),
            Err(error) => Err(Error::File {
                path: show(path),
                expected: expected.into(),
                got: error.to_string(),
            }),
        }
    }

    /// The parameters of another module, called `name` in messages.
    pub fn module(module: &impl Module, name: &str) -> Self {
        let tensors = module.collect(None, None, true).into_iter();
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { path: name.into(), tensors }
    }
}

/// A path as messages have it.
pub fn show(path: &Path) -> String {
    path.display().to_string()
}
