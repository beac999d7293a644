//! What can't be compared is never called causal: each reason, and what must not count as one.

use std::cell::Cell;

use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use burn_decoder::Error;
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::causality::{CausalityCheck, ModelInput, Quantity, Report, Unproven, Verdict};
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
};
use burn_decoder::mask::Mask;

use super::report::cpu;

fn embeddings(forward: impl Fn(Tensor<3>) -> Tensor<3>) -> Report {
    CausalityCheck::embeddings(3, 7, &cpu(), forward).run().unwrap()
}

fn reason(report: &Report) -> Unproven {
    let Verdict::NotProven(why) = report.verdict() else { panic!("{report}") };
    assert!(!report.is_causal() && !report.keeps_promise());
    let text = report.to_string();
    assert!(text.starts_with("NOT PROVEN: ") && text.contains(&why.to_string()), "{text}");
    why
}

fn not_finite(of: Quantity, row: usize, query: usize) -> Unproven {
    Unproven::NotFinite { of, row, query }
}

#[test]
#[should_panic(expected = "NOT PROVEN: no leak was seen, but the outputs are not finite")]
fn nan_fails_a_test_in_its_own_words() {
    let nan = |tokens: Tensor<2, Int>| tokens.float().unsqueeze_dim::<3>(2) * f32::NAN;
    CausalityCheck::tokens(16, 8, &cpu(), nan).run().unwrap().assert_causal();
}

#[test]
fn outputs_that_are_not_finite_prove_nothing() {
    for bad in [f32::NAN, f32::INFINITY] {
        // Of one query in one row.
        let spoilt = |x: Tensor<3>| {
            let [batch, length, width] = x.dims();
            let values: Vec<f32> =
                (0..batch * length).map(|i| if i == 2 * length + 4 { bad } else { 0.0 }).collect();
            let add =
                Tensor::<3>::from_data(TensorData::new(values, [batch, length, 1]), &x.device());
            x + add.expand([batch, length, width])
        };
        let report = embeddings(spoilt);
        assert_eq!(reason(&report), not_finite(Quantity::Outputs, 2, 4));
    }
    // Finite at first: only where the future is extreme, every query overflows to 0 * inf. No gradient
    // says so, and the moves are no numbers.
    let report = embeddings(|x| {
        let all = x.clone().sum_dim(1).expand(x.dims());
        x + all * 1e36 * 0.0
    });
    assert_eq!(reason(&report), not_finite(Quantity::Outputs, 0, 0));
    // The same by another row of the batch.
    let report = embeddings(|x| {
        let all = x.clone().sum_dim(0).sum_dim(1).expand(x.dims());
        x + all * 3e37 * 0.0
    });
    assert!(matches!(reason(&report), Unproven::NotFinite { of: Quantity::Outputs, .. }));
    // A state that NaN has entered stays so.
    let state = Cell::new(0f32);
    let report = embeddings(|x| {
        let sum: f32 = x.clone().sum().into_scalar();
        let poison = if sum.is_nan() { f32::NAN } else { 0.0 };
        state.set(state.get() + poison);
        x + state.get()
    });
    assert!(matches!(reason(&report), Unproven::NotFinite { of: Quantity::Outputs, .. }));
}

#[test]
fn gradients_and_weights_that_are_not_finite_prove_nothing() {
    // The root of 0 has no derivative.
    let report = embeddings(|x| x.clone() + (x.flip([1]) * 0.0).abs().sqrt() * 0.0);
    let Unproven::NotFinite { of: Quantity::Gradients, .. } = reason(&report) else {
        panic!("{report}");
    };
    let weights = |value: f32, heads: usize| {
        let device = cpu();
        let forward = move |x: Tensor<3>| {
            let [batch, length, _] = x.dims();
            let values = vec![value; batch * heads * length * length];
            let data = TensorData::new(values, [batch, heads, length, length]);
            (x.clone().cumsum(1), Tensor::<4>::from_data(data, &x.device()))
        };
        CausalityCheck::embeddings(3, 7, &device, |x| x.cumsum(1))
            .with_weights(forward)
            .run()
            .unwrap()
    };
    assert_eq!(reason(&weights(f32::NAN, 2)), not_finite(Quantity::Weights, 0, 0));
    assert_eq!(reason(&weights(0.0, 0)), Unproven::NoWidth { of: Quantity::Weights });
}

#[test]
fn outputs_of_no_width_prove_nothing() {
    let report = embeddings(|x| {
        let [batch, length, _] = x.dims();
        Tensor::from_data(TensorData::new(Vec::<f32>::new(), [batch, length, 0]), &x.device())
    });
    assert_eq!(reason(&report), Unproven::NoWidth { of: Quantity::Outputs });
}

/// A model of this crate, left in training mode with dropout.
#[test]
fn a_model_in_training_mode_proves_nothing() {
    let device = cpu().autodiff();
    device.seed(3);
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(12, 2),
        FeedForwardConfig::new(12, 24),
    )
    .with_dropout(0.5);
    for mask in [Mask::all_visible(), Mask::look_ahead()] {
        let config = LanguageModelConfig::new(13, DecoderConfig::new(layer.clone(), 2));
        let model = config.with_mask(mask).init(&device).unwrap().train();
        let forward = |tokens| model.forward(tokens, Batch::new()).unwrap().logits;
        let report = CausalityCheck::tokens(13, 8, &device, forward).run().unwrap();
        let why = reason(&report);
        let Unproven::Random { noise, tolerance, scale } = why else { panic!("{why}") };
        assert!(noise > 0.1 && tolerance == 4.0 * noise && tolerance > 0.01 * scale, "{why}");
        // As a path of its own it proves nothing either where there are no gradients.
        let still = model.clone().valid();
        let forward_still = |tokens: Tensor<2, Int>| {
            let tokens = Tensor::from_data(tokens.into_data(), &cpu());
            still.forward(tokens, Batch::new()).unwrap().logits
        };
        let check = CausalityCheck::tokens(13, 8, &cpu(), forward_still).with_dropout(forward);
        assert!(!check.run().unwrap().is_causal());
    }
}

