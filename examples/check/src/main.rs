//! Checks a saved run of the copy example for leaks.
//!
//! ```text
//! cargo run --release -p copy -- --out run
//! cargo run --release -p check -- run            # exit 0: no leak
//! cargo run --release -p check -- run --svg influence.svg --json report.json
//! ```
//!
//! The device is Burn's default one; `BURN_DEVICE=ndarray`, `flex` or `wgpu` chooses among those
//! that are compiled in.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::attention::Kernel;
use burn_decoder::causality::{CausalityCheck, Report};
use burn_decoder::decoder::{
    Batch, LanguageModel, LanguageModelConfig, LanguageModelOutput, Positions, Request,
};
use burn_decoder::mask::Mask;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mimalloc::MiMalloc;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Checks a saved run of the copy example: does the model see the future, or another row?
#[derive(Parser)]
#[command(name = "check", max_term_width = 100)]
#[command(after_help = "Exit codes: 0 causal; 2 bad input; 3 a leak was found.")]
struct Args {
    /// The folder that `cargo run --release -p copy -- --out DIR` wrote.
    run: PathBuf,
    /// Tokens in each row.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(2..=4096))]
    length: u16,
    /// Draws who moves whom, beside what is promised, as a picture.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Writes the report on the tokens path as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What this command needs to know of the run's config.json.
#[derive(Deserialize)]
struct RunConfig {
    model: LanguageModelConfig,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let device = Device::default();
    let model = load(&args.run, &device)?;
    let length = usize::from(args.length);

    let tokens = check_tokens(&model, length, &device)?;
    println!("From tokens to logits.\n{tokens}");
    let embeddings = check_embeddings(&model, length, &device)?;
    println!("From embeddings to logits, by gradients too.\n{embeddings}");

    if let (Some(file), [influence, ..]) = (&args.svg, &tokens.paths[0].influence[..]) {
        write(file, &influence.to_svg())?;
    }
    if let Some(file) = &args.json {
        write(file, &serde_json::to_string_pretty(&tokens)?)?;
    }
    Ok(tokens.is_causal() && embeddings.is_causal())
}

fn load(folder: &Path, device: &Device) -> Result<LanguageModel, Box<dyn Error>> {
    let in_file = |path: &Path, error: &dyn Error| format!("{}: {error}", path.display());
    let path = folder.join("config.json");
    let json = fs::read_to_string(&path).map_err(|error| in_file(&path, &error))?;
    let config: RunConfig = serde_json::from_str(&json).map_err(|error| in_file(&path, &error))?;
    let path = folder.join("model.bpk");
    let model = config.model.init(device)?;
    Ok(model.try_load_file(&path).map_err(|error| in_file(&path, &error))?)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The model, and a memory for its cross-attention if it has one. The memory is the same in every
/// row, since it is no part of the check.
fn forward(
    model: &LanguageModel,
    embedded: Tensor<3>,
    weights: bool,
    kernel: Kernel,
) -> LanguageModelOutput {
    let request = Request::new().with_weights(weights).with_kernel(kernel);
    let mut batch = Batch::new();
    if model.decoder.layers.iter().any(|layer| layer.cross_attention.is_some()) {
        const STATES: usize = 5;
        let [rows, _, width] = embedded.dims();
        let states = (0..STATES * width).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
        let states = TensorData::new(states, [1, STATES, width]);
        let states = Tensor::<3>::from_data(states, &embedded.device());
        batch = batch.with_memory(states.expand([rows, STATES, width]), Mask::all_visible());
    }
    model.forward_embedded(embedded, batch.asking(request)).expect("the input fits the model")
}

/// Tokens to logits: returning the weights or not, by the fastest kernel or the simplest.
fn check_tokens(
    model: &LanguageModel,
    length: usize,
    device: &Device,
) -> Result<Report, burn_decoder::Error> {
    let run = |tokens: Tensor<2, Int>, weights, kernel| {
        let embedded =
            model.embed(tokens, &Positions::default()).expect("positions fit any length");
        forward(model, embedded, weights, kernel)
    };
    let check = CausalityCheck::tokens(model.vocab_size(), length, device, |tokens| {
        run(tokens, false, Kernel::Auto).logits
    })
    .with_weights(|tokens| {
        let output = run(tokens, true, Kernel::Auto);
        (output.logits, Tensor::cat(output.self_weights, 1)) // [batch, layers * heads, length, length]
    })
    .with_path("reference kernel", |tokens| run(tokens, false, Kernel::Reference).logits);
    with_progress(check.cost()?.total(), |tick| check.with_progress(tick).run())
}

/// Embeddings to logits, by gradients too, with dropout off and on.
fn check_embeddings(
    model: &LanguageModel,
    length: usize,
    device: &Device,
) -> Result<Report, burn_decoder::Error> {
    let training = model.clone().train();
    let check = CausalityCheck::embeddings(model.d_model(), length, device, |embedded| {
        forward(model, embedded, false, Kernel::Auto).logits
    })
    .with_dropout(|embedded| forward(&training, embedded, false, Kernel::Auto).logits);
    with_progress(check.cost()?.total(), |tick| check.with_progress(tick).run())
}

/// Runs a check with a progress bar on standard error.
fn with_progress(
    passes: usize,
    check: impl FnOnce(Box<dyn Fn(usize, usize)>) -> Result<Report, burn_decoder::Error>,
) -> Result<Report, burn_decoder::Error> {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} forward passes, {eta} to go");
    let bar = ProgressBar::new(passes as u64).with_style(style.expect("the template is valid"));
    let tick = bar.clone();
    let report = check(Box::new(move |done, expected| {
        tick.set_length(expected as u64);
        tick.set_position(done as u64);
    }));
    bar.finish_and_clear();
    report
}
