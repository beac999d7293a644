//! The command line.

use std::path::PathBuf;

use burn_decoder::cache::{CacheConfig, CachePrecision};
use burn_decoder::import::Precision;
use clap::{Parser, ValueEnum};
use shared::Backend;

/// Lets a published model speak.
///
/// Loads a Hugging Face folder (gpt2, llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi, phi3,
/// gpt_neox, olmo2) or a GGUF file (llama, qwen2, qwen3, gemma2, gemma3, phi2, phi3, olmo2) and goes
/// on from each prompt. How tokens are chosen is taken from
/// generation_config.json where the options do not say it. An option given twice takes the last;
/// --prompt takes all.
#[derive(Parser, Debug)]
#[command(name = "generate", version, max_term_width = 100, args_override_self = true)]
#[command(after_help = "Exit codes: 0 done; 1 the logits of --parity do not agree; 2 bad input; \
                        3 standard output can't be written.")]
pub struct Args {
    /// Folder with config.json, model.safetensors (or its shards) and tokenizer.json, or a file that
    /// ends with .gguf.
    #[arg(long, value_name = "FOLDER|FILE.gguf")]
    pub model: PathBuf,
    /// What to go on from. Several prompts go through the model together and are printed one after
    /// the other.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["parity", "bench"])]
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
    /// The type of the parameters. If not said: on the CPU (ndarray, flex) that of the file, in half
    /// precision or in blocks, with which the model computes in f32; on other backends f32.
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionChoice>,
    /// Copies the weights to memory instead of leaving them in the mapped file: a little longer to load,
    /// and on some machines faster to write.
    #[arg(long)]
    pub in_memory: bool,
    /// The type in which the keys and values of the past are kept.
    #[arg(long, value_enum, default_value_t = CacheChoice::AsComputed)]
    pub cache_precision: CacheChoice,
    /// The most tokens to write behind each prompt.
    #[arg(long, default_value_t = 64, value_parser = number::at_least_one)]
    pub max_new_tokens: usize,
    /// Draws tokens at this temperature; at 0 the likeliest is taken.
    #[arg(long, allow_negative_numbers = true, value_parser = parsed(number::temperature))]
    pub temperature: Option<f64>,
    /// Draws from this many likeliest tokens only; from all at 0.
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Draws from the likeliest tokens only that have this probability together; from all at 1.
    #[arg(long, allow_negative_numbers = true, value_parser = parsed(number::top_p))]
    pub top_p: Option<f64>,
    /// Draws from tokens only that are at least this many times as likely as the likeliest.
    #[arg(long, allow_negative_numbers = true, value_parser = parsed(number::min_p))]
    pub min_p: Option<f64>,
    /// Makes tokens less likely that are there already, if above 1.
    #[arg(long, allow_negative_numbers = true, value_parser = parsed(number::penalty))]
    pub repetition_penalty: Option<f64>,
    /// Seed of the draws: the same seed gives the same text.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Compares the model's logits with those of the original in this safetensors file (tensors
    /// `input_ids` and `logits`, and those of more cases, see `burn_decoder::import::parity`).
    #[arg(long, value_name = "FILE")]
    pub parity: Option<PathBuf>,
    /// The greatest difference of two logits that --parity lets pass.
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    #[arg(value_parser = parsed(number::tolerance))]
    pub tolerance: f64,
    /// Measures how fast the model is, as llama-bench does: tokens a second of a prompt (pp512), and
    /// of tokens written one after the other (tg128), mean and standard deviation.
    #[arg(long)]
    pub bench: bool,
    /// Tokens of the prompt that --bench reads.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, requires = "bench")]
    #[arg(value_parser = number::at_least_one)]
    pub bench_prompt: usize,
    /// Tokens that --bench writes.
    #[arg(long, value_name = "TOKENS", default_value_t = 128, requires = "bench")]
    #[arg(value_parser = number::at_least_one)]
    pub bench_new: usize,
    /// Tokens that stand before those that --bench writes; llama-bench calls it depth.
    #[arg(long, value_name = "TOKENS", default_value_t = 0, requires = "bench")]
    pub bench_depth: usize,
    /// How often --bench runs each of the two, behind one run to warm up.
    #[arg(long, default_value_t = 5, requires = "bench", value_parser = number::at_least_one)]
    pub repetitions: usize,
    /// Prints what --bench measures as JSON.
    #[arg(long, requires = "bench")]
    pub json: bool,
}

/// The type of the parameters.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum PrecisionChoice {
    /// f32, whatever the file holds.
    F32,
    /// That of the file where the backend has it.
    AsStored,
    /// f16, also of what is computed.
    F16,
    /// bf16, also of what is computed.
    Bf16,
}

/// The type of what a cache keeps.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum CacheChoice {
    /// As the model computes them.
    AsComputed,
    /// f16.
    F16,
    /// bf16.
    Bf16,
    /// Blocks of 32 numbers of 8 bits that share a scale.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Args {
    /// A cache with room for so many tokens.
    pub fn cache(&self, tokens: usize) -> CacheConfig {
        let precision = match self.cache_precision {
            CacheChoice::AsComputed => CachePrecision::AsComputed,
            CacheChoice::F16 => CachePrecision::F16,
            CacheChoice::Bf16 => CachePrecision::Bf16,
            CacheChoice::Q8_0 => CachePrecision::Q8_0,
        };
        CacheConfig::new().with_capacity(tokens).with_precision(precision)
    }

    /// How the parameters are loaded.
    pub fn precision(&self) -> Precision {
        match self.precision {
            None if self.backend == Backend::Wgpu => Precision::F32,
            Some(PrecisionChoice::F32) => Precision::F32,
            None | Some(PrecisionChoice::AsStored) => Precision::AsStored,
            Some(PrecisionChoice::F16) => Precision::F16,
            Some(PrecisionChoice::Bf16) => Precision::Bf16,
        }
    }
}

/// A parser of numbers that `check` lets pass.
fn parsed(
    check: fn(f64) -> Result<f64, String>,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(number) => check(number),
        Err(_) => Err(format!("expected a number, got {text}")),
    }
}

/// What the numbers of the command line and of `generation_config.json` must be.
pub mod number {
    /// Of tokens.
    pub fn at_least_one(text: &str) -> Result<usize, String> {
        match text.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(format!("expected a whole number of at least 1, got {text}")),
        }
    }

    pub fn temperature(t: f64) -> Result<f64, String> {
        expect(t.is_finite() && t >= 0.0, "a finite number of at least 0", t)
    }

    pub fn count(k: f64) -> Result<f64, String> {
        expect(k >= 0.0 && k.fract() == 0.0 && k < 1e15, "a whole number of at least 0", k)
    }

    pub fn top_p(p: f64) -> Result<f64, String> {
        expect(p > 0.0 && p <= 1.0, "a probability above 0 and of at most 1", p)
    }

    pub fn min_p(p: f64) -> Result<f64, String> {
        expect((0.0..=1.0).contains(&p), "a share from 0 to 1", p)
    }

    /// Logits are f32, in which a penalty that is too large or too small would be no number.
    pub fn penalty(r: f64) -> Result<f64, String> {
        let narrow = r as f32;
        expect(narrow.is_normal() && narrow > 0.0, "a number above 0 that f32 has", r)
    }

    pub fn tolerance(t: f64) -> Result<f64, String> {
        expect(t >= 0.0, "a number of at least 0", t)
    }

    fn expect(holds: bool, expected: &str, got: f64) -> Result<f64, String> {
        if holds { Ok(got) } else { Err(format!("expected {expected}, got {got}")) }
    }
}
