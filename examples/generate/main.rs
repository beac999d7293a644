//! Lets a published model speak: loads a Hugging Face folder or a GGUF file and goes on from a prompt.
//!
//! ```text
//! cargo run --release -p generate -- --model FOLDER --prompt "Once upon a time"
//! cargo run --release -p generate -- --model FOLDER --chat --prompt "What is a mask?"
//! cargo run --release -p generate -- --model FILE.gguf --chat --prompt "What is a mask?"
//! cargo run --release -p generate -- --model FOLDER --parity reference.safetensors
//! cargo run --release -p generate -- --model FILE.gguf --bench
//! ```
//!
//! `FOLDER` holds `config.json`, `model.safetensors` (or its shards) and `tokenizer.json`, as
//! `huggingface-cli download MODEL --local-dir FOLDER` or `save_pretrained` leaves them; `FILE.gguf`
//! holds all of it. The text comes to standard output as it is written, all else to standard error.

mod args;
mod bench;
mod chat;
mod failure;
mod files;
mod gguf_tokenizer;
mod load;
mod output;
mod prompts;
mod sampling;
mod source;
mod speak;
mod tokenizer;

#[cfg(test)]
mod tests;

use std::io::{Write, stdout};
use std::process::ExitCode;

use burn_decoder::import::parity;
use clap::Parser;
use mimalloc::MiMalloc;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::{Output, tell};
use crate::source::Source;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match run(&Args::parse(), &mut stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            tell(format_args!("error: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

/// Does what the arguments say, and prints to `out`. Gives whether all that was compared agrees.
fn run(args: &Args, out: &mut dyn Write) -> Result<bool, Failure> {
    let out = &mut Output::new(out);
    let device = args.backend.device("generate")?;
    // Whatever can be wrong without the weights is found before they are read.
    let source = Source::open(&args.model)?;
    let voice = match args.prompt.is_empty() {
        true => None,
        false => Some(speak::Voice::open(args, &source)?),
    };
    let dump = args.parity.as_ref().map(|file| parity::read(file, &device)).transpose()?;

    let loaded = load::load(source, args, &device)?;
    let mut agrees = true;
    for case in dump.iter().flatten() {
        let parity = case.check(&loaded.model, args.tolerance)?;
        agrees &= parity.agrees();
        out.print(format_args!("{parity}\n"))?;
    }
    if args.bench {
        bench::run(&loaded.model, args, out)?;
    }
    if let Some(voice) = voice {
        voice.speak(&loaded, args, out)?;
    }
    Ok(agrees)
}
