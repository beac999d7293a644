//! The page of a run: one HTML file that needs nothing else.

use std::path::Path;

use burn_decoder::causality::Report;
use serde_json::Value;
use shared::chart::{Curve, curves, smoothed};

use super::args::Args;
use super::failure::Verdict;
use super::history::{History, Validation};
use super::run_folder::Outcome;

/// Points of the training curve.
const MOST_POINTS: usize = 400;

/// Samples that are shown.
const MOST_SAMPLES: usize = 6;

/// What is on the page.
pub struct Page<'a> {
    pub args: &'a Args,
    pub folder: &'a Path,
    pub outcome: &'a Outcome,
    pub history: &'a History,
    pub report: &'a Option<Report>,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;\
    padding:0 1rem;color:#1a1a1a;background:#fff}h1,h2{line-height:1.2}\
    pre{background:#f5f5f3;padding:.8rem;overflow-x:auto;white-space:pre-wrap}\
    table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;\
    vertical-align:top}th{font-weight:600}svg{max-width:100%;height:auto}\
    .leak{color:#b3261e;font-weight:600}";

impl Page<'_> {
    /// The page.
    pub fn to_html(&self) -> String {
        let sections = [
            self.summary(),
            self.curves(),
            self.samples(),
            self.influence(),
            self.settings(),
            self.commands(),
        ];
        let title = self.folder.file_name().unwrap_or_default().to_string_lossy();
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n{}\n</body></html>\n",
            sections.join("\n"),
            title = escaped(&title),
        )
    }

    fn summary(&self) -> String {
        let Outcome { step, validation_loss, bits_per_byte, training_loss, .. } = self.outcome;
        let words = match (self.outcome.verdict, &self.outcome.stopped) {
            (Verdict::Trained, _) => "No position sees a later one.".to_string(),
            (Verdict::Leak, why) => format!(
                "<span class=\"leak\">The model sees the future{}</span>",
                why.iter().map(|why| format!(": {}", escaped(why))).collect::<String>()
            ),
        };
        if self.history.validations.is_empty() {
            return format!("<p>{words}</p>");
        }
        format!(
            "<p>Validation loss <b>{validation_loss:.4}</b> nats a token, <b>{bits_per_byte:.4}</b> \
             bits a byte, at step {step} of {}; training loss {training_loss:.4}. {words}</p>",
            self.args.settings.steps
        )
    }

    fn curves(&self) -> String {
        let History { steps, validations } = self.history;
        let over = |value: fn(&Validation) -> f64| {
            validations.iter().map(|seen| (seen.step as f64, value(seen))).collect::<Vec<_>>()
        };
        let curve =
            |name: &str, colour, width, points| Curve { name: name.into(), colour, width, points };
        let loss = curves(
            "loss",
            "step",
            "nats a token",
            &[
                curve("training", "#9ecae1", 1.5, smoothed(steps, MOST_POINTS)),
                curve("validation", "#08519c", 2.5, over(|seen| seen.loss)),
            ],
        );
        let noise = curves(
            "noise",
            "step",
            "nats a token",
            &[curve("loss on noise", "#636363", 2.0, over(|seen| seen.noise))],
        );
        format!(
            "<h2>Curves</h2>{loss}<p>Loss on fresh random tokens, which no causal model can predict: \
             it would fall if the future were seen.</p>{noise}"
        )
    }

    fn samples(&self) -> String {
        let seen = &self.history.validations;
        let stride = seen.len().div_ceil(MOST_SAMPLES).max(1);
        // The last is always among them.
        let shown = seen.iter().rev().step_by(stride).collect::<Vec<_>>().into_iter().rev();
        let sample = |seen: &Validation| {
            format!("<h3>Step {}</h3><pre>{}</pre>", seen.step, escaped(&seen.sample))
        };
        let shown: String = shown.filter(|seen| !seen.sample.is_empty()).map(sample).collect();
        if shown.is_empty() { shown } else { format!("<h2>What it writes</h2>{shown}") }
    }

    fn influence(&self) -> String {
        let Some(report) = self.report else { return String::new() };
        let influence = report.paths.first().and_then(|path| path.influence.first());
        let picture = influence.map(|seen| seen.to_svg()).unwrap_or_default();
        let words = report.to_string();
        let words = words.lines().next().unwrap_or_default();
        format!(
            "<h2>Who influences whom</h2><p>{}, in {} passes over rows of {} random tokens. Rows are \
             queries, columns keys: beside what was promised, which token moves what is said behind \
             which.</p>{picture}",
            escaped(words),
            report.passes,
            report.length
        )
    }

    fn settings(&self) -> String {
        let settings = serde_json::to_value(&self.args.settings).unwrap_or_default();
        // As the command line has them; what is not given is left out.
        let row = |(name, value): (&String, &Value)| {
            let value = match value {
                Value::Null => return String::new(),
                Value::Array(items) if items.is_empty() => return String::new(),
                Value::String(word) if !word.trim().is_empty() => word.clone(),
                other => other.to_string(),
            };
            let name = name.replace('_', "-");
            format!("<tr><th>{}</th><td>{}</td></tr>", escaped(&name), escaped(&value))
        };
        let rows: String = settings.as_object().into_iter().flatten().map(row).collect();
        format!("<h2>Settings</h2><table>{rows}</table>")
    }

    fn commands(&self) -> String {
        let run = quoted(&self.folder.to_string_lossy());
        let mut again: Vec<String> = vec!["cargo run --release -p train --".into()];
        again.extend(std::env::args().skip(1).map(|argument| quoted(&argument)));
        let again = again.join(" ");
        let speak = |folder: &str| {
            format!(
                "cargo run --release -p generate -- --model {folder} --prompt \"Once upon a time\""
            )
        };
        let speak = match (self.outcome.verdict, self.args.settings.lora, &self.args.export) {
            (Verdict::Leak, ..) => String::new(),
            (_, Some(_), None) => {
                format!("# with the adapters merged\n{again} --export merged\n{}", speak("merged"))
            }
            (_, Some(_), Some(merged)) => speak(&quoted(&merged.to_string_lossy())),
            (_, None, _) => speak(&run),
        };
        format!(
            "<h2>Commands</h2><pre># killed at any moment, it goes on by the same command\n{}\n{}</pre>",
            escaped(&again),
            escaped(&speak)
        )
    }
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.into();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
