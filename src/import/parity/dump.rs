//! Cases from a file that the original's program wrote.

use std::collections::BTreeMap;
use std::path::Path;

use burn::store::{bridge, burn_pack};
use burn::tensor::{Device, Tensor, TensorData};

use super::ParityCase;
use crate::decoder::{Batch, Positions};
use crate::import::files::show;
use crate::import::safetensors_file;
use crate::mask::Mask;
use crate::{Error, Result};

/// The cases of a safetensors file whose tensors are called as the arguments of transformers'
/// models are.
///
/// | name | what | shape |
/// |---|---|---|
/// | `logits` | what the original computed | `[batch, tokens, vocab_size]` |
/// | `input_ids` | the tokens | `[batch, tokens]` |
/// | `attention_mask` | 1 for a token, 0 for padding, whose logits are not compared | `[batch, tokens]` |
/// | `position_ids` | the tokens' positions; 0, 1, 2, ... if not there | `[batch, tokens]` |
/// | `segments` | the number of each token's document, where several are packed | `[batch, tokens]` |
/// | `encoder_hidden_states` | the memory | `[batch, keys, d_model]` |
///
/// With a memory, the tokens are `decoder_input_ids` and their mask is `decoder_attention_mask`;
/// `attention_mask` is that of the memory. Several cases stand in one file if their names have the
/// case's and a dot in front (`padded.logits`); what a case does not have it shares with the one
/// without.
///
/// # Errors
///
/// [`Error::File`] if the file can't be read, holds no logits, or lacks what belongs to them.
pub fn read(path: impl AsRef<Path>, device: &Device) -> Result<Vec<ParityCase>> {
    let path = path.as_ref();
    let dump = Dump { path: show(path), tensors: safetensors_file::open(path)?.tensors };
    let cases = dump.tensors.keys().filter_map(|name| {
        let case = name.strip_suffix("logits")?;
        (case.is_empty() || case.ends_with('.')).then_some(case)
    });
    let cases: Vec<_> = cases.map(|case| dump.case(case, device)).collect::<Result<_>>()?;
    if cases.is_empty() {
        return dump.refuse("a tensor called logits, or CASE.logits", "none");
    }
    Ok(cases)
}

struct Dump {
    path: String,
    tensors: BTreeMap<String, burn_pack::Tensor>,
}

impl Dump {
    fn refuse<T>(&self, expected: impl Into<String>, got: impl Into<String>) -> Result<T> {
        Err(Error::File { path: self.path.clone(), expected: expected.into(), got: got.into() })
    }

    /// The case whose names begin with `prefix`.
    fn case(&self, prefix: &str, device: &Device) -> Result<ParityCase> {
        let find = |name: &str| self.find(prefix, name);
        let memory = find("encoder_hidden_states")?;
        let (tokens, mask) = match memory {
            Some(_) => ("decoder_input_ids", "decoder_attention_mask"),
            None => ("input_ids", "attention_mask"),
        };
        let Some(ids) = find(tokens)? else {
            return self.refuse(format!("{tokens} for {prefix}logits"), "none");
        };
        let Some(logits) = find("logits")? else {
            return self.refuse(format!("{prefix}logits"), "none");
        };
        let (ids, shape) = self.ints(tokens, ids)?;
        let name = if prefix.is_empty() { "logits" } else { prefix.trim_end_matches('.') };
        let case = ParityCase::from_flat(name.into(), ids, shape, logits)?;

        let mut input = Batch::new();
        let mut compared = vec![true; shape[0] * shape[1]];
        if let Some(visible) = find(mask)? {
            compared = visible.iter::<i64>().map(|flag| flag != 0).collect();
            input = input.with_mask(self.padding(mask, visible, device)?);
        }
        if let Some(positions) = find("position_ids")? {
            input = input.with_positions(self.positions(positions)?);
        }
        if let Some(documents) = find("segments")? {
            let (ids, shape) = self.ints("segments", documents)?;
            let ids = Tensor::from_data(TensorData::new(ids, shape), device);
            input = input.with_mask(Mask::document_ids(&ids));
        }
        if let Some(states) = memory {
            if !states.dtype().is_float() || states.shape().num_dims() != 3 {
                let got = format!("{} {:?}", states.dtype().name(), states.shape());
                return self.refuse("encoder_hidden_states of floats [batch, keys, d_model]", got);
            }
            let states = Tensor::<3>::from_data(states.convert::<f32>(), device);
            let mask = match find("attention_mask")? {
                Some(visible) => self.padding("attention_mask", visible, device)?,
                None => Mask::all_visible(),
            };
            input = input.with_memory(states, mask);
        }
        case.with_input(input).with_compared(compared)
    }

    /// The tensor of the case, or the one that all cases share.
    fn find(&self, prefix: &str, name: &str) -> Result<Option<TensorData>> {
        let own = self.tensors.get(&format!("{prefix}{name}"));
        let Some(tensor) = own.or_else(|| self.tensors.get(name)) else { return Ok(None) };
        match bridge::to_data(tensor) {
            Ok(data) => Ok(Some(data)),
            Err(error) => self.refuse(format!("{name} to be readable"), error.to_string()),
        }
    }

    /// `[batch, tokens]` of whole numbers.
    fn ints(&self, name: &str, data: TensorData) -> Result<(Vec<i64>, [usize; 2])> {
        let whole = data.dtype().is_int() || data.dtype().is_uint() || data.dtype().is_bool();
        let [batch, tokens] = data.shape()[..] else {
            return self.refuse(format!("{name} [batch, tokens]"), format!("{:?}", data.shape()));
        };
        if !whole {
            return self.refuse(format!("{name} of whole numbers"), data.dtype().name());
        }
        Ok((data.iter::<i64>().collect(), [batch, tokens]))
    }

    fn padding(&self, name: &str, visible: TensorData, device: &Device) -> Result<Mask> {
        let (flags, shape) = self.ints(name, visible)?;
        Ok(Mask::padding(&Tensor::from_data(TensorData::new(flags, shape), device), 0))
    }

    fn positions(&self, data: TensorData) -> Result<Positions> {
        let (ids, [_, tokens]) = self.ints("position_ids", data)?;
        let ids: Result<Vec<usize>, _> = ids.into_iter().map(usize::try_from).collect();
        match ids {
            Ok(ids) => {
                Ok(Positions::Listed(ids.chunks(tokens.max(1)).map(<[usize]>::to_vec).collect()))
            }
            Err(_) => self.refuse("position_ids of 0 and more", "a negative one"),
        }
    }
}
