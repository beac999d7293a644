//! Lets a published model speak: loads a Hugging Face folder and goes on from a prompt.
//!
//! ```text
//! cargo run --release -p generate -- --model FOLDER --prompt "Once upon a time"
//! cargo run --release -p generate -- --model FOLDER --chat --prompt "What is a mask?"
//! cargo run --release -p generate -- --model FOLDER --parity reference.safetensors
//! ```
//!
//! `FOLDER` holds `config.json`, `model.safetensors` (or its shards) and `tokenizer.json`, as
//! `huggingface-cli download MODEL --local-dir FOLDER` or `save_pretrained` leaves them. The text
//! comes to standard output as it is written, all else to standard error.

mod args;
mod chat;
mod load;
mod speak;
#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::process::ExitCode;

use burn_decoder::import::parity;
use clap::Parser;
use mimalloc::MiMalloc;

pub use args::Args;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What the user is told when something is wrong.
pub type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run(&Args::parse(), &mut stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what the arguments say, and prints to `out`. Gives whether all that was compared agrees.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let device = args.backend.device("generate")?;
    // Whatever can be wrong without the weights is found before they are read.
    let voice = match args.prompt.is_empty() {
        true => None,
        false => Some(speak::Voice::open(args)?),
    };
    let dump = args.parity.as_ref().map(|file| parity::read(file, &device)).transpose()?;

    let loaded = load::load(args, &device)?;
    let mut agrees = true;
    for case in dump.iter().flatten() {
        let parity = case.check(&loaded.model, args.tolerance)?;
        writeln!(out, "{parity}")?;
        agrees &= parity.agrees();
    }
    if let Some(voice) = voice {
        voice.speak(&loaded, args, out)?;
    }
    Ok(agrees)
}
