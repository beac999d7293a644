//! The crate's checker, put to the trained model: does information flow from the future, from
//! padding, or from another row of the batch, with the cache and without it?

use burn::tensor::{Device, Int, Tensor};
use burn_decoder::cache::CacheConfig;
use burn_decoder::causality::{CausalityCheck, ModelInput, Report};
use burn_decoder::decoder::{self, LanguageModelOutput, Request};
use burn_decoder::mask::Mask;
use serde::Serialize;

use super::args::{Architecture, Settings};
use super::batch::{Batch, Rows};
use super::failure::Failure;
use super::logits::{Logits, distance};
use super::model::CopyModel;
use super::task::{Sample, Task};

/// The most tokens in a checked row. Its cost grows with the square.
const LENGTH: usize = 64;
/// Rows in the checks that tell rows apart by their length.
const PADDED: usize = 4;
/// Rows that are run alone, too.
const ALONE: usize = 16;
/// What rounding may do to a row in another batch: this share of the largest logit.
const ROUNDING: f64 = 1e-5;

/// What one check found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub forward_passes: usize,
    /// The largest leak, and how much of it may be rounding.
    pub largest: f64,
    pub allowed: f64,
    /// The first query that was reached, and the first key that reached it.
    pub first: Option<Leak>,
    /// What is wrong though no leak was seen: a cached pass that gives other logits, or outputs that
    /// prove nothing.
    pub differs: Option<String>,
}

/// A query that is moved by a key that it must not see.
#[derive(Clone, Debug, Serialize)]
pub struct Leak {
    pub query: usize,
    pub key: usize,
    /// What it most likely is.
    pub diagnosis: String,
}

impl Finding {
    fn of(check: &'static str, report: &Report) -> Self {
        let leaks = || report.leaks();
        let first = leaks().min_by_key(|leak| (leak.query, leak.key));
        let tolerances = report.paths.iter().map(|path| path.tolerance);
        let differs = report.paths.iter().find_map(|path| {
            if let Some(why) = path.unproven {
                return Some(format!("nothing is proven on the {} path: {why}", path.path));
            }
            let differs = path.disagreement.as_ref()?;
            Some(format!(
                "the {} path differs from the plain one from query {} on, by {:.1e} (at most \
                 {:.1e}): {}",
                path.path, differs.query, differs.size, differs.tolerance, differs.diagnosis
            ))
        });
        Self {
            check,
            forward_passes: report.passes,
            largest: leaks().map(|leak| f64::from(leak.size)).fold(0.0, f64::max),
            allowed: tolerances.map(f64::from).fold(0.0, f64::max),
            first: first.map(|leak| Leak {
                query: leak.query,
                key: leak.key,
                diagnosis: leak.diagnosis.to_string(),
            }),
            differs,
        }
    }

    pub fn leaks(&self) -> bool {
        self.first.is_some()
    }

    pub fn holds(&self) -> bool {
        !self.leaks() && self.differs.is_none()
    }
}

/// Runs all checks.
pub fn check(
    model: &CopyModel,
    task: &Task,
    settings: &Settings,
    device: &Device,
) -> Result<Vec<Finding>, Failure> {
    let subject = Subject {
        model,
        vocab_size: task.vocab_size(),
        pad: task.pad(),
        source: &task.unseen()[0].source,
        length: (2 * settings.max_source).min(LENGTH),
        device,
    };
    let mut findings = vec![subject.by_tokens()?, subject.by_gradients()?, subject.padding()?];
    if model.architecture == Architecture::Cross {
        findings.push(subject.padding_of_the_memory()?);
    }
    let rows = task.unseen();
    findings.push(row_alone(model, &rows[..rows.len().min(ALONE)], task, device)?);
    Ok(findings)
}

/// The model, and what it is told that is no part of a check.
struct Subject<'a> {
    model: &'a CopyModel,
    vocab_size: usize,
    pad: usize,
    /// The memory of every row, if the model has one.
    source: &'a [usize],
    length: usize,
    device: &'a Device,
}

