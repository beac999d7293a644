//! Checks a model that is none of this crate's: burn-nn's Transformer decoder.
//!
//! ```text
//! cargo run --release -p check --bin check_burn_nn
//! ```
//!
//! First as it should be used, then with its mask forgotten, then with left padding, where burn-nn
//! 0.22.1 lets padded queries see every key. Exit code 0: each was judged as it is.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::{TransformerDecoderConfig, TransformerDecoderInput};
use burn::tensor::{Bool, Tensor, TensorData};
use burn_decoder::causality::{CausalityCheck, Report};
use burn_decoder::mask::Mask;
use clap::Parser;
use mimalloc::MiMalloc;
use shared::{Backend, Output, say};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const WIDTH: usize = 16;
const LENGTH: usize = 12;
const BATCH: usize = 3;
/// Padding in front of each row.
const PADS: [usize; BATCH] = [0, 2, 5];

/// Checks burn-nn's Transformer decoder: as it should be used, without its mask, with left padding.
#[derive(Parser)]
#[command(name = "check_burn_nn", version, max_term_width = 100, args_override_self = true)]
#[command(
    after_help = "Exit codes: 0 each was judged as it is; 1 one was not; 2 bad input; 4 standard \
                        output could not be written."
)]
struct Args {
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
}

fn main() -> ExitCode {
    match run(&Args::parse(), &mut Output::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::from(if error.is::<std::io::Error>() { 4 } else { 2 })
        }
    }
}

/// Whether each use was judged as it is.
fn run(args: &Args, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
    let device = args.backend.device("check --bin check_burn_nn")?;
    let model = TransformerDecoderConfig::new(WIDTH, 32, 2, 2).with_dropout(0.0).init(&device);
    let memory = Tensor::zeros([BATCH, 4, WIDTH], &device);
    let input = |x| TransformerDecoderInput::new(x, memory.clone());
    let look_ahead = || generate_autoregressive_mask(BATCH, LENGTH, &device);
    let mut show = |title: &str, report: &Report| writeln!(out, "--- {title} ---\n{report}");

    let right = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
        model.forward(input(x).target_mask_attn(look_ahead()))
    })
    .with_batch(BATCH)
    .run()?;
    show("with its look-ahead mask", &right)?;

    let forgotten = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| model.forward(input(x)))
        .with_batch(BATCH)
        .run()?;
    show("with the mask forgotten", &forgotten)?;

    let padding: Vec<bool> =
        PADS.iter().flat_map(|&pads| (0..LENGTH).map(move |key| key < pads)).collect();
    let padding = TensorData::new(padding, [BATCH, LENGTH]);
    let padded = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
        let padding = Tensor::<2, Bool>::from_data(padding.clone(), &device);
        model.forward(input(x).target_mask_attn(look_ahead()).target_mask_pad(padding))
    })
    .with_batch(BATCH)
    .with_promise(Mask::look_ahead() & Mask::pad_counts(PADS))
    .run()?;
    show("with left padding", &padded)?;

    Ok(right.is_causal() && !forgotten.is_causal() && !padded.is_causal())
}
