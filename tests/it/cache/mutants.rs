//! The leak checker on the cached path: calls that lose a token, repeat one, restart the positions
//! or drop a mask are caught and rightly named. (That right calls pass, for every kind of layer, is
//! among the tests of the checker.)

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_decoder::cache::KvCache;
use burn_decoder::causality::{CausalityCheck, Diagnosis, Path, Report};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelConfig, Positions};
use burn_decoder::mask::Mask;

use super::{VOCAB_SIZE, plain, small_cache};
use crate::backends::cpus;

const LENGTH: usize = 9;
const BATCH: usize = 4;
const SEEDS: u64 = 5;
/// Tokens that come in the first pass; the others come one by one.
const PROMPT: usize = 3;
/// Padded places at the front of each row.
const PADS: [usize; BATCH] = [0, 2, 1, 2];

/// One layer: what a token was computed from does not show in its keys.
fn config() -> LanguageModelConfig {
    let mut config = plain();
    config.decoder.layers = 1;
    config
}

/// The logits of all tokens; `step` feeds the cache the token at an index behind the prompt.
fn decode(
    model: &LanguageModel,
    tokens: Tensor<2, Int>,
    input: Batch,
    step: impl Fn(usize, Tensor<2, Int>, &mut KvCache) -> Tensor<3>,
) -> Tensor<3> {
    let mut cache = small_cache();
    let prompt = tokens.clone().narrow(1, 0, PROMPT);
    let mut logits = vec![model.forward_cached(prompt, input, &mut cache).unwrap().logits];
    let steps = PROMPT..LENGTH;
    logits.extend(steps.map(|index| step(index, tokens.clone().narrow(1, index, 1), &mut cache)));
    Tensor::cat(logits, 1)
}

/// Sets the cached path against the plain one.
fn check(
    model: &LanguageModel,
    input: &Batch,
    promise: Mask,
    cached: impl Fn(Tensor<2, Int>) -> Tensor<3>,
) -> Report {
    let device = model.embedding.weight.device();
    CausalityCheck::tokens(VOCAB_SIZE, LENGTH, &device, |tokens| {
        model.forward(tokens, input.clone()).unwrap().logits
    })
    .with_cached(cached)
    .with_batch(BATCH)
    .with_promise(promise)
    .with_layers(1)
    .run()
    .unwrap()
}

/// What the report says of the cached path, if it says nothing of the plain one.
fn found(report: &Report) -> Option<&Diagnosis> {
    let [plain, cached] = &report.paths[..] else { return None };
    assert_eq!(cached.path, Path::Cached);
    if !(plain.leaks.is_empty() && plain.missing.is_empty()) {
        return None;
    }
    let leak = cached.leaks.first().map(|leak| &leak.diagnosis);
    let missing = || cached.missing.first().map(|missing| &missing.diagnosis);
    leak.or_else(missing).or(cached.disagreement.as_ref().map(|differs| &differs.diagnosis))
}

#[track_caller]
fn caught(what: &str, expected: Diagnosis, run: impl Fn(&Device) -> Report) {
    for device in cpus() {
        for seed in 0..SEEDS {
            device.seed(seed);
            let report = run(&device);
            assert!(!report.keeps_promise(), "{what}, seed {seed}: {report}");
            assert_eq!(found(&report), Some(&expected), "{what}, seed {seed}: {report}");
        }
    }
}

/// One more token for the cache, and its logits.
fn advance(model: &LanguageModel, new: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
    model.forward_cached(new, Batch::new(), cache).unwrap().logits
}

#[test]
fn a_right_cache_is_not_accused() {
    for device in cpus() {
        for seed in 0..SEEDS {
            device.seed(seed);
            let window = Mask::window_keys(4).unwrap() | Mask::sinks(1);
            let mut config = config().with_mask(window.clone() & Mask::look_ahead());
            config.decoder.windows = vec![(seed % 2 == 1).then_some(3)];
            let model = config.init(&device).unwrap();
            let narrowed = match config.decoder.windows[0] {
                Some(keys) => window & Mask::window_keys(keys).unwrap(),
                None => window & Mask::look_ahead(),
            };
            let input = Batch::new().with_pad_counts(PADS);
            let report = check(&model, &input, narrowed.left_padded(PADS), |tokens| {
                decode(&model, tokens, input.clone(), |_, new, cache| advance(&model, new, cache))
            });
            report.assert_keeps_promise();
        }
    }
}

#[test]
fn a_lost_token_is_found() {
    caught("lost", Diagnosis::KeyLost { key: 5 }, |device| {
        let model = config().with_positions(None).init(device).unwrap();
        let input = Batch::new();
        check(&model, &input, Mask::look_ahead(), |tokens| {
            decode(&model, tokens, input.clone(), |index, new, cache| match index {
                5 => advance(&model, new, &mut cache.clone()),
                _ => advance(&model, new, cache),
            })
        })
    });
}

#[test]
fn a_repeated_token_is_found() {
    caught("repeated", Diagnosis::KeyRepeated { key: 5 }, |device| {
        let model = config().with_positions(None).init(device).unwrap();
        let input = Batch::new();
        check(&model, &input, Mask::look_ahead(), |tokens| {
            decode(&model, tokens, input.clone(), |index, new, cache| {
                let logits = advance(&model, new.clone(), cache);
                if index == 5 {
                    advance(&model, new, cache);
                }
                logits
            })
        })
    });
}

#[test]
fn restarted_positions_are_found() {
    caught("restarted", Diagnosis::PositionsRestarted, |device| {
        let model = config().init(device).unwrap();
        let input = Batch::new();
        check(&model, &input, Mask::look_ahead(), |tokens| {
            decode(&model, tokens, input.clone(), |_, new, cache| {
                // Each new token is the first one of its call.
                let restarted = Positions::Listed(vec![vec![0; LENGTH]; BATCH]);
                let input = Batch::new().with_positions(restarted);
                model.forward_cached(new, input, cache).unwrap().logits
            })
        })
    });
}

#[test]
fn a_window_that_is_dropped_in_decoding_is_found() {
    caught("window dropped", Diagnosis::WindowTooWide { by: LENGTH - 3 }, |device| {
        let window = Mask::window_keys(3).unwrap();
        let model = config().with_mask(window.clone()).init(device).unwrap();
        // The same parameters under another mask. The prompt is no longer than the window.
        let without = config().init(device).unwrap().load_record(model.clone().into_record());
        let input = Batch::new();
        check(&model, &input, window, |tokens| {
            decode(&without, tokens, input.clone(), |_, new, cache| advance(&without, new, cache))
        })
    });
}

#[test]
fn padding_that_is_forgotten_in_decoding_is_found() {
    caught("padding forgotten", Diagnosis::PaddingSeen, |device| {
        let model = config().with_positions(None).init(device).unwrap();
        let padding = Mask::pad_counts(PADS);
        let input = Batch::new().with_mask(padding.clone());
        check(&model, &input, Mask::look_ahead() & padding, |tokens| {
            decode(&model, tokens, input.clone(), |_, new, cache| {
                let forgotten = Batch::new().with_mask(Mask::all_visible());
                model.forward_cached(new, forgotten, cache).unwrap().logits
            })
        })
    });
}
