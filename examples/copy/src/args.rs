//! The command line: every choice, its default, and the values it may take.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use shared::Backend;

use super::failure::Failure;

/// Trains a decoder to copy, then proves that it is causal.
///
/// A string is `[source | SEP | source]`, and a fresh random source for every one of them. No
/// causal model can predict the first half: its loss cannot fall under ln V for each of the V
/// symbols, or the future has leaked. The second half can be predicted perfectly by a model that
/// has learned to look back.
#[derive(Parser, Clone, Debug)]
#[command(name = "copy", version, max_term_width = 100, args_override_self = true)]
#[command(after_help = "Exit codes: 0 all proofs hold; 1 a proof does not hold (not learned), or \
                        training went wrong; 2 bad input; 3 a leak was caught (as with --mask \
                        none); 4 what was learned or found could not be written.")]
pub struct Args {
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    #[command(flatten)]
    pub settings: Settings,
    /// Folder for the run: config.json, model.bpk, history.csv, pictures. It must be new or empty;
    /// a link to an empty folder is followed.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Trains nothing: loads the run that --out saved, and proves it again. All settings come from
    /// its config.json.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "Settings"])]
    pub prove: Option<PathBuf>,
}

/// What makes one run differ from another: kept in the run's config.json.
#[derive(clap::Args, Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the decoder comes by the source.
    #[arg(long, value_enum, default_value_t = Architecture::DecoderOnly)]
    pub architecture: Architecture,
    /// The mask over the string; `none` leaks on purpose, to show that the proof can fail.
    #[arg(long, value_enum, default_value_t = MaskChoice::LookAhead)]
    pub mask: MaskChoice,
    /// Copies pieces of this file, byte by byte, instead of random symbols.
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// The same seed on the same backend and machine gives the same run.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Number of decoder layers.
    #[arg(long, default_value_t = 2)]
    pub layers: usize,
    /// Width of the model: a multiple of --heads, and even.
    #[arg(long, default_value_t = 64)]
    pub d_model: usize,
    /// Attention heads in each layer.
    #[arg(long, default_value_t = 4)]
    pub heads: usize,
    /// Width of the hidden layer of the feed-forward part.
    #[arg(long, default_value_t = 256)]
    pub d_ff: usize,
    /// Number of different random symbols; with --text it is always 256, one for each byte.
    #[arg(long, default_value_t = 32)]
    pub vocab: usize,
    /// Length of the shortest source.
    #[arg(long, default_value_t = 4)]
    pub min_source: usize,
    /// Length of the longest source.
    #[arg(long, default_value_t = 12)]
    pub max_source: usize,
    /// Training steps.
    #[arg(long, default_value_t = 1500)]
    pub steps: usize,
    /// Strings in a training step.
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// The highest learning rate: reached after a warm-up, then decayed to 0.
    #[arg(long, default_value_t = 3e-3)]
    pub learning_rate: f64,
    /// Strings that are kept from training and copied at the end.
    #[arg(long, default_value_t = 1000)]
    pub unseen: usize,
}

/// How the decoder comes by the source.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// `[source | SEP | source]`: it looks back at what it has read.
    DecoderOnly,
    /// `[noise | SEP | source]`, with the source as the memory of a cross-attention.
    Cross,
}

/// The mask over the string.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskChoice {
    /// No position sees a later one.
    LookAhead,
    /// Every position sees every other: the control.
    None,
}

impl Settings {
    /// Refuses what no run can be made of, whether it comes from the command line or from a file.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |what: String| Err(Failure::Input(what));
        for (name, value, range) in [
            ("layers", self.layers, 1..=1_000),
            ("d-model", self.d_model, 2..=65_536),
            ("heads", self.heads, 1..=65_536),
            ("d-ff", self.d_ff, 1..=1_000_000),
            ("vocab", self.vocab, 2..=1_000_000),
            ("min-source", self.min_source, 2..=10_000),
            ("max-source", self.max_source, 2..=10_000),
            ("steps", self.steps, 1..=100_000_000),
            ("batch", self.batch, 1..=1_000_000),
            ("unseen", self.unseen, 1..=1_000_000),
        ] {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                return refuse(format!("--{name}: expected {low} to {high}, got {value}"));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse(format!(
                "--learning-rate: expected a number above 0 and at most 1, got {}",
                self.learning_rate
            ));
        }
        if !self.d_model.is_multiple_of(2) {
            return refuse(format!(
                "--d-model: expected an even number, since sinusoidal positions come in pairs, \
                 got {}",
                self.d_model
            ));
        }
        if !self.d_model.is_multiple_of(self.heads) {
            return refuse(format!(
                "--heads: expected a number that divides --d-model {}, got {}",
                self.d_model, self.heads
            ));
        }
        if self.min_source > self.max_source {
            return refuse(format!(
                "--min-source: expected at most --max-source {}, got {}",
                self.max_source, self.min_source
            ));
        }
        Ok(())
    }
}
