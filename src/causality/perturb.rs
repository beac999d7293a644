//! Perturbing: runs a path of a model on changed inputs and notes what moved.

use std::cell::Cell;

use burn::tensor::{Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

use super::input::{Change, ModelInput};
use super::receptive_field::ReceptiveFields;
use super::schedule::{self, Probe, Way};
use crate::{Error, Result};

/// What a path returns: `[batch, length, width]` outputs, and weights `[batch, heads, length, length]`
/// if it returns them.
pub(super) type ModelOutput = (Tensor<3>, Option<Tensor<4>>);

/// The outputs of one pass on the host.
#[derive(Clone)]
pub(super) struct Outputs {
    pub width: usize,
    /// `[batch, length, width]`, as wide as any float of the model, so that no difference is lost.
    pub values: Vec<f64>,
    /// `[batch, heads, length, length]`
    pub weights: Option<Vec<f64>>,
}

/// What moved when some positions of a row were changed.
#[derive(Clone)]
pub(super) struct Observation {
    pub way: Way,
    /// The changed positions, `(row, key)`.
    pub changed: Vec<(usize, usize)>,
    /// The row looked at.
    pub row: usize,
    /// Largest finite move of each query's output.
    pub moves: Vec<f32>,
    /// The round, and the changed inputs: to narrow the change down later.
    pub round: usize,
    pub pass: usize,
}

/// Runs one path of the model on inputs kept on the host.
pub(super) struct PathRunner<'a, I: ModelInput> {
    pub run: &'a dyn Fn(I) -> ModelOutput,
    pub device: &'a Device,
    pub promise: &'a ReceptiveFields,
    /// Vocabulary or width.
    pub size: usize,
    pub seed: u64,
    pub passes_run: Cell<usize>,
    /// The last axis of the outputs, once there were some.
    pub width: Cell<Option<usize>>,
    pub progress: &'a dyn Fn(),
}

