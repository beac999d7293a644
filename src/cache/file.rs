//! A cache in a file: tensors under their names in the safetensors format, the rest beside them.

use std::collections::HashMap;
use std::path::Path;

use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::store::{Room, Store};
use super::{CacheConfig, KvCache, LayerCache, Rows, misuse};
use crate::Result;
use crate::decoder::{LanguageModel, Positions};
use crate::error::CacheMisuse;
use crate::mask::{Mask, Past};

/// The entry of the file's metadata that holds [`Saved`], as JSON.
const ENTRY: &str = "burn_decoder_cache";

/// All of a cache but its tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: CacheConfig,
    /// One for each layer: of the parameters that made its keys.
    fingerprints: Vec<u64>,
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
    /// Writes the cache to a file in the safetensors format.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if it belongs to another model than `model`, or if the
    /// file can't be written.
    pub fn save(&self, path: impl AsRef<Path>, model: &LanguageModel) -> Result<()> {
        self.check_model(model)?;
        let rows = self.rows.as_ref();
        let saved = Saved {
            config: self.config.clone(),
            fingerprints: fingerprints(model),
            rows: rows.map(|rows| SavedRows {
                batch: rows.batch,
                tokens: rows.tokens,
                mask: rows.mask.clone(),
                positions: rows.positions.clone(),
                memory: rows.memory.as_ref().map(|(_, mask)| mask.clone()),
                passes: rows.passes,
            }),
            layers: self
                .layers
                .iter()
                .map(|layer| (layer.own.past(), layer.own.layout()))
                .collect(),
        };
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
        if let Some((states, _)) = rows.and_then(|rows| rows.memory.as_ref()) {
            keep("memory".into(), states.to_data());
        }
        if let Some(history) = rows.and_then(|rows| rows.history.as_ref()) {
            keep("tokens".into(), history.to_data().convert::<i64>());
        }

        let json = serde_json::to_string(&saved).map_err(|error| error.to_string());
        let written = json.and_then(|json| {
            let views: Vec<_> = tensors
                .iter()
                .map(|(name, data)| Ok((name, view(data)?)))
                .collect::<Result<_, String>>()?;
            let metadata = HashMap::from([(ENTRY.to_string(), json)]);
            safetensors::serialize_to_file(views, Some(metadata), path.as_ref())
                .map_err(|error| error.to_string())
        });
        written.or_else(|error| refuse(path.as_ref(), "a file that can be written", error))
    }

    /// Reads a cache that [`save`](Self::save) wrote, to go on with `model` on its device.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if the file can't be read or holds no cache, or if it
    /// was made with other parameters than those of `model`.
    pub fn load(path: impl AsRef<Path>, model: &LanguageModel) -> Result<Self> {
        let path = path.as_ref();
        let expected = "a cache that KvCache::save wrote";
        let read = std::fs::read(path).map_err(|error| error.to_string());
        let parsed = read.as_ref().map_err(Clone::clone).and_then(|bytes| parse(bytes));
        let (saved, tensors) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return refuse(path, expected, error),
        };
        let layers: Vec<ParamId> = model.key_parameters().collect();
        if saved.fingerprints != fingerprints(model) || saved.layers.len() > layers.len() {
            return misuse(
                CacheMisuse::Model,
                "the model that the saved cache was filled with".into(),
                "one with other parameters".into(),
            );
        }
        let device = model.embedding.weight.device();
        match saved.restore(&tensors, &layers, &device) {
            Ok(cache) => Ok(cache),
            Err(error) => refuse(path, expected, error),
        }
    }
}

impl Saved {
    fn restore(
        self,
        tensors: &SafeTensors,
        layers: &[ParamId],
        device: &Device,
    ) -> Result<KvCache, String> {
        let room = Room { capacity: self.config.capacity, limit: self.config.limit };
        let pair = |name: String| -> Result<Option<[Tensor<4>; 2]>, String> {
            let key = format!("{name}.key");
            if tensors.tensor(&key).is_err() {
                return Ok(None);
            }
            let value = format!("{name}.value");
            Ok(Some([tensor(tensors, &key, device)?, tensor(tensors, &value, device)?]))
        };
        let layer = |(i, (&model, (past, layout))): (usize, (&_, &(Past, Layout)))| {
            let own = pair(format!("layers.{i}.own"))?;
            let used = own.as_ref().map_or(0, |own| own[0].dims()[2]);
            if used != layout.used() {
                return Err(format!("layer {i} with {used} tokens, not {}", layout.used()));
            }
            Ok(LayerCache {
                model,
                own: Store::from_parts(*past, room, *layout, own),
                memory: pair(format!("layers.{i}.memory"))?,
            })
        };
        let pairs = layers.iter().zip(&self.layers).enumerate();
        let layers = pairs.map(layer).collect::<Result<_, String>>()?;
        let rows = self.rows.map(|rows| -> Result<Rows, String> {
            let memory = match rows.memory {
                Some(mask) => Some((tensor(tensors, "memory", device)?, mask)),
                None => None,
            };
            let history = match tensors.tensor("tokens") {
                Ok(view) => Some(Tensor::from_data(data(&view)?, device)),
                Err(_) => None,
            };
            Ok(Rows {
                device: device.clone(),
                batch: rows.batch,
                tokens: rows.tokens,
                mask: rows.mask,
                positions: rows.positions,
                memory,
                history,
                passes: rows.passes,
            })
        });
        Ok(KvCache { config: self.config, rows: rows.transpose()?, layers })
    }
}

fn parse(bytes: &[u8]) -> Result<(Saved, SafeTensors<'_>), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let json = header.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
    let json = json.ok_or("another safetensors file")?;
    let saved = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    Ok((saved, tensors))
}

/// A number for each layer that changes with the parameters that make its keys (FNV-1a).
fn fingerprints(model: &LanguageModel) -> Vec<u64> {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let layer = |layer: &crate::decoder::DecoderLayer| {
        let weight = layer.self_attention.key.weight.val().into_data();
        weight.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash)
    };
    model.decoder.layers.iter().map(layer).collect()
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
    if data.shape().num_dims() != D {
        return Err(format!("tensor {name} of rank {}, not {D}", data.shape().num_dims()));
    }
    let dtype = data.dtype();
    Ok(Tensor::from_data(data, (device, dtype)))
}

fn refuse<T>(path: &Path, expected: &str, error: String) -> Result<T> {
    misuse(CacheMisuse::File, expected.into(), format!("{}: {error}", path.display()))
}