#[test]
fn a_state_proves_nothing() {
    // A counter: larger by a little in every call, so that any leak of its size is lost.
    let calls = Cell::new(0);
    let report = embeddings(|x| {
        calls.set(calls.get() + 1);
        x + calls.get() as f32 * 1e-3
    });
    let why = reason(&report);
    let Unproven::State { early, late } = why else { panic!("{why}") };
    assert!(late > 4.0 * early, "{why}");
    // A running mean of all inputs, as a norm over batches keeps it while it is trained.
    let mean = Cell::new(0f32);
    let report = embeddings(|x| {
        let new: f32 = x.clone().mean().into_scalar();
        mean.set(0.99 * mean.get() + 0.01 * if new.is_finite() { new } else { 0.0 });
        x - mean.get()
    });
    assert!(matches!(report.verdict(), Verdict::NotProven(_) | Verdict::Leak), "{report}");
}

/// Noise alone, however it is distributed, is no state.
#[test]
fn noise_is_no_state() {
    for seed in 0..20 {
        let device = cpu();
        device.seed(seed);
        let noisy = |x: Tensor<3>| {
            let noise = x.random_like(Distribution::Normal(0.0, 1e-4));
            x.cumsum(1) + noise
        };
        let report = CausalityCheck::embeddings(2, 5, &device, noisy).run().unwrap();
        report.assert_causal();
    }
}

#[test]
fn a_wide_tolerance_proves_nothing() {
    let leaky = |x: Tensor<3>| x.clone() + x.flip([1]);
    let check = |tolerance| {
        CausalityCheck::embeddings(3, 7, &cpu(), leaky)
            .with_gradients(false)
            .with_tolerance(tolerance)
            .run()
            .unwrap()
    };
    assert!(matches!(reason(&check(1e9)), Unproven::WideTolerance { .. }));
    assert_eq!(check(1e-3).verdict(), Verdict::Leak);
}

#[test]
fn one_position_proves_nothing() {
    let one = || CausalityCheck::embeddings(3, 1, &cpu(), |x| x);
    assert_eq!(reason(&one().run().unwrap()), Unproven::NothingHidden);
    // Who says so knows it.
    one().with_promise(Mask::look_ahead()).run().unwrap().assert_causal();
}

/// What a model computes in f64 is compared in f64.
#[test]
fn a_leak_below_single_precision_is_seen() {
    let report = CausalityCheck::embeddings(3, 7, &cpu(), |x| {
        let x = x.cast(DType::F64);
        x.clone() + x.flip([1]) * 1e-14
    })
    .with_gradients(false)
    .run()
    .unwrap();
    assert_eq!(report.verdict(), Verdict::Leak, "{report}");
}

/// Another precision agrees with the plain path as far as the user says.
#[test]
fn agreement_is_the_users_to_say() {
    let check = || {
        CausalityCheck::embeddings(3, 7, &cpu(), |x| x.cumsum(1))
            .with_path("coarser", |x| x.cumsum(1) * 1.001)
    };
    let report = check().run().unwrap();
    report.assert_causal();
    assert!(!report.keeps_promise() && report.paths[1].disagreement.is_some(), "{report}");
    check().with_agreement(0.01).run().unwrap().assert_keeps_promise();
}

fn refusal<I: ModelInput>(check: CausalityCheck<'_, I>) -> String {
    check.run().unwrap_err().to_string()
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let check = || CausalityCheck::embeddings(3, 7, &cpu(), |x| x);
    for bound in [f32::NAN, f32::INFINITY, -1.0] {
        assert!(refusal(check().with_tolerance(bound)).contains("tolerance"));
        assert!(refusal(check().with_agreement(bound)).contains("agreement"));
    }
    // More ids than a device counts.
    let forward = |tokens: Tensor<2, Int>| tokens.float().unsqueeze_dim(2);
    assert!(refusal(CausalityCheck::tokens(usize::MAX, 7, &cpu(), forward)).contains("vocabulary"));
}

#[test]
fn outputs_are_of_one_width() {
    let device: Device = cpu();
    let wider = |x: Tensor<3>| Tensor::cat(vec![x.clone(), x], 2);
    let error = CausalityCheck::embeddings(3, 7, &device, |x| x).with_path("wider", wider).run();
    let Err(Error::ModelOutput { expected, got, .. }) = error else { panic!("{error:?}") };
    assert!(expected.contains('3') && got.contains("6 on the wider path"), "{expected}, {got}");

    let calls = Cell::new(0);
    let growing = |x: Tensor<3>| {
        calls.set(calls.get() + 1);
        if calls.get() > 5 { wider(x) } else { x }
    };
    let error = CausalityCheck::embeddings(3, 7, &device, growing).run();
    assert!(matches!(error, Err(Error::ModelOutput { .. })), "{error:?}");
}
