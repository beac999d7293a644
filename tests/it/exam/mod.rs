//! The leak exam: architectures as they are met in the wild, one family a file, each in a right form
//! and in forms that leak.
//!
//! Every form says itself what its truth is, from its construction: the first query that can see a
//! hidden key, that key, and the cause. The checker must find all three, over 20 seeds, and must not
//! accuse a right form.

mod ahead;
mod attention;
mod cached;
mod convolution;
mod losses;
mod mixing;
mod nanochat;
mod norms;
mod older_ways;
mod parts;
mod positions;
mod recurrence;
mod routing;
mod sequence_to_sequence;
mod sparse;

use burn::tensor::{Device, Int, Tensor};
use burn_decoder::causality::{CausalityCheck, Diagnosis, ModelInput, Path, Report, Verdict, Way};
use burn_decoder::mask::Mask;

use parts::Setup;

type Embedded = Box<dyn Fn(Tensor<3>) -> Tensor<3>>;

/// What goes in and what comes out.
enum Model {
    Embedded(Embedded),
    Tokens { vocabulary: usize, forward: Box<dyn Fn(Tensor<2, Int>) -> Tensor<3>> },
    Losses { vocabulary: usize, losses: Box<dyn Fn(Tensor<2, Int>) -> Tensor<2>> },
}

/// A model, with what is to be said of it to the checker.
struct Subject {
    model: Model,
    promise: Option<Mask>,
    own_hidden: bool,
    prefixes: bool,
    cached: Option<Embedded>,
    memory: Option<Embedded>,
}

impl Subject {
    fn new(model: Model) -> Self {
        let (promise, own_hidden, prefixes, cached, memory) = (None, false, false, None, None);
        Self { model, promise, own_hidden, prefixes, cached, memory }
    }

