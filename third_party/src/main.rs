//! Checks Burn models of other crates from outside, and prints what was found. Exit code 3 if that is not
//! what is written down here.
//!
//! `--all` prints whole reports, and a word the checks whose names hold it alone.

mod bunsen_models;
mod burn_nn_models;
#[cfg(feature = "delta")]
mod delta_models;

use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::Device;
use burn_decoder::causality::{Report, Verdict};

/// A model, and what its check is known to say.
#[derive(Clone, Copy)]
pub struct Finding {
    pub name: &'static str,
    /// Words of the summary.
    pub says: &'static str,
    pub check: fn(&Device) -> Report,
}

/// What most checks say.
pub const RIGHT: &str = "causal, and all paths agree";

/// One line for a report.
fn summary(report: &Report) -> String {
    let differs = report.paths.iter().find_map(|path| path.disagreement.as_ref());
    match (report.verdict(), differs) {
        (Verdict::Causal, Some(differs)) => format!(
            "causal; the {} path differs from query {} on, by up to {:.1e} where rounding is {:.1e}: {}",
            differs.path, differs.query, differs.size, differs.tolerance, differs.diagnosis
        ),
        (Verdict::Causal, None) if report.keeps_promise() => RIGHT.to_string(),
        (Verdict::Causal, None) => "causal; influence is missing".to_string(),
        (Verdict::NotProven(why), _) => format!("not proven: {why}"),
        (Verdict::Leak, _) => match report.first_leak() {
            Some(leak) => format!("leak on the {} path: {leak}", leak.path),
            None => "leak".to_string(),
        },
    }
}

fn main() -> ExitCode {
    let device = Device::flex();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = arguments.iter().any(|argument| argument == "--all");
    let word = arguments.iter().find(|argument| !argument.starts_with("--"));
    #[allow(unused_mut)]
    let mut findings = [bunsen_models::FINDINGS, burn_nn_models::FINDINGS].concat();
    #[cfg(feature = "delta")]
    findings.extend_from_slice(delta_models::FINDINGS);
    let mut as_written = true;
    for Finding { name, says, check } in &findings {
        if word.is_some_and(|word| !name.contains(word.as_str())) {
            continue;
        }
        device.seed(0);
        let start = Instant::now();
        let report = check(&device);
        let (seconds, passes) = (start.elapsed().as_secs_f32(), report.passes);
        let got = summary(&report);
        let is_as_written = got.contains(says);
        as_written &= is_as_written;
        let mark = if is_as_written { "ok   " } else { "OTHER" };
        println!("{mark} {name} ({passes} passes, {seconds:.1} s)\n      {got}");
        if all || !is_as_written {
            println!("{report}");
        }
    }
    if as_written { ExitCode::SUCCESS } else { ExitCode::from(3) }
}
