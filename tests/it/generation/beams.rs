//! Beam search: it finds what there is to find, and what transformers finds.

use std::collections::BTreeMap;

use burn::tensor::Device;
use burn_decoder::decoder::{Batch, LanguageModel};
use burn_decoder::generation::{
    BeamConfig, EarlyStopping, Generation, GenerationConfig, Hypothesis, RowTokens, beam_search,
    beam_search_with_hook,
};
use burn_decoder::import::{LoadOptions, hugging_face};
use burn_decoder::mask::Mask;
use serde::Deserialize;

use super::{decided, prompts};
use crate::backends::any_device;
use crate::cache::{input_for, kinds, plain, tokens};
use crate::fixtures::Fixtures;
use crate::import::fixture;

/// All sequences of up to `length` tokens behind the prompt, with the score of each.
fn enumerate(model: &LanguageModel, prompt: &[u32], config: &BeamConfig) -> Vec<(Vec<u32>, f64)> {
    let device = model.embedding.weight.device();
    let mut live = vec![(Vec::<u32>::new(), 0.0)];
    let mut finished = Vec::new();
    for length in 1..=config.max_new_tokens {
        let rows: Vec<Vec<i64>> = live
            .iter()
            .map(|(new, _)| prompt.iter().chain(new).map(|&token| token.into()).collect())
            .collect();
        let logits = model.forward(tokens(&rows, &device), Batch::new()).unwrap().logits;
        let last = logits.narrow(1, rows[0].len() - 1, 1);
        let [_, _, vocab_size] = last.dims();
        let log: Vec<f32> =
            burn::tensor::activation::log_softmax(last, 2).into_data().iter().collect();
        let mut next = Vec::new();
        for ((new, sum), log) in live.into_iter().zip(log.chunks(vocab_size)) {
            for (token, log) in log.iter().enumerate() {
                let mut new = new.clone();
                new.push(token as u32);
                let sum = sum + f64::from(*log);
                if config.stop_tokens.contains(&(token as u32)) || length == config.max_new_tokens {
                    finished.push((new, sum / (length as f64).powf(config.length_penalty)));
                } else {
                    next.push((new, sum));
                }
            }
        }
        live = next;
    }
    finished.sort_by(|a, b| b.1.total_cmp(&a.1));
    finished
}

/// A vocabulary of 5, so that all 5⁴ continuations can be looked at.
fn tiny(device: &Device) -> LanguageModel {
    let mut config = plain();
    config.vocab_size = 5;
    let mut model = config.init(device).unwrap();
    let head = model.head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * 4.0);
    model
}

#[test]
fn a_wide_beam_finds_the_best_of_all() {
    let device = any_device();
    for penalty in [0.0, 1.0, 2.0, -0.5] {
        let model = tiny(&device);
        let prompts = [vec![0, 3, 1], vec![2]];
        let config = BeamConfig::new(125, 4)
            .with_stop_tokens(vec![2])
            .with_length_penalty(penalty)
            .with_early_stopping(EarlyStopping::Never);
        let found = beam_search(&model, &prompts, Batch::new(), &config).unwrap();
        for (prompt, found) in prompts.iter().zip(found) {
            let all = enumerate(&model, prompt, &config);
            for (found, (tokens, score)) in found.iter().zip(&all).take(10) {
                assert!((found.score - score).abs() < 1e-4, "{penalty}: {found:?}, not {tokens:?}");
            }
            assert_eq!(found[0].tokens, all[0].0);
        }
    }
}

#[test]
fn a_beam_of_one_is_greedy() {
    let device = any_device();
    for (kind, config) in kinds() {
        let model = decided(config, &device);
        let prompts = [vec![0, 3, 1], vec![2]];
        let input = input_for(&model, 2);
        let greedy =
            GenerationConfig::new(8).with_stop_tokens(vec![4, 9]).with_log_probabilities(true);
        let generation = Generation::with_input(&model, &prompts, input.clone(), &greedy);
        let greedy = generation.unwrap().finish().unwrap();
        let config = BeamConfig::new(1, 8).with_stop_tokens(vec![4, 9]);
        let beams = beam_search(&model, &prompts, input, &config).unwrap();
        for (beam, greedy) in beams.iter().zip(greedy) {
            assert_eq!(beam.len(), 1);
            assert_eq!(beam[0].tokens, greedy.tokens, "{kind}");
            let sum: f64 = greedy.log_probabilities.iter().sum();
            assert!((beam[0].log_probability - sum).abs() < 1e-4);
        }
    }
}

