//! A cache from what a file holds, if all parts of that agree with each other and with the model.

use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};
use safetensors::{SafeTensors, tensor::TensorView};

use super::file::{Saved, SavedRows};
use super::layout::SlotLayout;
use super::model::{CachedModel, KeyShape};
use super::rows::KnownRows;
use super::samples::Samples;
use super::store::{Room, Store};
use super::{CachePrecision, KvCache, LayerCache};
use crate::Result;
use crate::kernels::Kept;
use crate::mask::{Grid, Past};
use crate::sequence::Batch;

impl Saved {
    /// The cache. See the module for what is checked.
    pub(super) fn restore(
        self,
        tensors: &SafeTensors,
        model: &impl CachedModel,
    ) -> Result<KvCache, String> {
        self.config.init().map_err(|error| error.to_string())?;
        let empty = || KvCache {
            config: self.config.clone(),
            rows: None,
            layers: Vec::new(),
            samples: None,
            model_is_held: false,
        };
        let Some(rows) = &self.rows else { return Ok(empty()) };
        if rows.batch == 0 || rows.tokens == 0 || rows.passes == 0 || rows.tokens > MOST_TOKENS {
            return Err(format!("{} tokens in {} rows", rows.tokens, rows.batch));
        }
        let known = rows.known(tensors, model)?;
        let pasts = model.pasts(&known).map_err(|error| error.to_string())?;
        if !pasts.iter().eq(self.layers.iter().map(|(past, _)| past)) {
            return Err("layers that keep another part of the past than the model needs".into());
        }
        let (room, precision) = (self.config.room(), self.config.precision);
        precision.check(&model.device()).map_err(|error| error.to_string())?;
        let reader = LayerReader { tensors, rows, room, precision, device: model.device() };
        let memory_keys = known.memory.as_ref().map(|(states, _)| states.dims()[1]);
        let parts = model.key_parameters().zip(model.key_shapes()).zip(&self.layers).enumerate();
        let layers = parts.map(|(i, ((model, shape), &(past, layout)))| {
            let own = reader.own(i, shape, past, layout)?;
            let memory = reader.memory(i, shape, memory_keys)?;
            Ok(LayerCache { model, precision, own, memory })
        });
        let layers = layers.collect::<Result<_, String>>()?;
        Ok(KvCache {
            layers,
            rows: Some(KnownRows {
                device: model.device(),
                batch: rows.batch,
                tokens: rows.tokens,
                known,
                before: None,
                history: reader.history()?,
                passes: rows.passes,
            }),
            samples: Some(Samples::of(model)),
            model_is_held: false,
            config: self.config,
        })
    }
}

/// More than any memory holds keys of, few enough to be counted on.
const MOST_TOKENS: usize = 1 << 40;

impl SavedRows {
    /// What is known of the rows, if it is for so many of them.
    fn known(&self, tensors: &SafeTensors, model: &impl CachedModel) -> Result<Batch, String> {
        let memory = match &self.memory {
            Some(mask) => {
                let states: Tensor<3> = tensor(tensors, "memory", &model.device())?;
                let [rows, _, width] = states.dims();
                if rows != self.batch || model.memory_width() != Some(width) {
                    return Err(format!("a memory of {rows} rows, {width} wide"));
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
struct LayerReader<'a> {
    tensors: &'a SafeTensors<'a>,
    rows: &'a SavedRows,
    room: Room,
    precision: CachePrecision,
    device: Device,
}

impl LayerReader<'_> {
    fn own(
        &self,
        i: usize,
        shape: KeyShape,
        past: Past,
        layout: SlotLayout,
    ) -> Result<Store, String> {
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
    ) -> Result<Option<[Kept; 2]>, String> {
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
    ) -> Result<[Kept; 2], String> {
        let (dtype, row_len) = self.precision.in_file(dtype, head_dim);
        let read = |part: &str| {
            let name = format!("{name}.{part}");
            let view = self.tensors.tensor(&name).map_err(|error| error.to_string())?;
            let data = data(&view)?;
            let expected = Shape::from([self.rows.batch, kv_heads, keys, row_len]);
            if *data.shape() != expected || data.dtype() != dtype {
                let got = (data.shape(), data.dtype());
                return Err(format!("tensor {name} of {got:?}, not {:?}", (expected, dtype)));
            }
            Ok(Kept::of_data(data, self.precision.coding(), head_dim, &self.device))
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

fn data(view: &TensorView) -> Result<TensorData, String> {
    let dtype = match view.dtype() {
        safetensors::Dtype::F64 => DType::F64,
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        safetensors::Dtype::I64 => DType::I64,
        safetensors::Dtype::U8 => DType::U8,
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
    if data.shape().num_dims() != D || !data.dtype().is_float() {
        return Err(format!("tensor {name} of {:?} of {:?}", data.shape(), data.dtype()));
    }
    let dtype = data.dtype();
    Ok(Tensor::from_data(data, (device, dtype)))
}
