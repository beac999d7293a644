//! Measures the cases that it reads, one a line, and answers each with its median in milliseconds:
//! the Rust side of `compare.py` and `gpu.py`, which have PyTorch measure the same in between. To
//! `adapter@BACKEND` it answers what the device calls itself.
//!
//! ```text
//! echo fused@flex/op/causal/training/2048 | cargo bench -p benches --features flex --bench compare
//! ```

use std::io::{BufRead, Write};

use benches::{Case, adapter, device};

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of text");
        let asked = line.trim();
        let answer = match (asked.strip_prefix("adapter@"), Case::parse(asked)) {
            (Some(backend), _) => device(backend).map_or("none".into(), |device| adapter(&device)),
            (None, Ok(case)) => case.median().to_string(),
            (None, Err(why)) => why,
        };
        let mut out = std::io::stdout();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return; // nobody reads any more
        }
    }
}
