//! Checkpoint to module, through Burn's store.
//!
//! Everything is compared before anything is read: names, shapes, types. Then the module is walked
//! once; each parameter is read, put in order, converted and handed to the device before the next
//! one. A fresh module's parameters take no memory before that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::store::{Applier, bridge, burn_pack};
use burn::tensor::Shape;

use super::arrange::{is_weight, to_ours};
use super::form::Form;
use super::hints::hints;
use super::keep::Keeping;
use super::options::{Listener, LoadOptions, Progress};
use super::parameters::{Parameter, parameters};
use super::source::TensorSource;
use super::table::Table;
use crate::{Error, Result, WeightsMismatch, WrongShape};

/// `module` with all its parameters from `source`, and the table as this checkpoint uses it.
pub fn load<M: Module>(
    module: M,
    source: &TensorSource,
    table: Table,
    options: LoadOptions,
) -> Result<(M, Table)> {
    let LoadOptions { precision, place, listener, prefix, ignored, .. } = options;
    let parameters = parameters(&module);
    if let Some(parameter) = parameters.first() {
        precision.check(&parameter.device)?;
    }
    let is_ignored = |name: &str| ignored.iter().any(|ignored| name.starts_with(ignored));
    let all: BTreeSet<&str> = source.names().filter(|name| !is_ignored(name)).collect();
    let unfitted = table.clone();
    let table = table.inside(&prefix).fitted_to(&all);
    // What is behind the prefix, and what of the model stands outside.
    let wanted: BTreeSet<String> =
        parameters.iter().filter_map(|p| table.find(&p.path)).map(|(name, _)| name).collect();
    let looked_at = |name: &&str| name.starts_with(&prefix) || wanted.contains(*name);
    let names = all.iter().copied().filter(looked_at).collect();
    let plan = plan(source, &table, &names, parameters).map_err(|unfit| {
        let Unfit { mut mismatch, missing, used } = *unfit;
        mismatch.hints = hints(&all, &unfitted, &mismatch, &missing, &used, &prefix);
        Error::Weights(Box::new(mismatch))
    })?;

    let reading = Listening::new(&plan, listener);
    let mut keeping = Keeping::new(place, &reading);
    let mut read = Vec::new();
    for planned in plan {
        match source.stored.get(&planned.tensor.name).filter(|_| precision.keeps()) {
            Some(matrix) if keeping.takes(&planned, matrix) => {}
            _ => read.push(planned),
        }
    }
    let (module, error) = keeping.apply(module);
    if let Some(got) = error {
        let expected = "tensors that can be read".into();
        return Err(Error::File { path: source.path.clone(), expected, got });
    }
    let tensors = read.into_iter().map(|Planned { parameter, tensor, form, bytes }| {
        let Parameter { path, shape, device } = parameter;
        let dtype = precision.dtype(tensor.dtype, &device);
        let reading = reading.clone();
        bridge::deferred(path, dtype, Shape::from(shape.clone()), None, move || {
            let data = bridge::to_data(&tensor).map_err(|error| {
                // By their name: Burn's store knows ours alone.
                burn_pack::Error::IoError(format!("{}: {error}", tensor.name))
            })?;
            let data = to_ours(data, form, &shape, dtype);
            reading.tell(bytes);
            Ok(data)
        })
    });
    let mut applier = Applier::new(tensors.collect(), None, None, true);
    let module = module.map(&mut applier);
    match applier.into_result().errors.first() {
        None => Ok((module, table)),
        Some(error) => Err(Error::File {
            path: source.path.clone(),
            expected: "tensors that can be read".into(),
            got: error.to_string(),
        }),
    }
}

/// A parameter and where it comes from.
pub struct Planned {
    pub parameter: Parameter,
    pub tensor: burn_pack::Tensor,
    pub form: Form,
    /// Its bytes in the checkpoint.
    pub bytes: usize,
}

/// A checkpoint that is not the model's, with what hints are made from.
struct Unfit {
    mismatch: WeightsMismatch,
    /// The parameters that nothing was found for.
    missing: Vec<String>,
    /// The tensors that are some parameter's.
    used: BTreeSet<String>,
}

