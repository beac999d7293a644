//! The command line: every choice, its default, and the values it may take.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Serialize;
use shared::Backend;

use super::failure::Failure;

/// Trains a decoder on text files, and goes on where it was killed.
///
/// Each file is a document, and `<|endoftext|>` in a file begins another. The run is kept in the
/// folder --out: killed at any moment and started again with the same command, it goes on from its
/// last checkpoint and gives what it would have given. At the end the folder is one that
/// `generate --model` and transformers load, with a page.html that shows the run.
#[derive(Parser, Clone, Debug)]
#[command(name = "train", version, max_term_width = 100, args_override_self = true)]
#[command(after_help = "Exit codes: 0 trained; 1 training went wrong or was interrupted; 2 bad \
                        input; 3 the model sees the future (as with --mask none); 4 what was \
                        learned could not be written.")]
pub struct Args {
    /// Text files in UTF-8.
    #[arg(required = true, value_name = "TEXT")]
    pub text: Vec<PathBuf>,
    /// Folder of the run: new, empty, or that of the same command.
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,
    /// Writes the trained model to this folder, too, as transformers and `generate` load it; with
    /// --lora with its adapters merged. May be asked for when the run is done.
    #[arg(long, value_name = "FOLDER")]
    pub export: Option<PathBuf>,
    /// Shows lines instead of the dashboard, on a terminal too.
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    pub settings: Settings,
}

/// What makes one run differ from another: kept in the run's run.json.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct Settings {
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Trains on several devices at once, each with its share of every batch: flex,ndarray.
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "backend")]
    pub devices: Vec<Backend>,

    /// How text becomes tokens.
    #[arg(long, value_enum, default_value_t = Tokens::Characters, conflicts_with = "from")]
    pub tokens: Tokens,
    /// Number of tokens of `--tokens bpe`.
    #[arg(long, default_value_t = 1024, conflicts_with = "from")]
    pub vocab: usize,
    /// Share of the text, at its end, that is kept from training and measured.
    #[arg(long, default_value_t = 0.1)]
    pub valid_share: f64,
    /// Rows of that part which a validation reads, evenly spread.
    #[arg(long, default_value_t = 240)]
    pub valid_rows: usize,

    /// What kind of model.
    #[arg(long, value_enum, default_value_t = Family::Gpt2, conflicts_with = "from")]
    pub family: Family,
    /// Number of decoder layers.
    #[arg(long, default_value_t = 4, conflicts_with = "from")]
    pub layers: usize,
    /// Attention heads in each layer.
    #[arg(long, default_value_t = 4, conflicts_with = "from")]
    pub heads: usize,
    /// Width of the model: a multiple of --heads.
    #[arg(long, default_value_t = 128, conflicts_with = "from")]
    pub d_model: usize,
    /// Width of the hidden layer of the feed-forward part; 4 times --d-model if not given.
    #[arg(long, conflicts_with = "from")]
    pub d_ff: Option<usize>,
    /// Tokens in a row: the most that the model looks back.
    #[arg(long, default_value_t = 64)]
    pub context: usize,
    /// Probability with which values are dropped in training (--family gpt2).
    #[arg(long, default_value_t = 0.0, conflicts_with = "from")]
    pub dropout: f64,
    /// The mask; `none` leaks on purpose, to show that the alarm goes off.
    #[arg(long, value_enum, default_value_t = MaskChoice::LookAhead, conflicts_with = "from")]
    pub mask: MaskChoice,

    /// Starts from the model of this Hugging Face folder, with its tokenizer.
    #[arg(long, value_name = "FOLDER")]
    pub from: Option<PathBuf>,
    /// Trains adapters of this rank beside the projections (LoRA), and leaves the model as it is.
    #[arg(long, value_name = "RANK", requires = "from")]
    pub lora: Option<usize>,
    /// The adapters' product is multiplied by this over the rank; twice the rank if not given.
    #[arg(long, requires = "lora")]
    pub lora_alpha: Option<f64>,

    /// Steps of the optimizer.
    #[arg(long, default_value_t = 2000)]
    pub steps: usize,
    /// Rows in a step.
    #[arg(long, default_value_t = 12)]
    pub batch: usize,
    /// Passes that a step's rows are read in: less memory, the same step.
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 1e-3)]
    pub learning_rate: f64,
    /// The learning rate at the end, reached on a cosine.
    #[arg(long, default_value_t = 1e-4)]
    pub final_learning_rate: f64,
    /// Steps in which the learning rate grows to its highest.
    #[arg(long, default_value_t = 100)]
    pub warm_up: usize,
    /// Weight decay of the matrices; norms, biases and embeddings have none.
    #[arg(long, default_value_t = 0.1)]
    pub weight_decay: f64,
    /// AdamW's β₂.
    #[arg(long, default_value_t = 0.99)]
    pub beta_2: f64,
    /// The norm of all gradients together is cut to this; 0 leaves them alone.
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
    /// Computes activations again in the backward pass where that is cheap, as Burn does it, and
    /// keeps fewer.
    #[arg(long)]
    pub recompute: bool,

    /// Steps from one validation to the next, each with a checkpoint.
    #[arg(long, default_value_t = 250)]
    pub validate_every: usize,
    /// Stops after so many validations without a better loss.
    #[arg(long)]
    pub patience: Option<usize>,
    /// Tokens of the sample that the model writes at each validation; 0 for none.
    #[arg(long, default_value_t = 200)]
    pub sample: usize,
    /// What the samples go on from.
    #[arg(long, default_value = "\n")]
    pub prompt: String,
    /// The same seed on the same device gives the same run.
    #[arg(long, default_value_t = 1337)]
    pub seed: u64,
}

