//! A cache in a file: tensors under their names in the safetensors format, the rest beside them.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::layout::SlotLayout;
use super::model::CachedModel;
use super::{CacheConfig, CachePrecision, KvCache, misuse};
use crate::error::CacheMisuse;
use crate::file::Links;
use crate::hash::Hash;
use crate::mask::{Mask, Past};
use crate::sequence::Positions;
use crate::{Result, file};

/// The entry of the file's metadata that holds [`Saved`], as JSON.
const ENTRY: &str = "burn_decoder_cache";
/// The entry that holds the [`checksum`] of all else.
const CHECKSUM: &str = "checksum";

/// All of a cache but its tensors.
#[derive(Serialize, Deserialize)]
pub(super) struct Saved {
    pub config: CacheConfig,
    /// Of the model that filled it.
    pub fingerprint: u64,
    pub rows: Option<SavedRows>,
    pub layers: Vec<(Past, SlotLayout)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedRows {
    pub batch: usize,
    pub tokens: usize,
    pub mask: Option<Mask>,
    pub positions: Positions,
    pub memory: Option<Mask>,
    pub passes: usize,
}

impl KvCache {
    /// Writes the cache, whole or not at all.
    pub(crate) fn write(&self, path: &Path, model: &impl CachedModel) -> Result<()> {
        self.check_model(model)?;
        // Without what a pass left behind that broke off.
        let mut whole = self.clone();
        whole.heal()?;
        let json = serde_json::to_string(&whole.saved(model)).map_err(|error| error.to_string());
        let tensors = whole.tensors();
        let written = json.and_then(|json| {
            let mut views = Vec::new();
            for (name, data) in &tensors {
                views.push((name.as_str(), view(data)?));
            }
            views.sort_by(|a, b| a.0.cmp(b.0));
            let checksum = checksum(&json, views.iter().cloned());
            let metadata =
                HashMap::from([(ENTRY.into(), json), (CHECKSUM.into(), checksum.to_string())]);
            file::replace(path, Links::Followed, |unfinished| {
                safetensors::serialize_to_file(views, Some(metadata), unfinished)
                    .map_err(|error| error.to_string())
            })
        });
        written.or_else(|error| refuse(path, "a file that can be written", error))
    }

    fn saved(&self, model: &impl CachedModel) -> Saved {
        Saved {
            config: self.config.clone(),
            fingerprint: model.fingerprint(),
            rows: self.rows.as_ref().map(|rows| SavedRows {
                batch: rows.batch,
                tokens: rows.tokens,
                mask: rows.known.mask.clone(),
                positions: rows.known.positions.clone(),
                memory: rows.known.memory.as_ref().map(|(_, mask)| mask.clone()),
                passes: rows.passes,
            }),
            layers: self
                .layers
                .iter()
                .map(|layer| (layer.own.past(), layer.own.layout()))
                .collect(),
        }
    }

    fn tensors(&self) -> Vec<(String, TensorData)> {
        let mut tensors = Vec::new();
        let mut keep = |name: String, data: TensorData| tensors.push((name, data));
        for (i, layer) in self.layers.iter().enumerate() {
            for (pair, parts) in [("own", layer.own.used()), ("memory", layer.memory.clone())] {
                for (part, tensor) in ["key", "value"].into_iter().zip(parts.into_iter().flatten())
                {
                    keep(format!("layers.{i}.{pair}.{part}"), tensor.into_data());
                }
            }
        }
        let rows = self.rows.as_ref();
        if let Some((states, _)) = rows.and_then(|rows| rows.known.memory.as_ref()) {
            keep("memory".into(), states.to_data());
        }
        if let Some(history) = rows.and_then(|rows| rows.history.as_ref()) {
            keep("tokens".into(), history.to_data().convert::<i64>());
        }
        tensors
    }

    /// Reads a cache for this model.
    pub(crate) fn read(path: &Path, model: &impl CachedModel) -> Result<Self> {
        let expected = "a cache that KvCache::save wrote";
        let read = std::fs::read(path).map_err(|error| error.to_string());
        let parsed = read.as_ref().map_err(Clone::clone).and_then(|bytes| parse(bytes));
        let (saved, tensors) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return refuse(path, expected, error),
        };
        if saved.fingerprint != model.fingerprint() {
            return misuse(
                CacheMisuse::Model,
                "the model that the saved cache was filled with".into(),
                "one with other parameters or another configuration".into(),
            );
        }
        match saved.restore(&tensors, model) {
            Ok(cache) => Ok(cache),
            Err(error) => refuse(path, expected, error),
        }
    }
}

