//! Draws benches/results.csv as the bar chart of BENCHMARKS.md.
//!
//! ```text
//! cargo run --release -p benches --bin chart
//! ```
//!
//! A line of the file is `what,against,from,to`: how many times as fast as `against` the crate is, at
//! least and at most of several runs. Lines that start with # say something about the file.

use std::error::Error;
use std::fs;
use std::path::Path;

use shared::chart::{Bar, bars};

/// Who the crate is compared with, and in which colour; the darker part of a bar lies between the
/// least and the most.
const COLOURS: [(&str, &str); 4] = [
    ("PyTorch", "#ca5020"),
    ("transformers", "#963c6e"),
    ("Burn", "#0571b0"),
    ("itself", "#5a823c"),
];

/// One line of the file.
struct Measured {
    what: String,
    against: String,
    from: f64,
    to: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = read(&fs::read_to_string(folder.join("results.csv"))?)?;
    Ok(fs::write(folder.join("../docs/benchmarks.svg"), draw(&results))?)
}

fn read(text: &str) -> Result<Vec<Measured>, Box<dyn Error>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).skip(1);
    lines
        .map(|line| {
            let wrong = || format!("results.csv: expected what,against,from,to, got {line}");
            let fields: Vec<&str> = line.split(',').collect();
            let [what, against, from, to] = fields[..] else { return Err(wrong().into()) };
            let [from, to] = [from, to].map(str::parse::<f64>);
            let (from, to) = (from.map_err(|_| wrong())?, to.map_err(|_| wrong())?);
            if !(0.0 < from && from <= to && to.is_finite()) {
                return Err(wrong().into());
            }
            if !COLOURS.iter().any(|(name, _)| against.starts_with(name)) {
                return Err(wrong().into());
            }
            Ok(Measured { what: what.into(), against: against.into(), from, to })
        })
        .collect()
}

fn draw(results: &[Measured]) -> String {
    let bar = |one: &Measured| {
        let colour = COLOURS.iter().find(|(name, _)| one.against.starts_with(name));
        Bar {
            label: format!("{}, against {}", one.what, one.against),
            colour: colour.expect("read allows no other").1,
            from: one.from,
            to: one.to,
            numbers: range(one),
        }
    };
    bars("times as fast as", &COLOURS, &results.iter().map(bar).collect::<Vec<_>>())
}

fn range(one: &Measured) -> String {
    if one.from == one.to {
        return number(one.from);
    }
    format!("{} to {}", number(one.from), number(one.to))
}

/// A number with no more digits than it needs.
fn number(value: f64) -> String {
    let text = match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').into()
}