/// A wider beam never ends with a worse best sequence than greedy, here where it can be better.
#[test]
fn beams_of_a_batch_are_as_alone() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompts = prompts();
    let config = BeamConfig::new(3, 6).with_stop_tokens(vec![4]);
    let together = beam_search(&model, &prompts, Batch::new(), &config).unwrap();
    for (prompt, together) in prompts.iter().zip(together) {
        let alone =
            beam_search(&model, std::slice::from_ref(prompt), Batch::new(), &config).unwrap();
        let ids =
            |beams: &[Hypothesis]| beams.iter().map(|beam| beam.tokens.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&together), ids(&alone[0]));
    }
}

/// From the start, token 3: the end (0) 0.5, a (1) 0.3, b (2) 0.2; after b comes c (4), then the end,
/// with certainty; after a anything. The end is the best first step, and may not take the place of a
/// beginning that goes on to more.
#[test]
fn a_finished_sequence_takes_no_live_ones_place() {
    let table = |tokens: &[u32]| match tokens.last() {
        Some(3) => [0.5, 0.3, 0.2, 0.0, 0.0],
        Some(2) => [0.0, 0.0, 0.0, 0.0, 1.0],
        Some(4) => [1.0, 0.0, 0.0, 0.0, 0.0],
        _ => [0.2f32; 5],
    };
    let model = tiny(&any_device());
    let search = |config: BeamConfig| {
        let config = config.with_stop_tokens(vec![0]);
        let hook = |_: usize, tokens: RowTokens, logits: &mut [f32]| {
            logits.copy_from_slice(&table(&tokens).map(f32::ln));
        };
        let found = beam_search_with_hook(&model, &[vec![3]], Batch::new(), &config, hook);
        found.unwrap().remove(0)
    };
    for early_stopping in [EarlyStopping::Estimated, EarlyStopping::Never] {
        let best = search(BeamConfig::new(2, 4).with_early_stopping(early_stopping)).remove(0);
        assert_eq!(best.tokens, [2, 4, 0], "{early_stopping:?}");
        assert!((best.score - 0.2f64.ln() / 3.0).abs() < 1e-6, "{best:?}");
    }
    // A width of 1 is greedy.
    assert_eq!(search(BeamConfig::new(1, 4))[0].tokens, [0]);
}

/// `tests/fixtures/beams.json`; its script says how it was made.
#[derive(Deserialize)]
struct Searches {
    folders: BTreeMap<String, Folder>,
}

#[derive(Deserialize)]
struct Folder {
    prompt: Vec<u32>,
    stop_tokens: Vec<u32>,
    max_new_tokens: usize,
    searches: Vec<Search>,
}

#[derive(Deserialize)]
struct Search {
    width: usize,
    length_penalty: f64,
    early_stopping: String,
    found: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    tokens: Vec<u32>,
    score: f64,
}

/// Scores are sums of up to 7 log-probabilities in f32, there, of logits that differ by 5e-5 here.
const SCORE: f64 = 1e-3;

#[test]
fn searches_find_what_transformers_finds() {
    let device = any_device();
    let text = std::fs::read_to_string(fixture("beams.json")).unwrap();
    let Searches { folders } = serde_json::from_str(&text).unwrap();
    assert_eq!(folders.len(), crate::import::FOLDERS.len());
    let mut compared = 0;
    for (folder, Folder { prompt, stop_tokens, max_new_tokens, searches }) in folders {
        let options = LoadOptions::new();
        let model = hugging_face::load(fixture(&folder), &device, options).unwrap().model;
        let input = match &folder[..] {
            "bart_tiny" => {
                let reference = Fixtures::open("bart_tiny/reference.safetensors");
                let states = reference.tensor::<3>("encoder_hidden_states", &device);
                let visible = reference.ints::<2>("attention_mask", &device).narrow(0, 0, 1);
                let memory = states.narrow(0, 0, 1);
                Batch::new().with_memory(memory, Mask::padding(&visible, 0))
            }
            _ => Batch::new(),
        };
        for Search { width, length_penalty, early_stopping, found: expected } in searches {
            let config = BeamConfig::new(width, max_new_tokens)
                .with_length_penalty(length_penalty)
                .with_stop_tokens(stop_tokens.clone())
                .with_early_stopping(match &early_stopping[..] {
                    "true" => EarlyStopping::WhenFull,
                    "false" => EarlyStopping::Estimated,
                    "never" => EarlyStopping::Never,
                    other => panic!("early stopping {other}"),
                });
            let found = beam_search(&model, std::slice::from_ref(&prompt), input.clone(), &config);
            let found = found.unwrap().remove(0);
            let what = format!("{folder}, width {width}, {length_penalty}, {early_stopping}");
            let ids = |found: &Hypothesis| found.tokens.clone();
            let expected_ids: Vec<_> = expected.iter().map(|found| found.tokens.clone()).collect();
            assert_eq!(found.iter().map(ids).collect::<Vec<_>>(), expected_ids, "{what}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found.score - expected.score).abs() < SCORE, "{what}: {found:?}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 12 * 48);
}
