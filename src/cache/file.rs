//! A cache in a file: tensors under their names in the safetensors format, the rest beside them.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::model::{CachedModel, KeyShape};
use super::rows::Rows;
use super::samples::Samples;
use super::store::{Room, Store};
use super::{CacheConfig, KvCache, LayerCache, misuse};
use crate::error::CacheMisuse;
use crate::hash::Hash;
use crate::mask::{Grid, Mask, Past};
use crate::sequence::{Batch, Positions};
use crate::{Result, file};

/// The entry of the file's metadata that holds [`Saved`], as JSON.
const ENTRY: &str = "burn_decoder_cache";
/// The entry that holds the [`checksum`] of all else.
const CHECKSUM: &str = "checksum";

/// All of a cache but its tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: CacheConfig,
    /// Of the model that filled it.
    fingerprint: u64,
    rows: Option<SavedRows>,
    layers: Vec<(Past, Layout)>,
}

#[derive(Serialize, Deserialize)]
struct SavedRows {
    batch: usize,
    tokens: usize,
    mask: Option<Mask>,
    positions: Positions,
    memory: Option<Mask>,
    passes: usize,
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
            file::replace(path, |unfinished| {
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

impl Saved {
    /// The cache, if all parts of the file agree with each other and with the model.
    fn restore(self, tensors: &SafeTensors, model: &impl CachedModel) -> Result<KvCache, String> {
        self.config.init().map_err(|error| error.to_string())?;
        let empty = || KvCache {
            config: self.config.clone(),
            rows: None,
            layers: Vec::new(),
            samples: None,
        };
        let Some(rows) = &self.rows else { return Ok(empty()) };
        if rows.batch == 0 || rows.tokens == 0 || rows.passes == 0 || rows.tokens > MOST_TOKENS {
            return Err(format!("{} tokens in {} rows", rows.tokens, rows.batch));
        }
        let known = rows.known(tensors, &model.device())?;
        let pasts = model.pasts(&known).map_err(|error| error.to_string())?;
        if !pasts.iter().eq(self.layers.iter().map(|(past, _)| past)) {
            return Err("layers that keep another part of the past than the model needs".into());
        }
        let reader = Reader { tensors, rows, room: self.config.room(), device: model.device() };
        let memory_keys = known.memory.as_ref().map(|(states, _)| states.dims()[1]);
        let parts = model.key_parameters().zip(model.key_shapes()).zip(&self.layers).enumerate();
        let layers = parts.map(|(i, ((model, shape), &(past, layout)))| {
            let own = reader.own(i, shape, past, layout)?;
            Ok(LayerCache { model, own, memory: reader.memory(i, shape, memory_keys)? })
        });
        let layers = layers.collect::<Result<_, String>>()?;
        Ok(KvCache {
            layers,
            rows: Some(Rows {
                device: model.device(),
                batch: rows.batch,
                tokens: rows.tokens,
                known,
                before: None,
                history: reader.history()?,
                passes: rows.passes,
            }),
            samples: Some(Samples::of(model)),
            config: self.config,
        })
    }
}

/// More than any memory holds keys of, few enough to be counted on.
const MOST_TOKENS: usize = 1 << 40;

impl SavedRows {
    /// What is known of the rows, if it is for so many of them.
    fn known(&self, tensors: &SafeTensors, device: &Device) -> Result<Batch, String> {
        let memory = match &self.memory {
            Some(mask) => {
                let states: Tensor<3> = tensor(tensors, "memory", device)?;
                if states.dims()[0] != self.batch {
                    return Err(format!("a memory of {} rows", states.dims()[0]));
                }
                Some((states, mask.clone()))
            }
            None => None,
        };
        let known = Batch { mask: self.mask.clone(), positions: self.positions.clone(), memory };
        // What the last pass was told fits so many rows and tokens.
        let last = self.tokens - 1;
        let fits = || -> Result<()> {
            known.positions.ids(self.batch, last, 1)?;
            if let Some(mask) = &known.mask {
                mask.up_to(self.tokens).lower(&Grid::bottom_right(self.batch, 1, self.tokens))?;
            }
            known.memory_mask([self.batch, 1], last)?;
            Ok(())
        };
        fits().map_err(|error| error.to_string())?;
        Ok(known)
    }
}

/// Reads what the layers keep.
struct Reader<'a> {
    tensors: &'a SafeTensors<'a>,
    rows: &'a SavedRows,
    room: Room,
    device: Device,
}

impl Reader<'_> {
    fn own(&self, i: usize, shape: KeyShape, past: Past, layout: Layout) -> Result<Store, String> {
        if !layout.is_of(past, self.rows.tokens) {
            return Err(format!(
                "layer {i} in a state that {} tokens don't lead to",
                self.rows.tokens
            ));
        }
        let pair = self.pair(&format!("layers.{i}.own"), shape.own, layout.used(), shape.dtype)?;
        Ok(Store::from_parts(past, self.room, layout, Some(pair)))
    }

    fn memory(
        &self,
        i: usize,
        shape: KeyShape,
        keys: Option<usize>,
    ) -> Result<Option<[Tensor<4>; 2]>, String> {
        let name = format!("layers.{i}.memory");
        match (shape.memory, keys) {
            (Some(sizes), Some(keys)) => self.pair(&name, sizes, keys, shape.dtype).map(Some),
            (None, _) => Ok(None),
            (Some(_), None) => Err(format!("no {name}")),
        }
    }

    /// Keys and values of this shape.
    fn pair(
        &self,
        name: &str,
        [kv_heads, head_dim]: [usize; 2],
        keys: usize,
        dtype: DType,
    ) -> Result<[Tensor<4>; 2], String> {
        let read = |part: &str| {
            let name = format!("{name}.{part}");
            let tensor: Tensor<4> = tensor(self.tensors, &name, &self.device)?;
            let expected = [self.rows.batch, kv_heads, keys, head_dim];
            if tensor.dims() != expected || tensor.dtype() != dtype {
                let got = (tensor.dims(), tensor.dtype());
                return Err(format!("tensor {name} of {got:?}, not {:?}", (expected, dtype)));
            }
            Ok(tensor)
        };
        Ok([read("key")?, read("value")?])
    }

    /// The tokens, if they were kept for checks.
    fn history(&self) -> Result<Option<Tensor<2, Int>>, String> {
        let Ok(view) = self.tensors.tensor("tokens") else { return Ok(None) };
        let data = data(&view)?;
        let expected = [self.rows.batch, self.rows.tokens];
        if data.dtype() != DType::I64 || data.shape().iter().ne(&expected) {
            return Err(format!("tokens of {:?}, not {expected:?}", data.shape()));
        }
        Ok(Some(Tensor::from_data(data, &self.device)))
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
    let saved = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok((saved, tensors))
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
        other => return Err(format!("a tensor of {other:?}")),
    };
    let shape = data.shape().iter().copied().collect();
    TensorView::new(dtype, shape, data.as_bytes()).map_err(|error| error.to_string())
}

fn data(view: &TensorView) -> Result<TensorData, String> {
    let dtype = match view.dtype() {
        safetensors::Dtype::F64 => DType::F64,
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        safetensors::Dtype::I64 => DType::I64,
        other => return Err(format!("a tensor of {other:?}")),
    };
    Ok(TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), dtype))
}

fn tensor<const D: usize>(
    tensors: &SafeTensors,
    name: &str,
    device: &Device,
) -> Result<Tensor<D>, String> {
    let view = tensors.tensor(name).map_err(|error| error.to_string())?;
    let data = data(&view)?;
    if data.shape().num_dims() != D || data.dtype() == DType::I64 {
        return Err(format!("tensor {name} of {:?} of {:?}", data.shape(), data.dtype()));
    }
    let dtype = data.dtype();
    Ok(Tensor::from_data(data, (device, dtype)))
}

fn refuse<T>(path: &Path, expected: &str, error: String) -> Result<T> {
    misuse(CacheMisuse::File, expected.into(), format!("{}: {error}", path.display()))
}