impl<I: ModelInput> PathRunner<'_, I> {
    /// The unchanged inputs of a round.
    pub fn base(&self, round: usize) -> Vec<I::Value> {
        let mut rng = self.rng(round, 0);
        let positions = self.promise.batch() * self.promise.length();
        (0..positions).flat_map(|_| I::draw(self.size, &mut rng)).collect()
    }

    /// `base` with the positions `(row, key)` changed; the same change for the same `pass`.
    pub fn changed(
        &self,
        base: &[I::Value],
        positions: &[(usize, usize)],
        change: Change,
        pass: usize,
    ) -> Vec<I::Value> {
        let mut values = base.to_vec();
        let numbers = I::numbers(self.size);
        for &(row, key) in positions {
            // A generator for each position, so that a part of a change equals that part.
            let place = row * self.promise.length() + key;
            let mut rng = self.rng(pass + 1, place + 1);
            let slot = &mut values[place * numbers..][..numbers];
            let new = I::change(change, slot, self.size, &mut rng);
            slot.copy_from_slice(&new);
        }
        values
    }

    fn rng(&self, pass: usize, place: usize) -> StdRng {
        // Any mixture that keeps the three apart will do.
        let mixed = self.seed ^ ((pass as u64) << 40) ^ ((place as u64) << 4);
        StdRng::seed_from_u64(mixed)
    }

    pub fn input(&self, values: Vec<I::Value>) -> I {
        I::tensor(values, self.promise.batch(), self.promise.length(), self.size, self.device)
    }

    /// One forward pass.
    pub fn outputs(&self, values: Vec<I::Value>) -> Result<Outputs> {
        let (output, weights) = (self.run)(self.input(values));
        self.count_pass();
        let width = self.width_of(&output)?;
        let weights = match weights {
            Some(weights) => Some(self.host_weights(weights)?),
            None => None,
        };
        Ok(Outputs { width, values: to_host(output), weights })
    }

    pub fn count_pass(&self) {
        self.passes_run.set(self.passes_run.get() + 1);
        (self.progress)();
    }

    /// The last axis of an output whose other axes are as promised.
    pub fn width_of(&self, output: &Tensor<3>) -> Result<usize> {
        let (batch, length) = (self.promise.batch(), self.promise.length());
        match output.dims() {
            [b, l, width] if b == batch && l == length && self.is_width(width) => Ok(width),
            got => {
                let width = self.width.get().map_or("width".into(), |width| width.to_string());
                Err(Error::ModelOutput {
                    output: "the model's output",
                    expected: format!("the shape [{batch}, {length}, {width}]"),
                    got: format!("{got:?}"),
                })
            }
        }
    }

    /// All outputs of a path are of one width.
    fn is_width(&self, width: usize) -> bool {
        let known = self.width.get().unwrap_or(width);
        self.width.set(Some(known));
        known == width
    }

    fn host_weights(&self, weights: Tensor<4>) -> Result<Vec<f64>> {
        let (batch, length) = (self.promise.batch(), self.promise.length());
        match weights.dims() {
            [b, _, q, k] if b == batch && q == length && k == length => Ok(to_host(weights)),
            got => Err(Error::ModelOutput {
                output: "the returned attention weights",
                expected: format!("the shape [{batch}, heads, {length}, {length}]"),
                got: format!("{got:?}"),
            }),
        }
    }

    /// How far `new` lies from `old` at each query of a row: the largest finite move, and whether
    /// anything finite became infinite or NaN.
    pub fn moves(&self, old: &Outputs, new: &Outputs, row: usize) -> Vec<(f32, bool)> {
        let length = self.promise.length();
        (0..length)
            .map(|query| {
                let at = (row * length + query) * old.width..(row * length + query + 1) * old.width;
                largest_move(&old.values[at.clone()], &new.values[at])
            })
            .collect()
    }

    /// The smallest part of a change that still moves the query: halves it as long as that works.
    pub fn narrow(
        &self,
        base: &[I::Value],
        old: &Outputs,
        seen: &Observation,
        query: usize,
        tolerance: f32,
    ) -> Result<(usize, usize)> {
        let change = match seen.way {
            Way::HiddenExtreme => Change::Extreme,
            _ => Change::Random,
        };
        let moves = |part: &[(usize, usize)]| -> Result<bool> {
            let new = self.outputs(self.changed(base, part, change, seen.pass))?;
            Ok(self.moves(old, &new, seen.row)[query].0 > tolerance)
        };
        let mut left = &seen.changed[..];
        while left.len() > 1 {
            let (first, second) = left.split_at(left.len() / 2);
            left = if moves(first)? {
                first
            } else if moves(second)? {
                second
            } else {
                break;
            };
        }
        Ok(left[0])
    }

    /// Changes the positions of the probes and notes what moved.
    pub fn observe(
        &self,
        base: &[I::Value],
        old: &Outputs,
        probes: &[Probe],
        round: usize,
    ) -> Result<Vec<(Observation, Vec<bool>)>> {
        let pass = self.passes_run.get();
        let mut values = base.to_vec();
        for probe in probes {
            let positions: Vec<_> = probe.keys.iter().map(|&key| (probe.row, key)).collect();
            values = self.changed(&values, &positions, probe.change, pass);
        }
        let new = self.outputs(values)?;
        let observation = |probe: &Probe| {
            let (moves, poisoned) = self.moves(old, &new, probe.row).into_iter().unzip();
            let changed = probe.keys.iter().map(|&key| (probe.row, key)).collect();
            (Observation { way: probe.way, changed, row: probe.row, moves, round, pass }, poisoned)
        };
        Ok(probes.iter().map(observation).collect())
    }

    /// Changes whole rows and notes what moved in the others, and what became infinite or NaN there.
    pub fn observe_rows(
        &self,
        base: &[I::Value],
        old: &Outputs,
    ) -> Result<Vec<(Observation, Vec<bool>)>> {
        let (batch, length) = (self.promise.batch(), self.promise.length());
        let mut seen = Vec::new();
        for group in schedule::row_groups(batch) {
            let pass = self.passes_run.get();
            let changed: Vec<_> =
                group.iter().flat_map(|&row| (0..length).map(move |key| (row, key))).collect();
            let new = self.outputs(self.changed(base, &changed, Change::Random, pass))?;
            for row in (0..batch).filter(|row| !group.contains(row)) {
                let (moves, poisoned) = self.moves(old, &new, row).into_iter().unzip();
                let (way, changed) = (Way::OtherRows, changed.clone());
                seen.push((Observation { way, changed, row, moves, round: 0, pass }, poisoned));
            }
        }
        Ok(seen)
    }
}

impl Outputs {
    /// The first row and query with an output that is not finite.
    pub fn first_not_finite(&self, length: usize) -> Option<(usize, usize)> {
        let at = self.values.iter().position(|x| !x.is_finite())? / self.width;
        Some((at / length, at % length))
    }
}

/// All elements, row-major.
pub(super) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert::<f64>();
    data.try_to_vec().expect("the data was converted to f64")
}

/// A size as `f32`, finite if it was, and 0 only if it was.
pub(super) fn size_of(x: f64) -> f32 {
    match x.abs() as f32 {
        0.0 if x != 0.0 => f32::from_bits(1),
        size if x.is_finite() => size.min(f32::MAX),
        size => size,
    }
}

/// Largest finite difference, and whether something finite became infinite or NaN.
pub(super) fn largest_move(old: &[f64], new: &[f64]) -> (f32, bool) {
    let mut largest = 0f64;
    let mut poisoned = false;
    for (&old, &new) in old.iter().zip(new) {
        if old == new || !old.is_finite() {
            continue;
        }
        match new.is_finite() {
            true => largest = largest.max((new - old).abs()),
            false => poisoned = true,
        }
    }
    (size_of(largest.min(f64::MAX)), poisoned)
}