/// Where each parameter comes from, once everything fits.
fn plan(
    source: &TensorSource,
    table: &Table,
    names: &BTreeSet<&str>,
    parameters: Vec<Parameter>,
) -> Result<Vec<Planned>, Box<Unfit>> {
    let mut mismatch = WeightsMismatch { path: source.path.clone(), ..Default::default() };
    let (mut used, mut plan): (BTreeSet<String>, Vec<Planned>) = Default::default();
    // Of each tensor that several parameters fill, how many were not asked for.
    let mut parts_left: BTreeMap<String, usize> = BTreeMap::new();
    let (mut missing, mut missing_paths) = (BTreeSet::new(), Vec::new());
    let (mut wrong_shape, mut wrong_type) = (BTreeMap::new(), BTreeMap::new());
    for parameter in parameters {
        let Some((name, form)) = table.find(&parameter.path) else {
            mismatch.nameless.push(parameter.path);
            continue;
        };
        let is_there = names.contains(name.as_str());
        if let Some(got) = source.foreign.get(&name).filter(|_| is_there) {
            wrong_type.insert(name.clone(), got.clone());
            used.insert(name);
            continue;
        }
        let Some(tensor) = source.tensors.get(&name).filter(|_| is_there) else {
            missing.insert(name);
            missing_paths.push(parameter.path);
            continue;
        };
        let expected = form.their_shape(&parameter.shape);
        let got = tensor.shape.to_vec();
        if !is_weight(tensor.dtype) {
            wrong_type.insert(name.clone(), tensor.dtype.name().into());
        } else if expected != got {
            wrong_shape.insert(name.clone(), WrongShape { name: name.clone(), expected, got });
        } else {
            let bytes = source.bytes_of(tensor) / form.parts();
            plan.push(Planned { parameter, tensor: tensor.clone(), form, bytes });
            let left = parts_left.entry(name.clone()).or_insert(form.parts());
            *left = left.saturating_sub(1);
        }
        used.insert(name);
    }
    mismatch.missing.extend(missing);
    mismatch.wrong_shape.extend(wrong_shape.into_values());
    mismatch.wrong_type.extend(wrong_type);
    let copies: Vec<_> = table
        .copies()
        .iter()
        .flat_map(|copies| copies.names.iter().map(|name| (name, &copies.of)))
        .filter(|(name, of)| names.contains(name.as_str()) && used.contains(of.as_str()))
        .collect();
    for (name, of) in &copies {
        if !same_values(source, name, of) {
            mismatch.not_copies.push((name.to_string(), of.to_string()));
        }
        used.insert(name.to_string());
    }
    let unused = names.iter().filter(|&&name| !used.contains(name) && !table.skips(name));
    mismatch.unused.extend(unused.map(|&name| name.to_string()));
    // A projection without a bias beside one that has one.
    let partly = parts_left.into_iter().filter(|(_, left)| *left > 0);
    mismatch.unused.extend(partly.map(|(name, _)| format!("{name}, of which a part")));
    if mismatch.is_empty() {
        return Ok(plan);
    }
    Err(Box::new(Unfit { mismatch, missing: missing_paths, used }))
}

/// Whether two tensors hold the same, bit for bit. One that can't be read holds nothing.
fn same_values(source: &TensorSource, a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (source.tensors.get(a), source.tensors.get(b)) else { return false };
    a.shape == b.shape
        && a.dtype == b.dtype
        && matches!((a.to_bytes(), b.to_bytes()), (Ok(a), Ok(b)) if a[..] == b[..])
}

/// What was read so far, told to the listener.
#[derive(Clone)]
pub struct Listening(Option<Arc<Mutex<(Progress, Listener)>>>);

impl Listening {
    fn new(plan: &[Planned], listener: Option<Listener>) -> Self {
        let bytes = plan.iter().map(|planned| planned.bytes as u64).sum();
        let start =
            Progress { parameters: 0, of_parameters: plan.len(), bytes: 0, of_bytes: bytes };
        Self(listener.map(|listener| Arc::new(Mutex::new((start, listener)))))
    }

    pub fn tell(&self, bytes: usize) {
        if let Some(reading) = &self.0 {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            let (progress, listener) = &mut *reading;
            progress.parameters += 1;
            progress.bytes += bytes as u64;
            listener(*progress);
        }
    }
}
