//! Measures the cases that it reads, one a line, and answers each with its median in milliseconds:
//! the Rust side of `compare.py`, which has PyTorch measure the same in between.
//!
//! ```text
//! echo fused@flex/op/causal/training/2048 | cargo bench --features flex --bench compare
//! ```
#![cfg_attr(feature = "ndarray", allow(deprecated))]

mod cases;

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use cases::Case;

/// Time to spend on a case, once it ran three times.
const BUDGET: Duration = Duration::from_millis(1500);
const MOST: usize = 40;

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        let answer = match Case::parse(line.trim()) {
            Ok(case) => median(&mut case.prepare()).to_string(),
            Err(why) => why,
        };
        println!("{answer}");
        std::io::stdout().flush().expect("an open output");
    }
}

/// The median time of `step` in milliseconds, after one run to warm up. `pytorch.py` has the same rule.
fn median(step: &mut dyn FnMut()) -> f64 {
    step();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || (start.elapsed() < BUDGET && times.len() < MOST) {
        let begin = Instant::now();
        step();
        times.push(begin.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