/// The parts of a file, if it is as it was written.
fn parse(bytes: &[u8]) -> Result<(Saved, SafeTensors<'_>), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let entry = |name: &str| header.metadata().as_ref().and_then(|entries| entries.get(name));
    let json = entry(ENTRY).ok_or("another safetensors file")?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let expected = entry(CHECKSUM).ok_or("a file without a checksum")?;
    let mut views: Vec<_> = tensors.iter().collect();
    views.sort_by(|a, b| a.0.cmp(b.0));
    if *expected != checksum(json, views.into_iter()).to_string() {
        return Err("a file that was changed after it was written".into());
    }
    let saved = || -> serde_json::Result<Saved> {
        let mut json: serde_json::Value = serde_json::from_str(json)?;
        // A file from before there was a choice.
        if let Some(config) = json.get_mut("config").and_then(|config| config.as_object_mut()) {
            let as_computed = serde_json::to_value(CachePrecision::AsComputed)?;
            config.entry("precision").or_insert(as_computed);
        }
        serde_json::from_value(json)
    };
    Ok((saved().map_err(|error| error.to_string())?, tensors))
}

/// Changes with every byte of what a cache is read from. The tensors come in the order of names.
fn checksum<'a>(json: &str, tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>) -> u64 {
    let mut hash = Hash::new();
    hash.bytes(json.as_bytes());
    for (name, view) in tensors {
        hash.bytes(name.as_bytes());
        hash.bytes(format!("{:?} {:?}", view.dtype(), view.shape()).as_bytes());
        hash.bytes(view.data());
    }
    hash.finish()
}

fn view(data: &TensorData) -> Result<TensorView<'_>, String> {
    let dtype = match data.dtype() {
        DType::F64 => safetensors::Dtype::F64,
        DType::F32 => safetensors::Dtype::F32,
        DType::F16 => safetensors::Dtype::F16,
        DType::BF16 => safetensors::Dtype::BF16,
        DType::I64 => safetensors::Dtype::I64,
        DType::U8 => safetensors::Dtype::U8,
        other => return Err(format!("a tensor of {other:?}")),
    };
    let shape = data.shape().iter().copied().collect();
    TensorView::new(dtype, shape, data.as_bytes()).map_err(|error| error.to_string())
}

fn refuse<T>(path: &Path, expected: &str, error: String) -> Result<T> {
    misuse(CacheMisuse::File, expected.into(), format!("{}: {error}", path.display()))
}

/// The bytes of a file whose JSON is another, sealed as if it had been written so.
#[cfg(test)]
pub(crate) fn resealed(bytes: &[u8], edit: impl FnOnce(&str) -> String) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let json = edit(&header.metadata().as_ref().unwrap()[ENTRY]);
    sealed(json, SafeTensors::deserialize(bytes).unwrap().iter().collect())
}

/// The same, where a tensor's type and shape are others, which its bytes fill as well.
#[cfg(test)]
pub(crate) fn resealed_as(
    bytes: &[u8],
    tensor: &str,
    dtype: safetensors::Dtype,
    shape: &[usize],
) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let json = header.metadata().as_ref().unwrap()[ENTRY].clone();
    let tensors = SafeTensors::deserialize(bytes).unwrap();
    let mut views: Vec<_> = tensors.iter().collect();
    let (_, view) = views.iter_mut().find(|(name, _)| *name == tensor).unwrap();
    *view = TensorView::new(dtype, shape.to_vec(), view.data()).unwrap();
    sealed(json, views)
}

#[cfg(test)]
fn sealed(json: String, mut views: Vec<(&str, TensorView)>) -> Vec<u8> {
    views.sort_by(|a, b| a.0.cmp(b.0));
    let checksum = checksum(&json, views.iter().cloned()).to_string();
    let metadata = HashMap::from([(ENTRY.into(), json), (CHECKSUM.into(), checksum)]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}
