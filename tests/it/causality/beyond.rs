//! What changed tokens alone don't show: losses, states, memories, lengths, and paths that are dead at
//! the given weights.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};
use burn_decoder::causality::{
    CausalityCheck, Diagnosis, Path, Report, Unproven, Verdict, Way, assert_causal,
    assert_causal_embeddings,
};
use burn_decoder::mask::Mask;
use rand::{SeedableRng, rngs::StdRng};

use super::report::cpu;
use super::tiny::random_matrix;

const WIDTH: usize = 5;
const LENGTH: usize = 7;

/// The past, and, through a gate, the future.
#[derive(Module, Debug)]
struct Gated {
    past: Param<Tensor<2>>,
    future: Param<Tensor<2>>,
    gate: Param<Tensor<1>>,
}

impl Gated {
    fn new(gate: f32) -> Self {
        let mut rng = StdRng::seed_from_u64(5);
        let [past, future] =
            [(); 2].map(|()| Param::from_tensor(random_matrix([WIDTH, WIDTH], &mut rng, &cpu())));
        Self { past, future, gate: Param::from_tensor(Tensor::from_floats([gate], &cpu())) }
    }

    /// `gate * (future from the end) + past`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate.val().reshape([1, 1, 1]).expand(x.dims()); // [batch, length, width]
        let behind = x.clone().flip([1]).cumsum(1).flip([1]);
        let past = x.clone().cumsum(1).matmul(self.past.val().unsqueeze());
        x + past + behind.matmul(self.future.val().unsqueeze()) * gate
    }

    /// The same without the future: all that is open to it is the gate's sign.
    fn right(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate.val().reshape([1, 1, 1]).expand(x.dims()); // [batch, length, width]
        let past = x.clone().cumsum(1).matmul(self.past.val().unsqueeze());
        x.clone() + past * gate.clone() + x.matmul(self.future.val().unsqueeze()) * gate
    }
}

fn embeddings<'a>(forward: impl Fn(Tensor<3>) -> Tensor<3> + 'a) -> CausalityCheck<'a, Tensor<3>> {
    CausalityCheck::embeddings(WIDTH, LENGTH, &cpu(), forward)
}

fn unproven(report: &Report) -> Unproven {
    match report.verdict() {
        Verdict::NotProven(why) => why,
        other => panic!("{other:?}: {report}"),
    }
}

#[test]
fn a_leak_behind_a_closed_gate_is_seen_where_the_module_is_given() {
    let model = Gated::new(0.0);
    let plain = embeddings(|x| model.forward(x));
    assert!(plain.run().unwrap().is_causal()); // a closure hides the weights
    let report =
        embeddings(|x| model.forward(x)).with_module(&model, Gated::forward).run().unwrap();
    assert_eq!(report.verdict(), Verdict::Leak);
    let leak = report.first_leak().unwrap();
    assert_eq!((&leak.path, leak.query, leak.key), (&Path::Disturbed, 0, 1), "{report}");
}

#[test]
fn what_is_dead_at_these_weights_proves_nothing_until_it_is_disturbed() {
    let model = Gated::new(0.0);
    let report = embeddings(|x| model.right(x)).run().unwrap();
    assert_eq!(unproven(&report), Unproven::NothingFlows);
    let report = embeddings(|x| model.right(x)).with_module(&model, Gated::right).run().unwrap();
    report.assert_causal();
    assert!(report.paths[1].dead.is_empty(), "{report}");
}

/// A gate that no small change opens: what lies behind it is named, and nothing is proven.
#[test]
fn weights_that_stay_dead_are_named() {
    fn closed(model: &Gated, x: Tensor<3>) -> Tensor<3> {
        let gate = burn::tensor::activation::relu(model.gate.val() - 100.0).reshape([1, 1, 1]);
        let past = x.clone().cumsum(1).matmul(model.past.val().unsqueeze());
        let behind = x.clone().flip([1]).matmul(model.future.val().unsqueeze());
        x.clone() + past + behind * gate.expand(x.dims())
    }
    let model = Gated::new(0.0);
    let report = embeddings(|x| closed(&model, x)).with_module(&model, closed).run().unwrap();
    assert_eq!(unproven(&report), Unproven::DeadWeights { tensors: 2 }, "{report}");
    assert_eq!(report.paths[1].dead, ["future", "gate"]);
    assert!(report.to_string().contains("weights that move nothing: future, gate"), "{report}");
}

#[test]
fn a_model_in_which_nothing_flows_proves_nothing() {
    let report = embeddings(|x| x * 2.0).run().unwrap();
    assert_eq!(unproven(&report), Unproven::NothingFlows);
    // Unless that is what was promised.
    let own = Mask::look_ahead() & Mask::window_keys(1).unwrap();
    embeddings(|x| x * 2.0).with_promise(own).run().unwrap().assert_causal();
}

/// Steps that agree with the whole, steps that forget, and a whole that sees the future.
#[test]
fn steps_are_set_against_the_whole() {
    let fresh = || Tensor::<3>::zeros([8, 1, WIDTH], &cpu());
    let step = |state: &mut Tensor<3>, x: Tensor<3>| {
        *state = state.clone() + x;
        state.clone()
    };
    let check = |forward: fn(Tensor<3>) -> Tensor<3>| embeddings(forward);
    let report = check(|x| x.cumsum(1)).with_steps(fresh, step).run().unwrap();
    report.assert_keeps_promise();
    assert_eq!(report.paths[1].path, Path::Steps);

    let forgets = |state: &mut Tensor<3>, x: Tensor<3>| step(&mut (state.clone() * 0.5), x);
    let report = check(|x| x.cumsum(1)).with_steps(fresh, forgets).run().unwrap();
    assert!(report.is_causal() && !report.keeps_promise(), "{report}");

    let report = check(|x| x.flip([1]).cumsum(1)).with_steps(fresh, step).run().unwrap();
    let leak = report.first_leak().unwrap();
    assert_eq!(leak.path, Path::Plain);
    assert!(report.paths[1].leaks.is_empty() && report.paths[1].disagreement.is_some());
}