    fn embedded(forward: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Self {
        Self::new(Model::Embedded(Box::new(forward)))
    }

    fn tokens(vocabulary: usize, forward: impl Fn(Tensor<2, Int>) -> Tensor<3> + 'static) -> Self {
        Self::new(Model::Tokens { vocabulary, forward: Box::new(forward) })
    }

    fn losses(vocabulary: usize, losses: impl Fn(Tensor<2, Int>) -> Tensor<2> + 'static) -> Self {
        Self::new(Model::Losses { vocabulary, losses: Box::new(losses) })
    }

    fn promising(self, mask: Mask) -> Self {
        Self { promise: Some(mask), ..self }
    }

    fn with_own_hidden(self) -> Self {
        Self { own_hidden: true, ..self }
    }

    fn with_prefixes(self) -> Self {
        Self { prefixes: true, ..self }
    }

    fn with_cached(self, cached: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Self {
        Self { cached: Some(Box::new(cached)), ..self }
    }

    fn with_memory(self, memory: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Self {
        Self { memory: Some(Box::new(memory)), ..self }
    }

    fn check(&self, setup: &Setup) -> Report {
        let Setup { device, width, length, .. } = setup;
        match &self.model {
            Model::Embedded(forward) => {
                let mut check = CausalityCheck::embeddings(*width, *length, device, forward);
                if let Some(cached) = &self.cached {
                    check = check.with_cached(cached);
                }
                if let Some(memory) = &self.memory {
                    check = check.with_memory(memory);
                }
                self.run(check, setup)
            }
            Model::Tokens { vocabulary, forward } => {
                self.run(CausalityCheck::tokens(*vocabulary, *length, device, forward), setup)
            }
            Model::Losses { vocabulary, losses } => {
                self.run(CausalityCheck::losses(*vocabulary, *length, device, losses), setup)
            }
        }
    }

    fn run<I: ModelInput>(&self, mut check: CausalityCheck<'_, I>, setup: &Setup) -> Report {
        if let Some(promise) = &self.promise {
            check = check.with_promise(promise.clone()).with_layers(1);
        }
        if self.own_hidden {
            check = check.with_own_hidden();
        }
        if self.prefixes {
            check = check.with_prefixes();
        }
        check.with_batch(setup.batch).with_seed(setup.seed).run().expect("the check fits the model")
    }
}

/// The first leak of a form, as it follows from its construction.
enum First {
    /// Within a row: query and key.
    Cell(usize, usize),
    /// Between rows: the first row and query that another row can move, and which rows can.
    Rows { row: usize, query: usize, by: fn(usize, usize) -> bool },
}

/// A form that leaks, and its truth.
struct Form {
    name: &'static str,
    first: fn(&Setup) -> First,
    cause: fn(&Setup) -> Diagnosis,
    path: Path,
    build: fn(&Setup) -> Subject,
}

impl Form {
    fn new(
        name: &'static str,
        first: fn(&Setup) -> First,
        cause: fn(&Setup) -> Diagnosis,
        build: fn(&Setup) -> Subject,
    ) -> Self {
        Self { name, first, cause, path: Path::Plain, build }
    }

    fn on(self, path: Path) -> Self {
        Self { path, ..self }
    }

    /// What is wrong with the report on this form, if anything.
    fn fault(&self, report: &Report, setup: &Setup) -> Option<String> {
        if report.verdict() != Verdict::Leak {
            return Some(format!("escaped: {:?}", report.verdict()));
        }
        let Some(leak) = report.first_leak() else { return Some("no first leak".into()) };
        let cause = (self.cause)(setup);
        if leak.path != self.path {
            return Some(format!("on the {} path, not the {} one", leak.path, self.path));
        }
        if leak.diagnosis != cause {
            return Some(format!("named {:?}, not {cause:?}", leak.diagnosis));
        }
        match (self.first)(setup) {
            First::Cell(query, key) => {
                let is_it = leak.way != Way::OtherRows && (leak.query, leak.key) == (query, key);
                (!is_it).then(|| {
                    format!("first at ({}, {}), not ({query}, {key})", leak.query, leak.key)
                })
            }
            First::Rows { row, query, by } => {
                let is_it = leak.way == Way::OtherRows
                    && (leak.row, leak.query) == (row, query)
                    && by(leak.row, leak.key_row);
                (!is_it).then(|| {
                    let (by, key) = (leak.key_row, leak.key);
                    let at = (leak.row, leak.query);
                    format!("first in row and query {at:?} by row {by}, key {key}")
                })
            }
        }
    }
}

/// A form that does not leak.
struct Right {
    name: &'static str,
    build: fn(&Setup) -> Subject,
}

fn leaking() -> Vec<Form> {
    [
        ahead::leaking(),
        attention::leaking(),
        cached::leaking(),
        convolution::leaking(),
        losses::leaking(),
        mixing::leaking(),
        nanochat::leaking(),
        norms::leaking(),
        positions::leaking(),
        recurrence::leaking(),
        routing::leaking(),
        sequence_to_sequence::leaking(),
        sparse::leaking(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn right() -> Vec<Right> {
    [
        ahead::right(),
        attention::right(),
        cached::right(),
        convolution::right(),
        losses::right(),
        mixing::right(),
        nanochat::right(),
        norms::right(),
        positions::right(),
        recurrence::right(),
        routing::right(),
        sequence_to_sequence::right(),
        sparse::right(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, build)| Right { name, build })
    .collect()
}

/// The right forms of one family.
type RightForms = Vec<(&'static str, fn(&Setup) -> Subject)>;

const SEEDS: std::ops::Range<u64> = 0..20;

/// Distinct primes, but for the batch, which halves.
fn setup(seed: u64, device: &Device) -> Setup {
    Setup { seed, device: device.clone(), width: 6, length: 13, batch: 4 }
}

/// The faults by form: how many, and the first one.
fn assert_none(faults: Vec<(&str, u64, String)>) {
    let mut forms: Vec<(&str, usize, String)> = Vec::new();
    for (name, seed, fault) in &faults {
        match forms.iter_mut().find(|(known, ..)| known == name) {
            Some((_, count, _)) => *count += 1,
            None => forms.push((name, 1, format!("seed {seed}: {fault}"))),
        }
    }
    let lines = forms.iter().map(|(name, count, first)| format!("{count} of {name}: {first}"));
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} of the checks are wrong:\n{text}", faults.len());
}

fn every_leak_is_caught_and_named(device: &Device) {
    let mut faults = Vec::new();
    for form in leaking() {
        for seed in SEEDS {
            let setup = setup(seed, device);
            let report = (form.build)(&setup).check(&setup);
            if let Some(fault) = form.fault(&report, &setup) {
                faults.push((form.name, seed, fault));
            }
        }
    }
    assert_none(faults);
}

fn no_right_form_is_accused(device: &Device) {
    let mut faults = Vec::new();
    for Right { name, build } in right() {
        for seed in SEEDS {
            let setup = setup(seed, device);
            let report = build(&setup).check(&setup);
            let differs = report.paths.iter().any(|path| path.disagreement.is_some());
            if !report.is_causal() || differs {
                faults.push((name, seed, format!("accused\n{report}")));
            }
        }
    }
    assert_none(faults);
}

#[test]
fn the_exam_is_as_large_as_it_says() {
    assert!(leaking().len() >= 45, "{}", leaking().len());
    assert!(right().len() >= 25, "{}", right().len());
}

/// Burn's CPU backends, each in a test of its own so that they share the cores.
macro_rules! on_cpu_backends {
    ($($name:ident)*) => {$(
        mod $name {
            #[cfg(feature = "ndarray")]
            #[test]
            fn ndarray() {
                super::super::$name(&burn::tensor::Device::ndarray());
            }

            #[cfg(feature = "flex")]
            #[test]
            fn flex() {
                super::super::$name(&burn::tensor::Device::flex());
            }
        }
    )*};
}

mod on {
    on_cpu_backends! { every_leak_is_caught_and_named no_right_form_is_accused }
}

/// `cargo test --release --test it -- --ignored --nocapture exam::costs`: the slowest checks of models
/// of width 64 on 32 tokens.
#[cfg(feature = "flex")]
#[test]
#[ignore = "a report"]
fn costs() {
    let setup = Setup { width: 64, length: 32, batch: 8, ..setup(0, &Device::flex()) };
    let mut times: Vec<(f64, &str)> = Vec::new();
    let forms = leaking().into_iter().map(|form| (form.name, form.build));
    for (name, build) in forms.chain(right().into_iter().map(|Right { name, build }| (name, build)))
    {
        let subject = build(&setup);
        let start = std::time::Instant::now();
        let _ = subject.check(&setup);
        times.push((start.elapsed().as_secs_f64(), name));
    }
    times.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("{} checks at width 64 and 32 tokens, seconds:", times.len());
    times.iter().take(12).for_each(|(seconds, name)| println!("{seconds:7.3}  {name}"));
}
