//! Draws the picture of the README's first screen: a few masks, and who influences whom in a kept
//! run of the copy example.
//!
//! ```text
//! cargo run --release -p copy -- --out run
//! cargo run --release -p check --bin first_screen -- run docs/first-screen.svg
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use burn_decoder::causality::CausalityCheck;
use burn_decoder::decoder::Batch;
use burn_decoder::mask::{Grid, Mask};
use check::{Failure, load};
use clap::Parser;
use mimalloc::MiMalloc;
use shared::{Backend, replace_file, say};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Queries and keys of each mask.
const TOKENS: usize = 7;
/// Tokens whose influence on each other is drawn.
const LENGTH: usize = 13;
/// Between the parts, in pixels.
const GAP: f64 = 12.0;

/// Draws masks, and who influences whom in a kept run, as one SVG.
#[derive(Parser)]
#[command(name = "first_screen", version, max_term_width = 100, args_override_self = true)]
struct Args {
    /// The folder that `cargo run --release -p copy -- --out DIR` wrote.
    run: PathBuf,
    /// The picture.
    svg: PathBuf,
    /// What the tensors live on.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
}

fn main() -> ExitCode {
    let (code, error) = match draw(&Args::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Input(error)) => (2, error),
        Err(Failure::Output(error)) => (4, error),
    };
    say(format_args!("error: {error}"));
    ExitCode::from(code)
}

fn draw(args: &Args) -> Result<(), Failure> {
    let device = args.backend.device("check --bin first_screen").map_err(Failure::Input)?;
    let model = load(&args.run, &device)?;
    let report = CausalityCheck::tokens(model.vocab_size(), LENGTH, &device, |tokens| {
        let output = model.forward(tokens, Batch::new());
        output.expect("tokens of the vocabulary").logits
    })
    .run()?;
    let influence = &report.paths[0].influence[0];

    let grid = Grid::square(1, TOKENS);
    let causal = Mask::look_ahead();
    let masks = [
        causal.clone() & Mask::lengths([TOKENS - 2]),
        causal.clone() & Mask::window_keys(3)?,
        causal & Mask::document_lengths([[3, 4]]),
    ];
    let drawn = masks.iter().map(|mask| Ok(mask.draw(&grid)?.to_svg()));
    let drawn = drawn.collect::<Result<Vec<_>, burn_decoder::Error>>()?;
    let picture = beneath(&[beside(&drawn), influence.to_svg()]);
    replace_file(&args.svg, picture.as_bytes())
        .map_err(|error| Failure::Output(format!("{}: {error}", args.svg.display())))
}

/// One picture out of several, from left to right.
fn beside(parts: &[String]) -> String {
    let sizes: Vec<[f64; 2]> = parts.iter().map(|part| size(part)).collect();
    let height = sizes.iter().map(|size| size[1]).fold(0.0, f64::max);
    let mut at = 0.0;
    let placed = parts.iter().zip(&sizes).map(|(part, size)| {
        let part = place(part, at, 0.0);
        at += size[0] + GAP;
        part
    });
    let inner: String = placed.collect();
    page(at - GAP, height, &inner)
}

/// One picture out of several, from top to bottom.
fn beneath(parts: &[String]) -> String {
    let sizes: Vec<[f64; 2]> = parts.iter().map(|part| size(part)).collect();
    let width = sizes.iter().map(|size| size[0]).fold(0.0, f64::max);
    let mut at = 0.0;
    let placed = parts.iter().zip(&sizes).map(|(part, size)| {
        let part = place(part, (width - size[0]) / 2.0, at);
        at += size[1] + GAP;
        part
    });
    let inner: String = placed.collect();
    page(width, at - GAP, &inner)
}

fn page(width: f64, height: f64, inner: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{inner}</svg>\n"
    )
}

/// The picture inside of another one, with its corner there.
fn place(svg: &str, x: f64, y: f64) -> String {
    svg.replacen("<svg ", &format!("<svg x=\"{x:.0}\" y=\"{y:.0}\" "), 1)
}

/// Width and height, as the crate's own pictures say them in their first tag.
fn size(svg: &str) -> [f64; 2] {
    ["width", "height"].map(|name| {
        let value =
            svg.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("an SVG without {name}"))
    })
}
