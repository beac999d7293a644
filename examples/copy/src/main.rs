//! The copy task, from the command line.

use std::io::stdout;
use std::process::ExitCode;

use clap::Parser;
use copy::{Args, run};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match run(Args::parse(), &mut stdout().lock()) {
        Ok(verdict) => verdict.code().into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code().into()
        }
    }
}