/// Steps whose state is not fresh: what an earlier call left is seen.
#[test]
fn a_state_that_is_not_fresh_proves_nothing() {
    let kept = std::cell::RefCell::new(Tensor::<3>::zeros([8, 1, WIDTH], &cpu()));
    let step = |_: &mut (), x: Tensor<3>| {
        let new = kept.borrow().clone() * 0.9 + x;
        kept.replace(new.clone());
        new
    };
    let report = embeddings(|x| x.cumsum(1)).with_steps(|| (), step).run().unwrap();
    assert!(!report.is_causal() && !report.keeps_promise(), "{report}");
}

const IDS: usize = 6;

/// Log-probabilities by the sum of the ids so far.
fn log_probabilities(tokens: &Tensor<2, Int>, ids: usize) -> Tensor<3> {
    let sum = tokens.clone().float().cumsum(1).unsqueeze_dim::<3>(2);
    let angles: Vec<f32> = (0..ids).map(|id| 0.3 + 0.4 * id as f32).collect();
    let angles = Tensor::from_data(TensorData::new(angles, [1, 1, ids]), &cpu());
    log_softmax((sum * angles).sin() * 2.0, 2)
}

/// The losses of all tokens but the first, smoothed towards all ids.
fn losses(tokens: Tensor<2, Int>, ids: usize, smoothing: f32) -> Tensor<2> {
    let [batch, length] = tokens.dims();
    let scores = log_probabilities(&tokens, ids).narrow(1, 0, length - 1);
    let targets = tokens.narrow(1, 1, length - 1).unsqueeze_dim::<3>(2);
    let all = scores.clone().mean_dim(2);
    let loss = scores.gather(2, targets) * (1.0 - smoothing) + all * smoothing;
    -loss.reshape([batch, length - 1]) // [batch, length - 1]
}

#[test]
fn losses_are_asked_for_their_own_token() {
    let check = |ids: usize, smoothing: f32| {
        let losses = move |tokens| losses(tokens, ids, smoothing);
        CausalityCheck::losses(ids, LENGTH, &cpu(), losses).run().unwrap()
    };
    check(IDS, 0.0).assert_causal();
    let why = unproven(&check(IDS, 0.2));
    assert!(matches!(why, Unproven::NoProbabilities { query: 1, .. }), "{why}");
    let why = unproven(&check(1000, 0.0));
    assert_eq!(why, Unproven::TargetsNotTried { vocabulary: 1000 });

    // Logits that have seen the token whose loss they give.
    let seen = |tokens: Tensor<2, Int>| {
        let [batch, length] = tokens.dims();
        let scores = log_probabilities(&tokens, IDS).gather(2, tokens.unsqueeze_dim::<3>(2));
        -scores.narrow(1, 1, length - 1).reshape([batch, length - 1]) // [batch, length - 1]
    };
    let report = CausalityCheck::losses(IDS, LENGTH, &cpu(), seen).run().unwrap();
    let leak = report.first_leak().unwrap();
    assert_eq!((leak.way, leak.query, leak.key), (Way::Targets, 1, 1), "{report}");
    assert_eq!(leak.diagnosis, Diagnosis::TargetSeen);
}

#[test]
#[should_panic(expected = "one loss for every token but the first")]
fn losses_have_their_shape() {
    let all = |tokens: Tensor<2, Int>| tokens.float();
    let _ = CausalityCheck::losses(IDS, LENGTH, &cpu(), all).run();
}

fn failure(check: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(check)).expect_err("the check fails");
    panic.downcast_ref::<String>().expect("a text").clone()
}

/// Who has never heard of a leak can read what is wrong.
#[test]
fn the_one_line_test_explains_itself() {
    let device = cpu();
    let past = |tokens: Tensor<2, Int>| tokens.float().cumsum(1).unsqueeze_dim::<3>(2);
    assert_causal(&device, [50, 9], past);
    assert_causal_embeddings(&device, [WIDTH, 9], |x| x.cumsum(1));

    let text = failure(|| assert_causal(&device, [50, 9], |tokens| past(tokens.roll(&[-1], &[1]))));
    for words in [
        "This model sees the future.",
        "The output at position 0 changed when only the token at position 1 was changed.",
        "Most likely: off by one",
        "Where to look: ",
        "All that was measured:\nNOT CAUSAL",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    let text = failure(|| assert_causal_embeddings(&device, [WIDTH, 9], |x| x.cumsum(0)));
    assert!(text.contains("This model mixes the rows of a batch."), "{text}");
    let text = failure(|| assert_causal_embeddings(&device, [WIDTH, 9], |x| x * f32::NAN));
    assert!(text.contains("It can't be told whether"), "{text}");
    let text = failure(|| assert_causal_embeddings(&device, [WIDTH, 0], |x| x));
    assert!(text.contains("the model can't be checked"), "{text}");
}

/// A reader of a prefix must return rows of its length.
#[test]
fn prefixes_are_of_their_length() {
    let padded = |x: Tensor<3>| {
        let [batch, length, width] = x.dims();
        let rest = Tensor::zeros([batch, LENGTH - length + 1, width], &x.device());
        Tensor::cat(vec![x, rest], 1).cumsum(1).narrow(1, 0, LENGTH)
    };
    let error = embeddings(padded).with_prefixes().run().unwrap_err().to_string();
    assert!(error.contains("for a prefix of its input"), "{error}");
}
