//! Module to checkpoint: the same table, the other way round.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleSnapshot, bridge, burn_pack};
use burn::tensor::{DType, TensorData};

use super::arrange::{to_ours, to_theirs};
use super::files::show;
use super::form::Form;
use super::safetensors_file::{self, Writable};
use super::table::Table;
use crate::file::Links;
use crate::{Error, Result, WeightsMismatch};

/// Writes the parameters of `module` to a safetensors file, under the names of `table`, in their own
/// type.
pub fn save(module: &impl Module, table: &Table, path: &Path, links: Links) -> Result<()> {
    let mut mismatch = WeightsMismatch { path: show(path), ..Default::default() };
    let mut files: BTreeMap<String, Vec<(burn_pack::Tensor, Form)>> = BTreeMap::new();
    for tensor in in_numbers(module.collect(None, None, true), path)? {
        match table.find(&tensor.name) {
            Some((name, form)) => files.entry(name).or_default().push((tensor, form)),
            None => mismatch.nameless.push(tensor.name),
        }
    }
    for (name, parts) in &files {
        // A projection without a bias beside one that has one.
        if parts.len() != parts[0].1.parts() {
            mismatch.missing.push(format!("{name}, of which there is only a part"));
        }
    }
    if !mismatch.is_empty() {
        return Err(Error::Weights(Box::new(mismatch)));
    }
    let tensors = files.into_iter().map(|(name, parts)| (name, writable(parts))).collect();
    safetensors_file::write(path, links, tensors)
}

/// What the table names of what `collected` holds: matrices in half precision as such, where they
/// stand in blocks.
fn in_numbers(collected: Vec<burn_pack::Tensor>, path: &Path) -> Result<Vec<burn_pack::Tensor>> {
    /// What stands before the name of a format.
    const BLOCKS: &str = ".blocks.";
    let mut tensors: BTreeMap<String, burn_pack::Tensor> = BTreeMap::new();
    let mut blocks = Vec::new();
    for tensor in collected {
        match tensor.name.split_once(BLOCKS) {
            Some((_, "delta")) => {}
            Some((owner, format)) if !format.contains('.') => {
                blocks.push((owner.to_string(), format.to_string(), tensor));
            }
            _ => drop(tensors.insert(tensor.name.clone(), tensor)),
        }
    }
    for (owner, format, bytes) in blocks {
        let dtype = match format.as_str() {
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            "F32" => DType::F32,
            _ => {
                return Err(Error::File {
                    path: show(path),
                    expected: "weights in whole or half precision, which this file can hold; load \
                               them with Precision::F32"
                        .into(),
                    got: format!("{owner} in {format}"),
                });
            }
        };
        let [rows, columns] = [bytes.shape[0], bytes.shape[1] / dtype.size()];
        // Each row is an output, or a token of an embedding, which lies here as it does there.
        let is_table = owner.ends_with("embedding.weight");
        let shape = if is_table { [rows, columns] } else { [columns, rows] };
        let numbers = move || {
            let data = bridge::to_data(&bytes)?;
            let (bytes, ..) = data.into_parts();
            let theirs = TensorData::from_bytes(bytes, [rows, columns], dtype);
            let form = if is_table { Form::Same } else { Form::Transposed };
            Ok(to_ours(theirs, form, &shape, dtype))
        };
        let tensor = bridge::deferred(owner.clone(), dtype, shape.into(), None, numbers);
        tensors.insert(owner, tensor);
    }
    Ok(tensors.into_values().collect())
}

/// The tensor that `parts` fill.
fn writable(parts: Vec<(burn_pack::Tensor, Form)>) -> Writable<'static> {
    let (first, form) = &parts[0];
    let (dtype, shape) = (first.dtype, form.their_shape(&first.shape));
    let wanted = shape.clone();
    let values = move || {
        let read = |(tensor, form): &(burn_pack::Tensor, Form)| {
            let data = bridge::to_data(tensor).map_err(|error| error.to_string())?;
            Ok((data, *form))
        };
        let parts = parts.iter().map(read).collect::<Result<_, String>>()?;
        Ok(to_theirs(parts, &wanted, dtype))
    };
    Writable { dtype, shape, values: Box::new(values) }
}
