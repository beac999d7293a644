//! Probes of the trained model: is there any way for information to reach a place that must not
//! have it?
//!
//! Each probe compares what must not differ, or looks at a gradient that must be 0, and tells the
//! largest leak that it found. On a CPU equal inputs give bit-identical outputs, so that not the
//! smallest leak is let through.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use serde::Serialize;

use super::batch::{Batch, Rows};
use super::failure::Failure;
use super::logits::{Logits, distance};
use super::model::CopyModel;
use super::task::{Sample, Task};

/// Strings that are looked at for leaks from the future, one after the other.
const STRINGS: usize = 3;
/// Rows of the batch that is looked at for leaks from padding and between rows.
const ROWS: usize = 16;
/// Where a difference is allowed, for rounding: this share of the largest logit.
const ROUNDING: f64 = 1e-5;

/// What one probe found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub probe: &'static str,
    /// The largest leak, and how much of it may be rounding.
    pub largest: f64,
    pub allowed: f64,
    /// The first query that was reached, and the first key that reached it.
    pub first: Option<Leak>,
}

/// A query that is moved by a key that it must not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Leak {
    pub query: usize,
    pub key: usize,
}

impl Finding {
    pub fn new(probe: &'static str, allowed: f64) -> Self {
        Self { probe, largest: 0.0, allowed, first: None }
    }

    pub fn holds(&self) -> bool {
        self.largest <= self.allowed
    }

    /// Takes note of a difference that should be 0. A NaN is as large as can be.
    fn note(&mut self, difference: f64, leak: Leak) {
        let difference = if difference.is_nan() { f64::INFINITY } else { difference.abs() };
        self.largest = self.largest.max(difference);
        if difference > self.allowed {
            self.first = Some(self.first.map_or(leak, |first| first.min(leak)));
        }
    }
}

/// Runs all probes.
pub fn probe(
    model: &CopyModel,
    task: &mut Task,
    device: &Device,
    exact: bool,
) -> Result<Vec<Finding>, Failure> {
    let mut longest: Vec<Sample> = task.unseen().to_vec();
    longest.sort_by_key(|sample| std::cmp::Reverse(sample.source.len()));
    let mixed: Vec<Sample> = task.unseen().iter().take(ROWS).cloned().collect();
    let probes = Probes { model, device, exact };

    let mut changed = Finding::new("future changed", 0.0);
    let mut gradient = Finding::new("gradient to the future", 0.0);
    for sample in longest.iter().take(STRINGS) {
        probes.change_future(sample, task, &mut changed)?;
        probes.gradient_to_future(sample, task, &mut gradient)?;
    }
    let batch = Batch::new(&mixed, task, device);
    Ok(vec![
        changed,
        gradient,
        probes.change_padding(&batch, task)?,
        probes.row_alone(&batch, &mixed, task)?,
    ])
}

struct Probes<'a> {
    model: &'a CopyModel,
    device: &'a Device,
    exact: bool,
}

