//! Generation: batched rows are what they are alone, and searches find what there is to find.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_decoder::Error;
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::cache::CacheConfig;
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, Request,
};
use burn_decoder::generation::{
    BeamConfig, Finish, Generated, Generation, GenerationConfig, SamplingConfig, beam_search,
};
use burn_decoder::mask::Mask;
use rayon::prelude::*;

use crate::backends::{any_device, is_cpu};
use crate::cache::{input_for, kinds, plain, tokens};
use crate::fixtures::{OUTPUT, assert_close};

/// Random weights make dull models: the scores of near-equal tokens. Larger ones make it choose.
fn decided(config: burn_decoder::decoder::LanguageModelConfig, device: &Device) -> LanguageModel {
    let mut model = config.init(device).unwrap();
    let weight = match &mut model.head {
        Some(head) => &mut head.weight,
        None => &mut model.embedding.weight,
    };
    *weight = weight.clone().map(|weight| weight * 20.0);
    model
}

/// Greedy generation with a pass over everything for each token.
fn without_cache(model: &LanguageModel, prompt: &[u32], new: usize, input: Batch) -> Vec<u32> {
    let device = model.embedding.weight.device();
    let mut all: Vec<i64> = prompt.iter().map(|&token| token.into()).collect();
    for _ in 0..new {
        let logits = model.forward(tokens(&[all.clone()], &device), input.clone()).unwrap().logits;
        let last = logits.narrow(1, all.len() - 1, 1);
        all.push(last.argmax(2).into_data().iter::<i64>().next().unwrap());
    }
    all[prompt.len()..].iter().map(|&token| token as u32).collect()
}

fn generate(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
) -> Vec<Generated> {
    Generation::new(model, prompts, config).unwrap().finish().unwrap()
}

/// Prompts of lengths 1, 2, 7 and 32.
fn prompts() -> Vec<Vec<u32>> {
    [1u32, 2, 7, 32].map(|n| (0..n).map(|i| (i * i * 5 + i + n) % 17).collect()).to_vec()
}

on_each_backend! {
    /// Greedy ids with the cache are those without it, for every kind of layer.
    fn greedy_ids_are_those_without_cache(device: Device) {
        for (kind, config) in kinds() {
            if !is_cpu(&device) && !["pre-norm", "window with sinks"].contains(&kind) {
                continue;
            }
            let model = decided(config, &device);
            let input = input_for(&model, 1);
            let prompt = vec![3, 1, 4, 1, 5];
            let config = GenerationConfig::new(9)
                .with_cache(Some(CacheConfig::new().with_capacity(1)));
            let generation =
                Generation::with_input(&model, std::slice::from_ref(&prompt), input.clone(), &config);
            let got = generation.unwrap().finish().unwrap();
            assert_eq!(got[0].tokens, without_cache(&model, &prompt, 9, input), "{kind}");
            assert_eq!(got[0].finish, Finish::Length);
        }
    }

    /// A row of a left-padded batch gets the tokens that it gets alone.
    fn rows_of_a_batch_are_as_alone(device: Device) {
        let prompts = prompts();
        let mut configs = kinds();
        // Their learned positions end at 18.
        configs.retain(|(kind, _)| *kind != "learned positions" && *kind != "cross-attention");
        configs.push(("prefix", plain().with_mask(Mask::prefix(3) | Mask::look_ahead())));
        for (kind, config) in configs {
            if !is_cpu(&device) && !["pre-norm", "windows in turn, sinks"].contains(&kind) {
                continue;
            }
            let model = decided(config, &device);
            let config = GenerationConfig::new(8);
            let together = generate(&model, &prompts, &config);
            for (row, prompt) in prompts.iter().enumerate() {
                let alone = generate(&model, std::slice::from_ref(prompt), &config);
                assert_eq!(together[row].tokens, alone[0].tokens, "{kind}, row {row}");
            }
        }
    }

    /// A model of some size keeps rayon's threads awake on the CPU: alone, step by step, and where
    /// many generations want them at once, from within rayon's pool.
    fn a_model_of_some_size_writes_the_same_whoever_helps(device: Device) {
        let layer = DecoderLayerConfig::new(
            MultiHeadAttentionConfig::new(512, 4),
            FeedForwardConfig::new(512, 96),
        );
        let model = decided(LanguageModelConfig::new(23, DecoderConfig::new(layer, 1)), &device);
        let prompt = vec![3, 1, 4];
        let expected = without_cache(&model, &prompt, 6, Batch::new());
        let config = GenerationConfig::new(6);
        let finish = || generate(&model, std::slice::from_ref(&prompt), &config).remove(0).tokens;
        assert_eq!(finish(), expected);
        let steps = Generation::new(&model, std::slice::from_ref(&prompt), &config).unwrap();
        assert_eq!(steps.map(|step| step.unwrap().token).collect::<Vec<_>>(), expected);
        if is_cpu(&device) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
            let all: Vec<_> =
                pool.install(|| (0..24).into_par_iter().map(|_| finish()).collect());
            assert!(all.iter().all(|tokens| *tokens == expected), "{all:?}");
        }
    }

    /// The same seed draws the same tokens on every backend.
    fn samples_are_reproducible(device: Device) {
        let here = decided(plain(), &any_device());
        let there = here.clone().fork(&device);
        let sampling =
            SamplingConfig::at_temperature(10.0).with_top_k(Some(12)).with_top_p(Some(0.95));
        let run = |model: &LanguageModel, seed| {
            let sampling = sampling.clone().with_seed(seed).with_repetition_penalty(1.1);
            let config = GenerationConfig::new(12).with_sampling(sampling);
            let tokens = generate(model, &[vec![3, 1], vec![4]], &config);
            tokens.into_iter().map(|row| row.tokens).collect::<Vec<_>>()
        };
        assert_eq!(run(&there, 1), run(&here, 1));
        assert_ne!(run(&there, 1), run(&here, 2));
    }
}

