//! Trains a language model, from the command line.

use std::io::stdout;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use shared::{Output, say};
use train::{Args, run};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Not locked: the dashboard writes there, too, from another thread.
    match run(&Args::parse(), &mut Output::new(stdout())) {
        Ok(verdict) => verdict.code().into(),
        Err(failure) => {
            say(format_args!("error: {failure}"));
            failure.code().into()
        }
    }
}
