//! How long the parts of a training step take, in milliseconds, and the most memory of the process:
//!
//! ```text
//! cargo bench -p benches --features flex --bench training [-- CASE..]
//! ```
//!
//! A case is `fused@flex/copy/training/24`, for example; see the benches' library. `--seconds N` is the
//! time that is spent on each; `--threads` says what rayon's threads do: `global` (the default), `pool` (the
//! steps run on one of them) or `spinning` (and one other stays awake); `--burns-optimizer` and `--burns-loss` take Burn's AdamW, and Burn's
//! cross-entropy on all logits.

use std::time::{Duration, Instant};

use benches::{Case, Choice, Phases, on_threads};

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CASES: [&str; 4] = [
    "fused@flex/copy/training/24",
    "fused@ndarray/copy/training/24",
    "fused@flex/gpt2/training/64",
    "fused@ndarray/gpt2/training/64",
];

fn main() {
    let mut seconds = 3.0;
    let mut cases = Vec::new();
    let mut choice = Choice::default();
    let mut threads = String::from("global");
    // Cargo adds --bench.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => {
                let number = args.next().and_then(|number| number.parse().ok());
                seconds = number.expect("--seconds: expected a number");
            }
            "--burns-optimizer" => choice.burns_optimizer = true,
            "--threads" => threads = args.next().expect("--threads: expected a word"),
            "--burns-loss" => choice.burns_loss = true,
            _ => cases.push(arg),
        }
    }
    if cases.is_empty() {
        cases = CASES.map(String::from).to_vec();
    }
    println!(
        "{:40} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "case", "forward", "backward", "optimizer", "all", "peak MB"
    );
    let seconds = Duration::from_secs_f64(seconds);
    let all = || {
        for text in cases {
            match Case::parse(&text) {
                Ok(case) => report(&text, &case, choice, seconds),
                Err(why) => println!("{why}"),
            }
        }
    };
    on_threads(&threads, all);
}

/// Medians of all parts.
fn report(text: &str, case: &Case, choice: Choice, time: Duration) {
    let mut step = case.training_step(choice);
    for _ in 0..3 {
        step();
    }
    let start = Instant::now();
    let mut steps = Vec::new();
    while steps.len() < 5 || start.elapsed() < time {
        steps.push(step());
    }
    let median = |part: fn(&Phases) -> Duration| {
        let mut times: Vec<Duration> = steps.iter().map(part).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    let parts = [
        median(|step| step.forward),
        median(|step| step.backward),
        median(|step| step.optimizer),
        median(|step| step.total()),
    ];
    let [forward, backward, optimizer, all] = parts.map(|part| format!("{part:9.3}"));
    println!("{text:40} {forward} {backward} {optimizer} {all} {:>9}", peak());
}

/// The most memory that this process had so far, in MB, where the operating system says so.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(String::from("unknown"), |kib| (kib * 1024 / 1_000_000).to_string())
}
