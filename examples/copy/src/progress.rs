//! Progress: a bar on a terminal, a line for each tenth of the way anywhere else.

use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use shared::say;

use super::train::Look;

/// Lines that a run prints where there is no terminal.
const LINES: usize = 10;

/// Tells how far training is, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    steps: usize,
    floor: Option<f64>,
    started: Instant,
    lines: usize,
}

impl Progress {
    /// `floor` is shown beside the loss of the first half, if it is known.
    pub fn new(steps: usize, floor: Option<f64>) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps as u64);
            let template = "{bar:24} {pos}/{len} {msg}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, steps, floor, started: Instant::now(), lines: 0 }
    }

    pub fn show(&mut self, look: &Look) {
        let floor = self.floor.map_or(String::new(), |floor| format!(" (floor {floor:.3})"));
        let message = format!(
            "loss {:.3}: first half {:.3}{floor}, copied half {:.3}; exact copies {:3.0} %",
            look.loss,
            look.first,
            look.copied,
            100.0 * look.exact
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(look.step as u64);
                bar.set_message(message);
            }
            None if look.step * LINES >= self.steps * self.lines => {
                let left = self.started.elapsed().mul_f64((self.steps - look.step) as f64)
                    / look.step as u32;
                say(format_args!(
                    "step {:>5} of {}, {message}, {} left",
                    look.step,
                    self.steps,
                    HumanDuration(left)
                ));
                self.lines = look.step * LINES / self.steps + 1;
            }
            None => {}
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
