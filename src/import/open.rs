//! Files of all formats, by their endings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::store::{BurnpackStore, ModuleStore, PytorchStore, burn_pack};

use super::files::{in_place_of, not_this_file, show};
use super::safetensors_file;
use super::source::TensorSource;
use crate::{Error, Result};

/// A `.safetensors` file, a PyTorch file (`.pt`, `.pth`, `.bin`) or a Burn record (`.bpk`), by
/// its ending.
pub fn open(path: &Path, top_level_key: Option<&str>) -> Result<TensorSource> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => safetensors_file::open(path),
        Some("pt" | "pth" | "bin") => pytorch(path, top_level_key),
        Some("bpk") => burnpack(path),
        _ => Err(Error::File {
            path: show(path),
            expected: "a file that ends with .safetensors, .pt, .pth, .bin or .bpk".into(),
            got: "another ending".into(),
        }),
    }
}

fn pytorch(path: &Path, top_level_key: Option<&str>) -> Result<TensorSource> {
    stored(path, "a PyTorch state dict", || {
        let mut store = PytorchStore::from_file(path);
        if let Some(key) = top_level_key {
            store = store.with_top_level_key(key);
        }
        store.get_all_tensors().cloned().map_err(|error| error.to_string())
    })
}

fn burnpack(path: &Path) -> Result<TensorSource> {
    stored(path, "a Burn record", || {
        metadata_fits(path)?;
        let mut store = BurnpackStore::from_file(path).auto_extension(false);
        store.get_all_tensors().cloned().map_err(|error| error.to_string())
    })
}

/// What one of Burn's stores finds in a file. The parsers behind it are others': a damaged file
/// that makes one of them panic is an error here.
fn stored(
    path: &Path,
    expected: &str,
    read: impl FnOnce() -> Result<BTreeMap<String, burn_pack::Tensor>, String>,
) -> Result<TensorSource> {
    if let Some(got) = in_place_of(path) {
        return Err(Error::File { path: show(path), expected: expected.into(), got });
    }
    let tensors = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err("a file that its reader gives up on".into()))
        .map_err(|got| not_this_file(path, expected, got))?;
    Ok(TensorSource { path: show(path), tensors, ..TensorSource::default() })
}

/// An error for a record that tells of more metadata than the file has: its reader makes room for
/// them before it looks.
fn metadata_fits(path: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(text)?;
    let held = file.metadata().map_err(text)?.len();
    let mut header = [0; burn_pack::HEADER_SIZE];
    file.read_exact(&mut header).map_err(|_| format!("{held} bytes, too few for a header"))?;
    let header = burn_pack::Header::from_bytes(&header).map_err(|error| error.to_string())?;
    match u64::from(header.metadata_size) + burn_pack::HEADER_SIZE as u64 <= held {
        true => Ok(()),
        false => Err(format!("{held} bytes that tell of {} of metadata", header.metadata_size)),
    }
}