/// A row ends with its stop token and is not computed any more; the others go on as they would.
#[test]
fn rows_stop_by_themselves() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompts = prompts();
    let full = generate(&model, &prompts, &GenerationConfig::new(20));
    // A token that some row writes early and others late or never.
    let stop = full[1].tokens[3];
    let config = GenerationConfig::new(20).with_stop_tokens(vec![stop]);
    let stopped = generate(&model, &prompts, &config);
    for (full, stopped) in full.iter().zip(&stopped) {
        match full.tokens.iter().position(|&token| token == stop) {
            Some(at) => {
                assert_eq!(stopped.tokens, full.tokens[..=at]);
                assert_eq!(stopped.finish, Finish::Stop);
            }
            // Not the log-probabilities: fewer rows are summed in another order.
            None => assert_eq!((&stopped.tokens, stopped.finish), (&full.tokens, full.finish)),
        }
    }
    assert!(stopped[1].tokens.len() <= 4);
}

/// The iterator gives one token of each live row in turn, and ends each row once.
#[test]
fn tokens_come_as_they_are_written() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompts = [vec![1, 2, 3], vec![4]];
    let config = GenerationConfig::new(3);
    let all: Vec<_> =
        Generation::new(&model, &prompts, &config).unwrap().collect::<Result<_, _>>().unwrap();
    let rows: Vec<_> = all.iter().map(|token| token.row).collect();
    assert_eq!(rows, [0, 1, 0, 1, 0, 1]);
    let ends: Vec<_> = all.iter().map(|token| token.finish.is_some()).collect();
    assert_eq!(ends, [false, false, false, false, true, true]);
}

/// Log-probabilities are those of the model: the softmax of a pass over everything.
#[test]
fn log_probabilities_are_the_models() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompt = vec![3, 1, 4];
    let sampling = SamplingConfig::at_temperature(2.0).with_repetition_penalty(1.5);
    let config = GenerationConfig::new(6).with_sampling(sampling);
    let got = generate(&model, std::slice::from_ref(&prompt), &config).remove(0);

    let all: Vec<i64> = prompt.iter().chain(&got.tokens).map(|&token| token.into()).collect();
    let logits = model.forward(tokens(&[all], &device), Batch::new()).unwrap().logits;
    let log = burn::tensor::activation::log_softmax(logits, 2);
    for (i, (&token, log_probability)) in got.tokens.iter().zip(got.log_probabilities).enumerate() {
        let at = log.clone().slice([0..1, 2 + i..3 + i, token as usize..token as usize + 1]);
        let expected: f32 = at.into_scalar();
        assert!((f64::from(expected) - log_probability).abs() < 1e-4, "{expected}");
    }
}