/// How text becomes tokens.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// Each character of the text is one.
    Characters,
    /// Byte-pair encoding of the bytes, trained on the text.
    Bpe,
}

/// What kind of model.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// LayerNorm, learned positions, GELU, tied head.
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU, tied head.
    Llama,
}

/// The mask over a row.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskChoice {
    /// No position sees a later one.
    LookAhead,
    /// Every position sees every other: the control.
    None,
}

impl Settings {
    /// Refuses what no run can be made of.
    pub fn check(&self) -> Result<(), Failure> {
        let refuse = |what: String| Err(Failure::Input(what));
        for (name, value, range) in [
            ("vocab", self.vocab, 257..=1_000_000),
            ("valid-rows", self.valid_rows, 1..=1_000_000),
            ("layers", self.layers, 1..=1_000),
            ("heads", self.heads, 1..=65_536),
            ("d-model", self.d_model, 1..=65_536),
            ("d-ff", self.d_ff.unwrap_or(1), 1..=1_000_000),
            ("context", self.context, 2..=1_000_000),
            ("lora", self.lora.unwrap_or(1), 1..=65_536),
            ("steps", self.steps, 1..=100_000_000),
            ("batch", self.batch, 1..=1_000_000),
            ("accumulate", self.accumulate, 1..=1_000_000),
            ("validate-every", self.validate_every, 1..=100_000_000),
            ("patience", self.patience.unwrap_or(1), 1..=100_000_000),
            ("sample", self.sample, 0..=1_000_000),
        ] {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                return refuse(format!("--{name}: expected {low} to {high}, got {value}"));
            }
        }
        for (name, value, low, high) in [
            ("valid-share", self.valid_share, 1e-6, 0.9),
            ("dropout", self.dropout, 0.0, 0.99),
            ("lora-alpha", self.lora_alpha.unwrap_or(1.0), 1e-6, 1e6),
            ("learning-rate", self.learning_rate, 1e-12, 1.0),
            ("final-learning-rate", self.final_learning_rate, 0.0, self.learning_rate),
            ("weight-decay", self.weight_decay, 0.0, 100.0),
            ("beta-2", self.beta_2, 0.0, 0.999_999),
            ("clip", self.clip, 0.0, 1e9),
        ] {
            if !(value >= low && value <= high) {
                return refuse(format!("--{name}: expected {low} to {high}, got {value}"));
            }
        }
        if self.from.is_none() && !self.d_model.is_multiple_of(self.heads) {
            return refuse(format!(
                "--heads: expected a number that divides --d-model {}, got {}",
                self.d_model, self.heads
            ));
        }
        if self.family == Family::Llama {
            if !(self.d_model / self.heads).is_multiple_of(2) {
                return refuse(format!(
                    "--d-model: expected an even number for each head, since rotary positions come \
                     in pairs, got {} for {} heads",
                    self.d_model, self.heads
                ));
            }
            if self.dropout != 0.0 {
                return refuse(format!(
                    "--dropout: expected 0, since --family llama has none, got {}",
                    self.dropout
                ));
            }
        }
        if self.warm_up >= self.steps {
            return refuse(format!(
                "--warm-up: expected less than --steps {}, got {}",
                self.steps, self.warm_up
            ));
        }
        if !self.steps.is_multiple_of(self.validate_every) {
            return refuse(format!(
                "--validate-every: expected a number that divides --steps {}, got {}",
                self.steps, self.validate_every
            ));
        }
        let parts = self.accumulate * self.device_names().len();
        if !self.batch.is_multiple_of(parts) {
            return refuse(format!(
                "--batch: expected a multiple of {parts}, the passes of a step on all devices, got \
                 {}",
                self.batch
            ));
        }
        Ok(())
    }

    /// The devices, by name.
    pub fn device_names(&self) -> Vec<Backend> {
        if self.devices.is_empty() { vec![self.backend] } else { self.devices.clone() }
    }

    /// Rows in one pass on one device.
    pub fn rows_in_a_pass(&self) -> usize {
        self.batch / self.passes_in_a_step()
    }

    /// Passes of a step, on all devices together.
    pub fn passes_in_a_step(&self) -> usize {
        self.accumulate * self.device_names().len()
    }

    /// Validations in the whole training: what burn-train calls epochs.
    pub fn epochs(&self) -> usize {
        self.steps / self.validate_every
    }
}
