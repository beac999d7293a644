//! The median in milliseconds of every case of the sweeps below whose text has FILTER in it:
//!
//! ```text
//! cargo bench -p benches --features flex --bench layers [-- FILTER]
//! ```

use std::io::Write;

use benches::Case;

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Sweep = (&'static str, &'static [&'static str], &'static [usize]);

/// What, under which masks, at which lengths.
const SWEEPS: [Sweep; 4] = [
    (
        "op",
        &["causal", "full", "padded", "window", "packed"],
        &[32, 128, 512, 1024, 2048, 4096, 8192],
    ),
    ("mha", &["causal"], &[32, 128, 512, 1024, 2048]),
    ("layer", &["causal"], &[32, 128, 512, 1024]),
    ("copy", &["causal"], &[24]),
];

/// Kernels that store all weights take minutes and gigabytes from here on.
const LONGEST_WITH_WEIGHTS: usize = 2048;

fn main() {
    // Cargo adds --bench.
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |case: &str| filters.is_empty() || filters.iter().any(|part| case.contains(part));
    for case in SWEEPS.iter().flat_map(sweep).filter(|case| wanted(case)) {
        // Left out where the author has no such case, or the backend is not compiled in.
        if let Ok(parsed) = Case::parse(&case) {
            let mut out = std::io::stdout();
            let line = writeln!(out, "{case:40} {:10.3} ms", parsed.median());
            if line.and_then(|()| out.flush()).is_err() {
                return; // nobody reads any more
            }
        }
    }
}

/// All authors on all backends, forward and training.
fn sweep(&(what, masks, lengths): &Sweep) -> Vec<String> {
    let mut cases = Vec::new();
    for &length in lengths {
        for mask in masks {
            for pass in ["forward", "training"] {
                for by in ["fused", "reference", "burn"] {
                    if by != "fused" && length > LONGEST_WITH_WEIGHTS {
                        continue;
                    }
                    for backend in ["flex", "ndarray"] {
                        cases.push(format!("{by}@{backend}/{what}/{mask}/{pass}/{length}"));
                    }
                }
            }
        }
    }
    cases
}
