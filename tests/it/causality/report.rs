//! Cost, progress, noise, errors, and the report's forms.

use std::cell::{Cell, RefCell};

use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_decoder::Error;
use burn_decoder::causality::{CausalityCheck, Diagnosis, ModelInput, Report, Way};
use burn_decoder::mask::Mask;

use super::tiny::*;

#[cfg(feature = "ndarray")]
pub fn cpu() -> Device {
    Device::ndarray()
}

#[cfg(all(feature = "flex", not(feature = "ndarray")))]
pub fn cpu() -> Device {
    Device::flex()
}

/// Positions that do not move each other.
fn identity(x: Tensor<3>) -> Tensor<3> {
    x
}

/// A running sum: the cheapest causal model in which everything promised flows.
fn running_sum(x: Tensor<3>) -> Tensor<3> {
    x.cumsum(1)
}

/// Runs the check and compares what it cost with what it said.
fn cost_of<I: ModelInput>(check: CausalityCheck<'_, I>, calls: &Cell<usize>) -> usize {
    let told = check.cost().unwrap();
    let report = check.run().unwrap();
    report.assert_causal();
    assert_eq!(report.passes, told.total());
    assert_eq!(calls.get(), told.total());
    told.total()
}

#[test]
fn the_cost_is_told_and_bounded() {
    const LONG: usize = 128;
    let calls = Cell::new(0);
    let device = cpu();
    let embeddings = || {
        calls.set(0);
        CausalityCheck::embeddings(2, LONG, &device, |x| {
            calls.set(calls.get() + 1);
            running_sum(x)
        })
    };
    let tokens = || {
        calls.set(0);
        CausalityCheck::tokens(3, LONG, &device, |tokens: Tensor<2, Int>| {
            calls.set(calls.get() + 1);
            running_sum(tokens.float().unsqueeze_dim(2))
        })
    };
    let usual = cost_of(embeddings(), &calls);
    assert!(usual < LONG, "{usual}");
    for rows in [1, 4] {
        assert!(cost_of(embeddings().with_batch(rows), &calls) <= 4 * LONG);
        assert!(cost_of(tokens().with_batch(rows), &calls) <= 4 * LONG);
    }
    // Most expensive: a promise that differs by row, so that each row is looked at by itself.
    let promise = Mask::look_ahead() | Mask::lengths([2, 0]);
    let by_row = cost_of(embeddings().with_batch(2).with_promise(promise), &calls);
    assert!(by_row <= 4 * LONG, "{by_row}");
}

#[test]
fn progress_counts_up_to_the_cost() {
    let seen = RefCell::new(Vec::new());
    let check = CausalityCheck::embeddings(2, 5, &cpu(), running_sum)
        .with_progress(|done, of| seen.borrow_mut().push((done, of)));
    let cost = check.cost().unwrap().total();
    check.run().unwrap();
    let expected: Vec<_> = (1..=cost).map(|done| (done, cost)).collect();
    assert_eq!(*seen.borrow(), expected);
}

#[test]
fn noise_widens_the_tolerance_and_is_told() {
    let device = cpu();
    let noisy = |x: Tensor<3>| {
        let noise = x.random_like(Distribution::Uniform(-1e-3, 1e-3));
        running_sum(x) + noise
    };
    let report = CausalityCheck::embeddings(3, 7, &device, noisy).run().unwrap();
    report.assert_causal();
    assert!(report.paths[0].noise > 1e-4, "{report}");
    assert!(report.to_string().contains("do not count"), "{report}");

    // A leak above the noise is found all the same, and one below it by its gradient.
    for size in [1.0, 1e-6] {
        let leaky = |x: Tensor<3>| noisy(x.clone()) + x.flip([1]) * size;
        let report = CausalityCheck::embeddings(3, 7, &device, leaky).run().unwrap();
        assert!(!report.is_causal(), "{size}: {report}");
    }
}

