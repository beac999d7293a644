//! Checks Burn models of other crates from outside, and prints what was found. Exit code 3 if a check's
//! outcome is not the one that is written beside it here.

mod bunsen_models;
mod burn_nn_models;

use std::process::ExitCode;

use burn::tensor::Device;
use burn_decoder::causality::{Report, Verdict};

/// What a check of a model said when it was written down.
pub enum Expected {
    /// No leak, and all paths agree.
    Right,
    /// No leak, but what was said beside it.
    Note(&'static str),
    /// A leak, of this name.
    Leak(&'static str),
}

/// A model, and what was found.
pub struct Finding {
    pub name: &'static str,
    pub expected: Expected,
    pub report: Report,
}

fn main() -> ExitCode {
    let device = Device::flex();
    device.seed(0);
    let all = std::env::args().any(|argument| argument == "--all");
    let findings = [bunsen_models::check(&device), burn_nn_models::check(&device)];
    let mut as_written = true;
    for Finding { name, expected, report } in findings.into_iter().flatten() {
        let verdict = match report.verdict() {
            Verdict::Causal if report.keeps_promise() => "causal, and all paths agree".to_string(),
            Verdict::Causal => "causal, but paths differ or influence is missing".into(),
            Verdict::NotProven(why) => format!("not proven: {why}"),
            Verdict::Leak => report.first_leak().map_or("leak".into(), |leak| format!("{leak}")),
        };
        let is_as_written = match expected {
            Expected::Right => report.keeps_promise(),
            Expected::Note(_) => report.leaks().next().is_none(),
            Expected::Leak(words) => verdict.contains(words),
        };
        as_written &= is_as_written;
        println!("{} {name}\n    {verdict}", if is_as_written { "ok" } else { "OTHER" });
        if let Expected::Note(note) = expected {
            println!("    {note}");
        }
        if all || !is_as_written {
            println!("{report}");
        }
    }
    if as_written { ExitCode::SUCCESS } else { ExitCode::from(3) }
}
