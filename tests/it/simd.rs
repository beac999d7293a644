//! `BURN_DECODER_SIMD`: the fused kernel on less than the machine has. The variable is read once, so
//! each value runs tests of `fused` in a process of its own.
#![cfg(any(feature = "ndarray", feature = "flex"))]

use std::process::{Command, Output};

/// These tests, on each CPU backend, with the variable set to `simd`.
fn run(simd: &str, tests: &[&str]) -> Output {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command.env("BURN_DECODER_SIMD", simd).args(tests);
    command.output().expect("this program to start")
}

#[test]
fn the_kernel_agrees_with_the_reference_on_less() {
    for simd in ["avx2", "portable"] {
        let tests = ["fused::agrees", "fused::gradients", "fused::nan", "fused::threads"];
        let output = run(simd, &tests);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{simd}: {text}");
        assert!(!text.contains(" 0 passed"), "{simd}: {text}");
    }
}

#[test]
fn a_value_that_means_nothing_is_refused() {
    let output = run("sse", &["fused::an_expanded"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let expected = r#"BURN_DECODER_SIMD: expected avx2 or portable, got "sse""#;
    assert!(!output.status.success() && text.contains(expected), "{text}");
}
