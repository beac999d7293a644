//! `cargo bench --features flex --bench layers [FILTER]`: the cases of `cases`, by divan.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

mod cases;

use cases::Case;

/// Both backends, all authors; what does not exist is left out.
fn sweep(what: &str, masks: &[&str], lengths: &[usize]) -> Vec<String> {
    let mut all = Vec::new();
    for &length in lengths {
        for mask in masks {
            for pass in ["forward", "training"] {
                for by in ["fused", "reference", "burn"] {
                    for backend in ["flex", "ndarray"] {
                        // Kernels that store all weights take minutes and gigabytes from here on.
                        if by != "fused" && length > 2048 {
                            continue;
                        }
                        let case = format!("{by}@{backend}/{what}/{mask}/{pass}/{length}");
                        all.extend(Case::parse(&case).is_ok().then_some(case));
                    }
                }
            }
        }
    }
    all
}

#[divan::bench(args = sweep("op", &["causal", "full", "padded", "window", "packed"],
    &[32, 128, 512, 1024, 2048, 4096, 8192]))]
fn op(bencher: divan::Bencher, case: &str) {
    run(bencher, case);
}

#[divan::bench(args = sweep("mha", &["causal"], &[32, 128, 512, 1024, 2048]))]
fn mha(bencher: divan::Bencher, case: &str) {
    run(bencher, case);
}

#[divan::bench(args = sweep("layer", &["causal"], &[32, 128, 512, 1024]))]
fn layer(bencher: divan::Bencher, case: &str) {
    run(bencher, case);
}

#[divan::bench(args = sweep("copy", &["causal"], &[24]))]
fn copy(bencher: divan::Bencher, case: &str) {
    run(bencher, case);
}

fn run(bencher: divan::Bencher, case: &str) {
    let step = Case::parse(case).expect("a case of the sweep").prepare();
    bencher.bench_local(step);
}

fn main() {
    divan::main();
}
