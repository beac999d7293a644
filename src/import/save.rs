//! Module to checkpoint: the same table, the other way round.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::{ModuleSnapshot, bridge, burn_pack};

use super::arrange::to_theirs;
use super::files::show;
use super::form::Form;
use super::safetensors_file::{self, Writable};
use super::table::Table;
use crate::{Error, Result, WeightsMismatch};

/// Writes the parameters of `module` to a safetensors file, under the names of `table`, in their own
/// type.
pub fn save(module: &impl Module, table: &Table, path: &Path) -> Result<()> {
    let mut mismatch = WeightsMismatch { path: show(path), ..Default::default() };
    let mut files: BTreeMap<String, Vec<(burn_pack::Tensor, Form)>> = BTreeMap::new();
    for tensor in module.collect(None, None, true) {
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
    safetensors_file::write(path, tensors)
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
