//! Checks a published model, or a saved run of the copy example, for leaks.
//!
//! ```text
//! cargo run --release -p check -- --model FOLDER --page report.html    # exit 0: no leak, 3: a leak
//! cargo run --release -p check -- --model model.gguf
//! cargo run --release -p copy -- --out run
//! cargo run --release -p check -- run --svg influence.svg --json report.json
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn_decoder::causality::Report;
use check::{Failure, checks, load, load_published, page};
use clap::{ArgGroup, Parser};
use mimalloc::MiMalloc;
use shared::{Backend, Output, check_writable, replace_file, say};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Checks a model: does it see the future, or another row of the batch?
#[derive(Parser)]
#[command(name = "check", version, max_term_width = 100, args_override_self = true)]
#[command(group(ArgGroup::new("what").required(true)))]
#[command(
    after_help = "Exit codes: 0 causal; 2 bad input; 3 a leak was found, or it is not proven \
                        that there is none; 4 what was found could not be written."
)]
struct Args {
    /// The folder that `cargo run --release -p copy -- --out DIR` wrote.
    #[arg(group = "what")]
    run: Option<PathBuf>,
    /// A published model: a folder of Hugging Face, with config.json and safetensors, or a GGUF file.
    #[arg(long, value_name = "FOLDER|FILE", group = "what")]
    model: Option<PathBuf>,
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
    /// Tokens in each row.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(2..=4096))]
    length: u16,
    /// Writes a page for a browser: the verdict, what it means, and the picture of who moves whom.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Draws who moves whom, beside what is promised, as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Writes the report on the tokens path as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
    // Whatever can be wrong is found before the first check.
    let device = args.backend.device("check").map_err(Failure::Input)?;
    for file in args.svg.iter().chain(&args.json).chain(&args.page) {
        check_writable(file).map_err(|error| Failure::input(file, error))?;
    }
    let (name, model) = match (&args.model, &args.run) {
        (Some(folder), _) => (folder, load_published(folder, &device)?),
        (None, Some(run)) => (run, load(run, &device)?),
        (None, None) => return Err(Failure::Input("expected a run, or --model".into())),
    };
    let length = usize::from(args.length);
    checks::try_forward(&model, length, &device)?;

    let tokens = checks::by_tokens(&model, length, &device)?;
    let kept = keep(args, &tokens);
    writeln!(out, "From tokens to logits.\n{tokens}")?;
    let embeddings = checks::by_embeddings(&model, length, &device)?;
    writeln!(out, "From embeddings to logits, by gradients too.\n{embeddings}")?;
    out.flush()?;
    let kept = kept.and_then(|()| match &args.page {
        Some(file) => write(file, &page::page(&name.display().to_string(), &tokens, &embeddings)),
        None => Ok(()),
    });
    kept.map(|()| tokens.is_causal() && embeddings.is_causal())
}

/// Writes the files that were asked for.
fn keep(args: &Args, report: &Report) -> Result<(), Failure> {
    if let (Some(file), [influence, ..]) = (&args.svg, &report.paths[0].influence[..]) {
        write(file, &influence.to_svg())?;
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(report)
            .map_err(|error| Failure::Output(format!("{}: {error}", file.display())))?;
        write(file, &json)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    replace_file(file, text.as_bytes())
        .map_err(|error| Failure::Output(format!("{}: {error}", file.display())))
}