/// The weights of a token are the last row of those of a pass over everything before it.
#[test]
fn weights_of_generated_tokens() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompts = [vec![3, 1, 4], vec![1]];
    let input = Batch::new().asking(Request::new().with_weights(true));
    let generation =
        Generation::with_input(&model, &prompts, input.clone(), &GenerationConfig::new(4));
    let mut rows: Vec<Vec<i64>> =
        prompts.iter().map(|prompt| prompt.iter().map(|&t| i64::from(t)).collect()).collect();
    for token in generation.unwrap() {
        let token = token.unwrap();
        let so_far = &mut rows[token.row];
        let full =
            model.forward(tokens(std::slice::from_ref(so_far), &device), input.clone()).unwrap();
        assert_eq!(token.weights.len(), 2);
        for (got, full) in token.weights.into_iter().zip(full.self_weights) {
            let [_, heads, queries, keys] = full.dims();
            let expected: Tensor<2> = full.narrow(2, queries - 1, 1).reshape([heads, keys]);
            assert_close("weights", got.into_data(), expected.into_data(), OUTPUT);
        }
        so_far.push(token.token.into());
    }
}

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
        let config = BeamConfig::new(125, 4).with_stop_tokens(vec![2]).with_length_penalty(penalty);
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
        let greedy = GenerationConfig::new(8).with_stop_tokens(vec![4, 9]);
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
        let ids = |beams: &[burn_decoder::generation::Hypothesis]| {
            beams.iter().map(|beam| beam.tokens.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&together), ids(&alone[0]));
    }
}

#[test]
fn senseless_settings_are_refused() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let start = |prompts: &[Vec<u32>], config: GenerationConfig| {
        Generation::new(&model, prompts, &config).map(|_| ()).unwrap_err().to_string()
    };
    let prompts = [vec![1]];
    let config = || GenerationConfig::new(3);
    let sampled = |sampling| start(&prompts, config().with_sampling(sampling));
    let warm = || SamplingConfig::at_temperature(1.0);
    assert!(start(&prompts, GenerationConfig::new(0)).contains("max_new_tokens"));
    assert!(sampled(SamplingConfig::at_temperature(0.0)).contains("temperature"));
    assert!(sampled(warm().with_top_k(Some(0))).contains("top_k"));
    assert!(sampled(warm().with_top_p(Some(1.5))).contains("top_p"));
    assert!(sampled(warm().with_min_p(Some(-0.1))).contains("min_p"));
    assert!(sampled(warm().with_repetition_penalty(0.0)).contains("repetition_penalty"));
    let ignored = SamplingConfig::greedy().with_top_k(Some(3));
    assert_eq!(
        sampled(ignored),
        "SamplingConfig::top_k: expected a temperature beside it (1.0 leaves the probabilities as \
         they are), got none, and the likeliest token is never cut off"
    );
    assert!(start(&[], config()).contains("no prompts"));
    assert!(start(&[vec![1], vec![]], config()).contains("row 1"));
    assert!(start(&[vec![1, 17]], config()).contains("token 17"));
    let beam = |config| beam_search(&model, &prompts, Batch::new(), &config).unwrap_err();
    assert!(matches!(beam(BeamConfig::new(0, 3)), Error::Config { .. }));
    let nan = BeamConfig::new(2, 3).with_length_penalty(f64::NAN);
    assert!(matches!(beam(nan), Error::Config { .. }));
}

/// An error of the model ends the iterator after it was told.
#[test]
fn errors_are_told_once() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let config = GenerationConfig::new(9).with_cache(Some(CacheConfig::fixed(4)));
    let mut generation = Generation::new(&model, &[vec![1, 2]], &config).unwrap();
    assert!(generation.by_ref().take(3).all(|token| token.is_ok()));
    assert!(matches!(generation.next(), Some(Err(Error::Cache { .. }))));
    assert!(generation.next().is_none());

    let mut broken = plain().init(&device).unwrap();
    let head = broken.head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * f32::NAN);
    let error = Generation::new(&broken, &[vec![1]], &GenerationConfig::new(2)).unwrap().finish();
    assert!(matches!(error, Err(Error::NotANumber { row: 0, tokens: 1 })), "{error:?}");
}
