//! The curves of a run, from burn-train's logs.

use std::fs;
use std::path::Path;

use burn::train::metric::NumericEntry;

use super::args::Settings;
use super::samples;

/// What was measured in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The loss of each step, in nats a token.
    pub steps: Vec<f64>,
    pub validations: Vec<Validation>,
}

/// What one validation saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Its number, from 1.
    pub epoch: usize,
    pub step: usize,
    /// In nats a token.
    pub loss: f64,
    pub bits_per_byte: f64,
    /// Mean over the steps since the last validation.
    pub training_loss: f64,
    /// In nats a token.
    pub noise: f64,
    pub leaks: f64,
    pub sample: String,
}

impl History {
    /// Reads the logs in `folder`, up to the first validation that is not there.
    pub fn read(folder: &Path, settings: &Settings) -> Self {
        let mut history = Self::default();
        for epoch in 1..=settings.epochs() {
            let file = |split: &str, name: &str| {
                fs::read_to_string(folder.join(format!("{split}/epoch-{epoch}/{name}.log")))
                    .unwrap_or_default()
            };
            let numbers = |split: &str, name: &str| -> Vec<NumericEntry> {
                let text = file(split, name);
                text.lines().filter_map(|line| NumericEntry::deserialize(line).ok()).collect()
            };
            let last = |split: &str, name: &str| match numbers(split, name).last() {
                Some(NumericEntry::Final(value)) => Some(*value),
                _ => None,
            };
            let passes: Vec<f64> = numbers("train", "Loss")
                .iter()
                .filter(|entry| !matches!(entry, NumericEntry::Final(_)))
                .map(NumericEntry::current)
                .collect();
            let mean = |passes: &[f64]| passes.iter().sum::<f64>() / passes.len() as f64;
            history.steps.extend(passes.chunks(settings.passes_in_a_step()).map(mean));
            let Some(loss) = last("valid", "Loss") else { break };
            let sample = file("valid", samples::NAME);
            history.validations.push(Validation {
                epoch,
                step: epoch * settings.validate_every,
                loss,
                bits_per_byte: last("valid", "Bits_per_byte").unwrap_or(f64::NAN),
                training_loss: last("train", "Loss").unwrap_or(f64::NAN),
                noise: last("valid", "Noise_loss").unwrap_or(f64::NAN),
                leaks: last("valid", "Leaks").unwrap_or(f64::NAN),
                sample: serde_json::from_str(sample.trim()).unwrap_or_default(),
            });
        }
        history
    }

    /// Whether so many validations have passed since the best.
    pub fn has_lost_patience(&self, patience: Option<usize>) -> bool {
        match (self.best(), patience) {
            (Some(best), Some(patience)) => self.validations.len() - best.epoch >= patience,
            _ => false,
        }
    }

    /// The validation with the lowest loss; the first of several.
    pub fn best(&self) -> Option<&Validation> {
        self.validations.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))
    }
}