#[test]
fn the_last_bits_are_told_from_information() {
    let device = cpu();
    let layer = Tiny::new(3, 1, &device);
    let mask = look_ahead(&device);
    // The softmax is kept from overflow by the largest score of all, the hidden ones included.
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
        let scores = layer.scores(&x, &x);
        let hidden = mask.clone().expand(scores.dims());
        let exp = (scores.clone() - scores.max_dim(3)).exp().mask_fill(hidden, 0.0);
        layer.mix(x.clone(), exp.clone() / exp.sum_dim(3), x)
    })
    .with_gradients(false)
    .run()
    .unwrap();
    let random = report.leaks().find(|leak| leak.way == Way::HiddenRandom).unwrap();
    assert!(random.size < 1e-5, "{report}");
    assert_eq!(report.diagnosis(), Some(&Diagnosis::Rounding), "{report}");
}

#[test]
fn nan_that_passes_through_zero_weights_is_poison_and_no_leak() {
    let device = cpu();
    let layer = Tiny::new(0, 2, &device);
    let mask = look_ahead(&device);
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| layer.forward(x, &mask))
        .run()
        .unwrap();
    report.assert_causal();
    assert_eq!(report.paths[0].poisoned.map(|found| (found.query, found.key)), Some((0, 1)));
    assert!(report.to_string().contains("poisoned (not a leak)"));

    let report = CausalityCheck::embeddings(2, 5, &device, identity).run().unwrap();
    assert_eq!(report.paths[0].poisoned, None);
}

#[test]
fn the_first_leak_is_named_by_query_and_key() {
    let device = cpu();
    let layer = Tiny::new(0, 2, &device);
    // A single hidden cell is open.
    let mask =
        hidden([LENGTH, LENGTH], &device, |query, key| key > query && (query, key) != (4, 8));
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| layer.forward(x, &mask))
        .run()
        .unwrap();
    assert!(report.leaks().count() >= 3, "{report}");
    for leak in report.leaks() {
        assert_eq!((leak.query, leak.key), (4, 8), "{leak}");
    }
}

#[test]
fn a_report_is_drawn_and_saved() {
    let device = cpu();
    let report =
        CausalityCheck::embeddings(2, 4, &device, |x: Tensor<3>| x.clone().mean_dim(1) + x)
            .run()
            .unwrap();
    assert_eq!(report.diagnosis(), Some(&Diagnosis::SequenceStatistics), "{report}");
    let text = report.to_string();
    assert!(text.starts_with("NOT CAUSAL"), "{text}");
    assert!(text.contains("  █···       █!!!\n  ██··       ██!!\n"), "{text}");
    let svg = report.paths[0].influence[0].to_svg();
    assert_eq!(svg.matches("query 1, key 3: hidden, but moves: a leak").count(), 1);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));

    let saved = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&saved).unwrap(), report);
}

#[test]
#[should_panic(expected = "NOT CAUSAL")]
fn a_leak_fails_a_test() {
    let leaky = |x: Tensor<3>| x.flip([1]);
    CausalityCheck::embeddings(2, 4, &cpu(), leaky).run().unwrap().assert_causal();
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = cpu();
    let wrong_shape = CausalityCheck::embeddings(2, 4, &device, |x| x.narrow(1, 0, 3)).run();
    assert!(matches!(wrong_shape, Err(Error::ModelOutput { .. })), "{wrong_shape:?}");
    let message = wrong_shape.unwrap_err().to_string();
    assert!(message.contains("[8, 4, width]") && message.contains("[8, 3, 2]"), "{message}");

    let rows = CausalityCheck::embeddings(2, 4, &device, identity)
        .with_promise(Mask::look_ahead() & Mask::lengths([3, 2]))
        .cost();
    assert!(matches!(rows, Err(Error::Mask { .. })), "{rows:?}");

    let one_token = CausalityCheck::tokens(1, 4, &device, |tokens: Tensor<2, Int>| {
        tokens.float().unsqueeze_dim(2)
    });
    assert!(matches!(one_token.run(), Err(Error::Config { .. })));
    let no_layers = CausalityCheck::embeddings(2, 4, &device, identity).with_layers(0).run();
    assert!(matches!(no_layers, Err(Error::Config { .. })));
}
