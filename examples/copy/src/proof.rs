//! The proof: everything that is demanded of the trained model, as a table and as a line of JSON.

use std::io::{self, Write};

use burn::tensor::Device;
use serde::Serialize;
use shared::Backend;

use super::args::{Args, Settings};
use super::batch::{Batch, Half};
use super::checks::{Finding, Leak, check};
use super::failure::{Failure, Verdict};
use super::generate::greedy_copies;
use super::loss::{Estimate, measure};
use super::model::CopyModel;
use super::task::{Sample, Task};
use super::train::Stop;

/// Share of the unseen strings that must be copied without a mistake.
const DEMANDED_EXACT: f64 = 0.995;
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
    /// What the alarm says to it.
    below_floor: Option<String>,
    /// What the alarm said to the training.
    stopped: Option<Stop>,
    checks: Vec<Finding>,
}

impl Proof {
    /// Puts the model to all tests.
    pub fn of(
        model: &CopyModel,
        task: &Task,
        args: &Args,
        training_seconds: Option<f64>,
        stopped: Option<Stop>,
        device: &Device,
    ) -> Result<Self, Failure> {
        let copies = greedy_copies(model, task.unseen(), task, device)?;
        let right = copies.iter().zip(task.unseen()).filter(|(copy, one)| **copy == one.source);
        let exact_copies = right.count();
        let batches = |samples: &[Sample]| -> Vec<Batch> {
            samples.chunks(BATCH).map(|samples| Batch::new(samples, task, device)).collect()
        };
        let first_half = measure(model, &batches(task.noise()), Half::First)?;
        let below_floor = task.alarm().observe(first_half.mean, first_half.tokens).err();
        let mut proof = Self {
            verdict: Verdict::Proved,
            backend: args.backend,
            settings: args.settings.clone(),
            training_seconds,
            unseen: copies.len(),
            exact_copies,
            copied_half: measure(model, &batches(task.unseen()), Half::Copied)?,
            first_half,
            floor: task.floor(),
            below_floor: below_floor.map(|error| error.to_string()),
            stopped,
            checks: check(model, task, &args.settings, device)?,
        };
        if !proof.copies_hold() || !proof.checks.iter().all(Finding::holds) {
            proof.verdict = Verdict::NotProved;
        }
        let seen = proof.stopped.is_some() || proof.below_floor.is_some();
        if seen || proof.checks.iter().any(Finding::leaks) {
            proof.verdict = Verdict::Leak;
        }
        Ok(proof)
    }

    fn copies_hold(&self) -> bool {
        self.exact_copies as f64 >= DEMANDED_EXACT * self.unseen as f64
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
                // Fresh symbols, that no causal model can guess; a text could be.
                "loss of the first half, on noise",
                first,
                &format!("not under {:.4}", self.floor),
                self.below_floor.is_none(),
            ),
        ];
        for finding in &self.checks {
            let allowed = match finding.allowed {
                0.0 => "exactly 0".into(),
                allowed => format!("at most {allowed:.1e}"),
            };
            let largest = match finding.largest {
                0.0 => "0".into(),
                largest => format!("{largest:.1e}"),
            };
            rows.push(row(finding.check, largest, &allowed, finding.holds()));
        }
        writeln!(to)?;
        for [what, found, demanded, holds] in rows {
            writeln!(to, "{what:<38} {found:<24} {demanded:<18} {holds}")?;
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

    fn conclusion(&self) -> String {
        match self.verdict {
            Verdict::Proved => "All proofs hold.".into(),
            Verdict::NotProved if self.copies_hold() => {
                let differences = self.checks.iter().filter_map(|finding| {
                    let differs = finding.differs.as_ref()?;
                    Some(format!("{}: {differs}", finding.check))
                });
                format!("No leak was found, but\n- {}", join(differences))
            }
            Verdict::NotProved => {
                "Not learned well enough: no leak was found, but too few strings \
                                   were copied. Try more --steps."
                    .into()
            }
            Verdict::Leak => {
                let stopped = self.stopped.iter().map(|Stop { step, why }| {
                    format!("training was stopped at step {step}: {why}")
                });
                let below_floor = self.below_floor.iter().map(|why| format!("first half: {why}"));
                let leaks = self.checks.iter().filter_map(|finding| {
                    let Leak { query, key, diagnosis } = finding.first.as_ref()?;
                    Some(format!(
                        "{}: first leak at query {query}, from key {key}: {diagnosis}",
                        finding.check
                    ))
                });
                format!("LEAK CAUGHT\n- {}", join(stopped.chain(below_floor).chain(leaks)))
            }
        }
    }
}

fn join(said: impl Iterator<Item = String>) -> String {
    said.collect::<Vec<_>>().join("\n- ")
}

fn row(what: &str, found: String, demanded: &str, holds: bool) -> [String; 4] {
    let holds = if holds { "holds" } else { "DOES NOT HOLD" };
    [what.into(), found, demanded.into(), holds.into()]
}