impl Probes<'_> {
    /// Replaces each token in turn, alone and together with all that follow it: no earlier output
    /// may move. Row `key` of a batch has the change that begins at `key`.
    fn change_future(
        &self,
        sample: &Sample,
        task: &mut Task,
        finding: &mut Finding,
    ) -> Result<(), Failure> {
        let (string, memory) = self.repeated(sample, task);
        let length = string.len();
        let original = vec![string.clone(); length];
        let before = self.logits(&original, &memory, task)?;
        finding.allowed = self.allowed(&before);

        for all_that_follow in [false, true] {
            let mut changed = original.clone();
            for (key, row) in changed.iter_mut().enumerate() {
                let end = if all_that_follow { length } else { key + 1 };
                for token in &mut row[key..end] {
                    *token = another(*token, task);
                }
            }
            let after = self.logits(&changed, &memory, task)?;
            for key in 1..length {
                for query in 0..key {
                    finding.note(after.distance(&before, key, query), Leak { query, key });
                }
            }
        }
        Ok(())
    }

    /// Row `query` of a batch asks how its output at `query` changes with each embedded token: not
    /// at all with those behind it.
    fn gradient_to_future(
        &self,
        sample: &Sample,
        task: &mut Task,
        finding: &mut Finding,
    ) -> Result<(), Failure> {
        let (string, memory) = self.repeated(sample, task);
        let length = string.len();
        let rows = Rows::new(&vec![string; length], task.pad(), self.device);
        let embedded = self.model.embed(rows.tokens)?.autodiff().require_grad();

        let device = self.device.clone().autodiff();
        let memory = Rows::new(&memory, task.pad(), &device);
        let model = self.model.clone().train();
        let logits = model.forward(embedded.clone(), &rows.lengths, &memory, false)?.logits;
        let [_, _, vocab] = logits.dims();

        // Random weights, so that no two logits cancel.
        let own = Tensor::<2>::eye(length, &device).unsqueeze_dim::<3>(2); // [batch, queries, 1]
        let weights = Tensor::<3>::random([1, 1, vocab], Distribution::Default, &device);
        let gradients = (logits * own * weights).sum().backward();
        let gradient = embedded.grad(&gradients).ok_or_else(|| {
            Failure::Training("the gradient probe found no gradient at all".into())
        })?; // [batch, queries, d_model]

        let sizes: Vec<f64> = gradient.abs().max_dim(2).into_data().iter::<f64>().collect();
        if !self.exact {
            finding.allowed = ROUNDING * sizes.iter().copied().fold(0.0, f64::max);
        }
        for query in 0..length {
            for key in query + 1..length {
                finding.note(sizes[query * length + key], Leak { query, key });
            }
        }
        Ok(())
    }

    /// Replaces every padding token, in the strings and in the memory: no real output may move.
    fn change_padding(&self, batch: &Batch, task: &mut Task) -> Result<Finding, Failure> {
        let before = Logits::of(self.model.logits(&batch.input, &batch.memory)?);
        let mut finding = Finding::new("padding changed", self.allowed(&before));
        let input = self.with_other_padding(&batch.input, task);
        let memory = self.with_other_padding(&batch.memory, task);
        let after = Logits::of(self.model.logits(&input, &memory)?);
        for (row, &length) in batch.input.lengths.iter().enumerate() {
            for query in 0..length {
                let leak = Leak { query, key: length }; // the first padded place
                finding.note(after.distance(&before, row, query), leak);
            }
        }
        Ok(finding)
    }

    /// Runs rows without the others: nothing but rounding may differ.
    fn row_alone(
        &self,
        batch: &Batch,
        samples: &[Sample],
        task: &Task,
    ) -> Result<Finding, Failure> {
        let together = Logits::of(self.model.logits(&batch.input, &batch.memory)?);
        let mut finding = Finding::new("row alone, row in a batch", ROUNDING * together.largest());
        for (row, sample) in samples.iter().enumerate() {
            let one = Batch::new(std::slice::from_ref(sample), task, self.device);
            let alone = Logits::of(self.model.logits(&one.input, &one.memory)?);
            for query in 0..batch.input.lengths[row] {
                let difference = distance(alone.at(0, query), together.at(row, query));
                finding.note(difference, Leak { query, key: query });
            }
        }
        Ok(finding)
    }

    /// The input of a string, and its source as often as the string has tokens.
    fn repeated(&self, sample: &Sample, task: &Task) -> (Vec<usize>, Vec<Vec<usize>>) {
        let string = super::batch::input(sample, task);
        let memory = vec![sample.source.clone(); string.len()];
        (string, memory)
    }

    fn logits(
        &self,
        rows: &[Vec<usize>],
        memory: &[Vec<usize>],
        task: &Task,
    ) -> Result<Logits, Failure> {
        let rows = Rows::new(rows, task.pad(), self.device);
        let memory = Rows::new(memory, task.pad(), self.device);
        Ok(Logits::of(self.model.logits(&rows, &memory)?))
    }

    /// What two runs of equal inputs may differ by.
    fn allowed(&self, logits: &Logits) -> f64 {
        if self.exact { 0.0 } else { ROUNDING * logits.largest() }
    }

    fn with_other_padding(&self, rows: &Rows, task: &mut Task) -> Rows {
        let [_, width] = rows.tokens.dims();
        let mut tokens: Vec<i64> = rows.tokens.to_data().iter::<i64>().collect();
        for (row, &length) in tokens.chunks_mut(width).zip(&rows.lengths) {
            row[length..].fill_with(|| task.random_symbol() as i64);
        }
        let data = TensorData::new(tokens, rows.tokens.dims());
        Rows { tokens: Tensor::from_data(data, self.device), lengths: rows.lengths.clone() }
    }
}

/// A symbol that is not this one.
fn another(token: usize, task: &mut Task) -> usize {
    loop {
        let symbol = task.random_symbol();
        if symbol != token {
            return symbol;
        }
    }
}
