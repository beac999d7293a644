//! Measures the cases that it reads, one a line, and answers each with its median in milliseconds:
//! the Rust side of `compare.py`, which has PyTorch measure the same in between.
//!
//! ```text
//! echo fused@flex/op/causal/training/2048 | cargo bench -p benches --features flex --bench compare
//! ```

use std::io::{BufRead, Write};

use benches::Case;

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        let answer = match Case::parse(line.trim()) {
            Ok(case) => case.median().to_string(),
            Err(why) => why,
        };
        let mut out = std::io::stdout();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return; // nobody reads any more
        }
    }
}