impl Subject<'_> {
    /// Tokens to logits: with the weights returned and without, with the cache and without.
    fn by_tokens(&self) -> Result<Finding, Failure> {
        let run = |tokens: Tensor<2, Int>, weights| {
            let input = self.input(tokens.dims()[0]).asking(Request::new().with_weights(weights));
            self.model.language.forward(tokens, input).expect("the input fits the model")
        };
        let check = self
            .over_tokens(|tokens| run(tokens, false).logits)
            .with_weights(|tokens| {
                let LanguageModelOutput { logits, self_weights, .. } = run(tokens, true);
                (logits, Tensor::cat(self_weights, 1)) // [batch, layers * heads, length, length]
            })
            .with_cached(|tokens| self.in_pieces(tokens));
        report("future and other rows, by tokens", check)
    }

    /// Embeddings to logits: by the derivatives, too.
    fn by_gradients(&self) -> Result<Finding, Failure> {
        let width = self.model.language.d_model();
        let check = CausalityCheck::embeddings(width, self.length, self.device, |embedded| {
            let [rows, _, _] = embedded.dims();
            let output = self.model.language.forward_embedded(embedded, self.input(rows));
            output.expect("the input fits the model").logits
        });
        report("future and other rows, by gradients", check)
    }

    /// Rows of several lengths: nothing flows out of their padding.
    fn padding(&self) -> Result<Finding, Failure> {
        let lengths = self.lengths();
        let check = self.over_tokens(|tokens| {
            let input = self.input(PADDED).with_lengths(lengths);
            self.model.language.forward(tokens, input).expect("the input fits the model").logits
        });
        let promise = Mask::look_ahead() & Mask::lengths(lengths);
        report("padding", check.with_batch(PADDED).with_promise(promise))
    }

    /// The checked tokens are the source here, of several lengths, that every token of a string
    /// sees.
    fn padding_of_the_memory(&self) -> Result<Finding, Failure> {
        let lengths = self.lengths();
        let check = self.over_tokens(|tokens| {
            let string = tokens.zeros_like();
            let memory = Rows { tokens, lengths: lengths.to_vec() };
            let input = self.model.input(&memory).expect("the source fits");
            self.model.language.forward(string, input).expect("the input fits the model").logits
        });
        let promise = Mask::lengths(lengths);
        report("padding of the source", check.with_batch(PADDED).with_promise(promise))
    }

    fn over_tokens<'a>(
        &self,
        forward: impl Fn(Tensor<2, Int>) -> Tensor<3> + 'a,
    ) -> CausalityCheck<'a, Tensor<2, Int>> {
        CausalityCheck::tokens(self.vocab_size, self.length, self.device, forward)
    }

    /// Half of the tokens at once, two of them one by one, and the rest.
    fn in_pieces(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [rows, length] = tokens.dims();
        let mut cache = CacheConfig::fixed(length).init().expect("a length above 0");
        let mut input = Some(self.input(rows));
        let ends = [length / 2, length / 2 + 1, length / 2 + 2, length];
        let starts = std::iter::once(0).chain(ends);
        let pieces = starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| {
            let piece = tokens.clone().narrow(1, start, end - start);
            let input = input.take().unwrap_or_default(); // the cache remembers the memory
            let output = self.model.language.forward_cached(piece, input, &mut cache);
            output.expect("the pieces follow each other").logits
        });
        Tensor::cat(pieces.collect(), 1)
    }

    /// What the model is told with so many rows: one source for all of them.
    fn input(&self, rows: usize) -> decoder::Batch {
        let memory = Rows::new(&vec![self.source.to_vec(); rows], self.pad, self.device);
        self.model.input(&memory).expect("the source fits the model")
    }

    /// From the whole row down to somewhat more than half of it.
    fn lengths(&self) -> [usize; PADDED] {
        std::array::from_fn(|row| self.length - row * self.length / (2 * PADDED))
    }
}

/// Runs a check, and says first what it costs.
fn report<I: ModelInput>(
    name: &'static str,
    check: CausalityCheck<'_, I>,
) -> Result<Finding, Failure> {
    eprintln!("checking {name}: {} forward passes", check.cost()?.total());
    Ok(Finding::of(name, &check.run()?))
}

/// Runs rows without the others: nothing but rounding may differ.
fn row_alone(
    model: &CopyModel,
    samples: &[Sample],
    task: &Task,
    device: &Device,
) -> Result<Finding, Failure> {
    let batch = Batch::new(samples, task, device);
    let together = Logits::of(model.logits(&batch.input, &batch.memory)?);
    let mut finding = Finding {
        check: "row alone, row in a batch",
        forward_passes: 1 + samples.len(),
        largest: 0.0,
        allowed: ROUNDING * together.largest(),
        first: None,
        differs: None,
    };
    for (row, sample) in samples.iter().enumerate() {
        let one = Batch::new(std::slice::from_ref(sample), task, device);
        let alone = Logits::of(model.logits(&one.input, &one.memory)?);
        for query in 0..batch.input.lengths[row] {
            let difference = distance(alone.at(0, query), together.at(row, query));
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            finding.largest = finding.largest.max(difference);
            if difference > finding.allowed && finding.first.is_none() {
                let diagnosis = format!("row {row} of the batch is moved by the others");
                finding.first = Some(Leak { query, key: query, diagnosis });
            }
        }
    }
    Ok(finding)
}
