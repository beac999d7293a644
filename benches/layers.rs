//! The median in milliseconds of every case of the sweeps below whose text has FILTER in it, on the
//! CPU backends; on a GPU, too, if a filter names it:
//!
//! ```text
//! cargo bench -p benches --features flex --bench layers [-- FILTER]
//! cargo bench -p benches --features vulkan --bench layers -- @vulkan/op/causal
//! ```

use std::io::Write;

use benches::{Case, adapter, device, is_gpu, wanted};

#[cfg(not(feature = "system_allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Sweep = (&'static str, &'static [&'static str], &'static [usize]);

/// What, under which masks, at which lengths.
const SWEEPS: [Sweep; 4] = [
    (
        "op",
        &["causal", "full", "padded", "window", "packed"],
        &[32, 128, 512, 1024, 2048, 4096, 8192, 16384],
    ),
    ("mha", &["causal"], &[32, 128, 512, 1024, 2048]),
    ("layer", &["causal"], &[32, 128, 512, 1024]),
    ("copy", &["causal"], &[24]),
];

/// CPUs take seconds a pass from here on.
const LONGEST_ON_A_CPU: usize = 8192;

/// Kernels that store all weights take minutes and gigabytes from here on.
const LONGEST_WITH_WEIGHTS: usize = 2048;

fn main() {
    // Cargo adds --bench.
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_asked =
        |case: &str| filters.is_empty() || filters.iter().any(|part| case.contains(part));
    let backends = wanted(&filters);
    for name in backends.iter().filter(|name| is_gpu(name)) {
        println!("{name}: {}", device(name).map_or("none".into(), |device| adapter(&device)));
    }
    let cases = SWEEPS.iter().flat_map(|of| sweep(of, &backends));
    for case in cases.filter(|case| is_asked(case)) {
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
fn sweep(&(what, masks, lengths): &Sweep, backends: &[&str]) -> Vec<String> {
    let mut cases = Vec::new();
    for &length in lengths {
        for mask in masks {
            for pass in ["forward", "training"] {
                for by in ["fused", "reference", "burn"] {
                    if by != "fused" && length > LONGEST_WITH_WEIGHTS {
                        continue;
                    }
                    for backend in backends {
                        if length > LONGEST_ON_A_CPU && !is_gpu(backend) {
                            continue;
                        }
                        cases.push(format!("{by}@{backend}/{what}/{mask}/{pass}/{length}"));
                    }
                }
            }
        }
    }
    cases
}
