//! Several devices, and several passes in a step, learn what one learns in one.

use std::fs;

use train::history::History;

use crate::{folder, parse, train};

const SETTINGS: &str = "--layers 2 --heads 2 --d-model 32 --context 16 --batch 8 --steps 40 \
                        --validate-every 20 --warm-up 5 --valid-rows 8 --sample 0";

/// Losses of all steps of a run, with more arguments.
fn losses(more: &str) -> (Vec<f64>, Vec<f64>) {
    let (folder, text) = folder();
    let out = folder.path().join("run");
    let arguments = format!("{SETTINGS} {more}");
    train(&text, &out, &arguments).unwrap();
    let settings = parse(&text, &out, &arguments).settings;
    let history = History::read(&fs::canonicalize(&out).unwrap().join("logs"), &settings);
    (history.steps, history.validations.iter().map(|seen| seen.loss).collect())
}

#[track_caller]
fn assert_close(got: &(Vec<f64>, Vec<f64>), expected: &(Vec<f64>, Vec<f64>), tolerance: f64) {
    let difference = |got: &[f64], expected: &[f64]| {
        assert_eq!(got.len(), expected.len());
        got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let largest = difference(&got.0, &expected.0).max(difference(&got.1, &expected.1));
    assert!(largest <= tolerance, "largest difference {largest:.1e}");
    println!("largest difference {largest:.1e}");
}

/// Sums are taken in another order; Adam makes the most of a small difference. Measured: below 2e-6.
const ROUNDING: f64 = 2e-5;

#[test]
fn accumulated_passes_are_one_step() {
    let one = losses("");
    assert_eq!((one.0.len(), one.1.len()), (40, 2));
    assert!(one.0[39] < one.0[0] - 0.3, "{:?}", one.0);
    assert_close(&losses("--accumulate 4"), &one, ROUNDING);
}

#[test]
fn what_is_computed_again_is_the_same() {
    assert_eq!(losses("--recompute"), losses(""));
}

#[cfg(all(feature = "flex", feature = "ndarray"))]
#[test]
fn two_devices_learn_what_one_learns() {
    let one = losses("--backend flex");
    assert_close(&losses("--devices flex,ndarray"), &one, ROUNDING);
    assert_close(&losses("--devices flex,flex --accumulate 2"), &one, ROUNDING);
}
