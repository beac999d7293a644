//! The proof: everything that is demanded of the trained model, as a table and as a line of JSON.

use std::io::{self, Write};

use burn::tensor::Device;
use serde::Serialize;

use super::args::{Args, Backend, Settings};
use super::batch::{Batch, Half};
use super::device;
use super::failure::{Failure, Verdict};
use super::generate::greedy_copies;
use super::loss::{Estimate, measure};
use super::model::CopyModel;
use super::probes::{Finding, probe};
use super::task::{Sample, Task};

/// Share of the unseen strings that must be copied without a mistake.
const DEMANDED_EXACT: f64 = 0.995;
/// Standard errors by which chance may bring a mean under its floor. A causal model is accused by
/// mistake about once in 30,000 runs.
const CHANCE: f64 = 4.0;
/// What rounding may add to that, in nats.
const ROUNDING: f64 = 1e-4;
/// Strings in a batch of the measurements.
const BATCH: usize = 250;

/// What was found, and what it amounts to. Its JSON is the last line of the run.
#[derive(Serialize)]
pub struct Proof {
    pub verdict: Verdict,
    backend: Backend,
    settings: Settings,
    training_seconds: Option<f64>,
    unseen: usize,
    exact_copies: usize,
    /// Loss of the copied half, on the unseen strings.
    copied_half: Estimate,
    /// Loss of the first half, on noise, and ln of the number of symbols.
    first_half: Estimate,
    floor: f64,
    probes: Vec<Finding>,
}

impl Proof {
    /// Puts the model to all tests.
    pub fn of(
        model: &CopyModel,
        task: &mut Task,
        args: &Args,
        training_seconds: Option<f64>,
        device: &Device,
    ) -> Result<Self, Failure> {
        let copies = greedy_copies(model, task.unseen(), task, device)?;
        let right = copies.iter().zip(task.unseen()).filter(|(copy, one)| **copy == one.source);
        let exact_copies = right.count();
        let batches = |samples: &[Sample]| -> Vec<Batch> {
            samples.chunks(BATCH).map(|samples| Batch::new(samples, task, device)).collect()
        };
        let mut proof = Self {
            verdict: Verdict::Proved,
            backend: args.backend,
            settings: args.settings.clone(),
            training_seconds,
            unseen: copies.len(),
            exact_copies,
            copied_half: measure(model, &batches(task.unseen()), Half::Copied)?,
            first_half: measure(model, &batches(task.noise()), Half::First)?,
            floor: task.floor(),
            probes: probe(model, task, device, device::is_exact(args.backend))?,
        };
        if !proof.copies_hold() {
            proof.verdict = Verdict::NotProved;
        }
        if !proof.floor_holds() || !proof.probes.iter().all(Finding::holds) {
            proof.verdict = Verdict::Leak;
        }
        Ok(proof)
    }

    fn copies_hold(&self) -> bool {
        self.exact_copies as f64 >= DEMANDED_EXACT * self.unseen as f64
    }

    /// Whether the first half's loss is at least what a causal model can reach.
    fn floor_holds(&self) -> bool {
        let Estimate { mean, standard_error, .. } = self.first_half;
        mean + CHANCE * standard_error + ROUNDING >= self.floor
    }

    /// The table, and what follows from it.
    pub fn write_table(&self, to: &mut impl Write) -> io::Result<()> {
        let copies = format!(
            "{} of {} ({:.1} %)",
            self.exact_copies,
            self.unseen,
            100.0 * self.exact_copies as f64 / self.unseen as f64
        );
        let first = format!("{:.4} ± {:.4}", self.first_half.mean, self.first_half.standard_error);
        let mut rows = vec![
            ["proof", "found", "demanded", ""].map(String::from),
            row("exact copies of unseen strings", copies, "at least 99.5 %", self.copies_hold()),
            row(
                self.first_half_name(),
                first,
                &format!("not under {:.4}", self.floor),
                self.floor_holds(),
            ),
        ];
        for finding in &self.probes {
            let allowed = match finding.allowed {
                0.0 => "exactly 0".into(),
                allowed => format!("at most {allowed:.1e}"),
            };
            let largest = match finding.largest {
                0.0 => "0".into(),
                largest => format!("{largest:.1e}"),
            };
            rows.push(row(finding.probe, largest, &allowed, finding.holds()));
        }
        writeln!(to)?;
        for [what, found, demanded, holds] in rows {
            writeln!(to, "{what:<34} {found:<24} {demanded:<18} {holds}")?;
        }
        writeln!(to)?;
        writeln!(to, "{}", self.conclusion())
    }

    /// Everything that was found, in one line.
    pub fn write_json(&self, to: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *to, self).map_err(io::Error::from)?;
        writeln!(to)?;
        to.flush()
    }

    /// What the first half is made of. A text can be guessed, so its floor is not known: there the
    /// model is given random bytes, of which no causal model can guess any.
    fn first_half_name(&self) -> &'static str {
        match self.settings.text {
            Some(_) => "loss of the first half, on noise",
            None => "loss of the first half",
        }
    }

    fn conclusion(&self) -> String {
        let mut said = Vec::new();
        if !self.floor_holds() {
            said.push(format!(
                "the loss of the first half is {:.4} nats under ln V = {:.4}, where no model can \
                 be that has not seen the future",
                self.floor - self.first_half.mean,
                self.floor
            ));
        }
        for finding in self.probes.iter().filter(|finding| !finding.holds()) {
            if let Some(leak) = finding.first {
                said.push(format!(
                    "{}: first leak at query {}, from key {}",
                    finding.probe, leak.query, leak.key
                ));
            }
        }
        match self.verdict {
            Verdict::Proved => "All proofs hold.".into(),
            Verdict::NotProved => {
                "Not learned well enough: no leak was found, but too few strings \
                                   were copied. Try more --steps."
                    .into()
            }
            Verdict::Leak => format!("LEAK CAUGHT\n- {}", said.join("\n- ")),
        }
    }
}

fn row(what: &str, found: String, demanded: &str, holds: bool) -> [String; 4] {
    let holds = if holds { "holds" } else { "DOES NOT HOLD" };
    [what.into(), found, demanded.into(), holds.into()]
}
