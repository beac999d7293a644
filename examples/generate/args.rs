//! The command line.

use std::path::PathBuf;

use burn_decoder::generation::{GenerationConfig, SamplingConfig};
use burn_decoder::import::Precision;
use clap::{Parser, ValueEnum};
use shared::Backend;

/// Lets a published model speak.
///
/// Loads a Hugging Face folder (gpt2, llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi,
/// gpt_neox, olmo2) and goes on from each prompt.
#[derive(Parser, Debug)]
#[command(name = "generate", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done; 1 the logits of --parity do not agree; 2 bad input.")]
pub struct Args {
    /// Folder with config.json, model.safetensors (or its shards) and tokenizer.json.
    #[arg(long, value_name = "FOLDER")]
    pub model: PathBuf,
    /// What to go on from. Several prompts go through the model together and are printed one after
    /// the other.
    #[arg(long, value_name = "TEXT", required_unless_present = "parity")]
    pub prompt: Vec<String>,
    /// Puts each prompt into the model's own chat template, as a message of the user.
    #[arg(long)]
    pub chat: bool,
    /// The message of the system, with --chat.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t = Backend::Ndarray)]
    pub backend: Backend,
    /// The type of the parameters.
    #[arg(long, value_enum, default_value_t = PrecisionChoice::F32)]
    pub precision: PrecisionChoice,
    /// The most tokens to write behind each prompt.
    #[arg(long, default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Draws tokens at this temperature; without it the likeliest is taken.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Draws from this many likeliest tokens only.
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draws from the likeliest tokens only that have this probability together.
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Draws from tokens only that are at least this many times as likely as the likeliest.
    #[arg(long)]
    pub min_p: Option<f64>,
    /// Makes tokens less likely that are there already, if above 1.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Seed of the draws: the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Compares the model's logits with those of the original in this safetensors file (tensors
    /// `input_ids` and `logits`, and those of more cases, see `burn_decoder::import::parity`).
    #[arg(long, value_name = "FILE")]
    pub parity: Option<PathBuf>,
    /// The greatest difference of two logits that --parity lets pass.
    #[arg(long, default_value_t = 1e-3)]
    pub tolerance: f64,
}

/// The type of the parameters.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum PrecisionChoice {
    /// f32, whatever the file holds.
    F32,
    /// That of the file where the backend has it.
    AsStored,
    /// f16.
    F16,
    /// bf16.
    Bf16,
}

impl Args {
    /// How the parameters are loaded.
    pub fn precision(&self) -> Precision {
        match self.precision {
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::AsStored => Precision::AsStored,
            PrecisionChoice::F16 => Precision::F16,
            PrecisionChoice::Bf16 => Precision::Bf16,
        }
    }

    /// How tokens are chosen, and where a text ends.
    pub fn generation(&self, stop_tokens: &[u32]) -> GenerationConfig {
        let sampling = SamplingConfig::new()
            .with_temperature(self.temperature)
            .with_top_k(self.top_k)
            .with_top_p(self.top_p)
            .with_min_p(self.min_p)
            .with_repetition_penalty(self.repetition_penalty)
            .with_seed(self.seed);
        GenerationConfig::new(self.max_new_tokens)
            .with_sampling(sampling)
            .with_stop_tokens(stop_tokens.to_vec())
    }
}
