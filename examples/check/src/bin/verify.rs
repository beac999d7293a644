//! Does this machine's device compute attention right? Every kernel against plain loops on the host.
//!
//! ```text
//! cargo run --release -p check --bin verify --features wgpu -- --backend wgpu
//! ```

use std::io::Write;
use std::process::ExitCode;

use burn_decoder::verify;
use check::Failure;
use clap::Parser;
use mimalloc::MiMalloc;
use shared::{Backend, Output, say};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs every attention kernel that serves the device against plain loops on the host.
#[derive(Parser)]
#[command(name = "verify", version, max_term_width = 100, args_override_self = true)]
#[command(
    after_help = "Exit codes: 0 all is right; 2 bad input; 3 something is wrong; 4 what was \
                        found could not be written."
)]
struct Args {
    /// What the tensors live on.
    #[arg(long, alias = "device", value_enum, default_value_t)]
    backend: Backend,
}

fn main() -> ExitCode {
    let (code, error) = match run(&Args::parse(), &mut Output::stdout()) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(3),
        Err(Failure::Input(error)) => (2, error),
        Err(Failure::Output(error)) => (4, error),
    };
    say(format_args!("error: {error}"));
    ExitCode::from(code)
}

fn run(args: &Args, out: &mut impl Write) -> Result<bool, Failure> {
    let device = args.backend.device("check --bin verify").map_err(Failure::Input)?;
    let found = verify(&device);
    writeln!(out, "{found}")?;
    out.flush()?;
    Ok(found.is_right())
}
