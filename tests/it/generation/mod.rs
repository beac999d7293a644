//! Generation: batched rows are what they are alone, and searches find what there is to find.

mod beams;
mod hooked;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_decoder::Error;
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::cache::CacheConfig;
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, PositionEmbeddingConfig, Request,
};
use burn_decoder::generation::{
    BeamConfig, Finish, Generated, Generation, GenerationConfig, RowTokens, SamplingConfig,
    beam_search, beam_search_with_hook, hooks,
};
use burn_decoder::import::{LoadOptions, Precision, hugging_face};
use burn_decoder::mask::Mask;
use rayon::prelude::*;

use crate::backends::{any_device, cpus, is_cpu};
use crate::cache::{input_for, kinds, plain, tokens};
use crate::fixtures::{OUTPUT, assert_close};
use crate::import::fixture;

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
    let silent = generate(&model, std::slice::from_ref(&prompt), &config).remove(0);
    assert!(silent.log_probabilities.is_empty(), "not asked for");
    let config = config.with_log_probabilities(true);
    let got = generate(&model, std::slice::from_ref(&prompt), &config).remove(0);
    assert_eq!(got.tokens, silent.tokens);
    assert_eq!(got.log_probabilities.len(), 6);

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
    // What would be another number in f32, where the logits are, is refused too.
    for penalty in [0.0, 1e300, 1e-300] {
        let penalised = sampled(warm().with_repetition_penalty(penalty));
        assert!(penalised.contains("repetition_penalty"), "{penalised}");
    }
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
    for penalty in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
        let config = BeamConfig::new(2, 3).with_length_penalty(penalty);
        assert!(beam(config).to_string().contains("length_penalty"));
    }
}

/// An error of the model ends the iterator after it was told, behind the tokens of the same step.
#[test]
fn errors_are_told_once() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    // Row 0 has ended when row 2 breaks: the error names the prompt, not the place in the batch.
    let prompts = [vec![1, 2], vec![3], vec![4, 5, 6]];
    let config = GenerationConfig::new(9).with_stop_tokens(vec![7]);
    let generation = || {
        Generation::new(&model, &prompts, &config).unwrap().with_hook(
            |row, tokens: RowTokens, logits: &mut [f32]| match (row, tokens.written().len()) {
                (0, 1) => hooks::forced_tokens([7, 7])(row, tokens, logits),
                (2, 3) => logits[1] = f32::NAN,
                _ => hooks::banned_tokens([7])(row, tokens, logits),
            },
        )
    };
    let is_told = |error: &Error| matches!(error, Error::NotANumber { row: 2, tokens: 6, .. });
    let (mut rows, mut written) = (Vec::new(), vec![Vec::new(); 3]);
    let mut steps = generation();
    let error = loop {
        match steps.next().expect("an error comes first") {
            Ok(token) => {
                rows.push(token.row);
                written[token.row].push(token.token);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(rows, [0, 1, 2, 0, 1, 2, 1, 2, 1]);
    assert!(is_told(&error), "{error}");
    assert!(steps.next().is_none());

    // All at once: the same error, and beside it what was written.
    let unfinished = generation().finish().unwrap_err();
    assert!(is_told(&unfinished.error), "{unfinished}");
    assert_eq!(
        unfinished.written.iter().map(|row| &row.tokens).collect::<Vec<_>>(),
        written.iter().collect::<Vec<_>>()
    );
    let finishes: Vec<_> = unfinished.written.iter().map(|row| row.finish).collect();
    assert_eq!(finishes, [Finish::Stop, Finish::Error, Finish::Error]);
    assert!(unfinished.to_string().ends_with("(tokens written before: 9)"), "{unfinished}");
    assert!(is_told(&unfinished.into()));
}

/// A model whose head adds `bias` to the logits.
fn biased(bias: impl Fn(usize) -> f32, device: &Device) -> LanguageModel {
    let mut model = plain().with_head_bias(true).init(device).unwrap();
    let values: Vec<f32> = (0..model.vocab_size()).map(bias).collect();
    let head = model.head.as_mut().unwrap();
    head.bias =
        head.bias.take().map(|old| old.map(|_| Tensor::from_floats(values.as_slice(), device)));
    model
}

/// Scores that are no numbers, wherever they are read: greedy, sampled with and without cuts, and in
/// a search.
#[test]
fn scores_that_are_no_numbers_are_errors() {
    let device = any_device();
    let errors = |model: &LanguageModel| {
        let warm = SamplingConfig::at_temperature(1.0);
        let samplings = [
            SamplingConfig::greedy(),
            SamplingConfig::greedy().with_repetition_penalty(1.2),
            warm.clone(),
            warm.clone().with_top_k(Some(3)),
            warm.with_top_p(Some(0.9)),
        ];
        let mut errors: Vec<_> = samplings
            .map(|sampling| {
                let config = GenerationConfig::new(2).with_sampling(sampling);
                let generation = Generation::new(model, &[vec![1, 2]], &config).unwrap();
                Error::from(generation.finish().unwrap_err())
            })
            .into();
        let config = BeamConfig::new(2, 2);
        errors.push(beam_search(model, &[vec![1, 2]], Batch::new(), &config).unwrap_err());
        errors
    };
    for bad in [f32::NAN, f32::INFINITY] {
        for error in errors(&biased(|token| if token == 5 { bad } else { 0.0 }, &device)) {
            let Error::NotANumber { row: 0, tokens: 2, got } = error else { panic!("{error}") };
            assert_eq!(got.is_nan(), bad.is_nan());
        }
    }
    for error in errors(&biased(|_| f32::NEG_INFINITY, &device)) {
        assert!(matches!(error, Error::NoTokenLeft { row: 0, tokens: 2 }), "{error}");
    }
    // One that is ruled out is not: the others have all the probability.
    let model = biased(|token| if token == 5 { 0.0 } else { f32::NEG_INFINITY }, &device);
    let config = GenerationConfig::new(3).with_log_probabilities(true);
    let got = generate(&model, &[vec![1]], &config).remove(0);
    assert_eq!((got.tokens, got.log_probabilities), (vec![5; 3], vec![0.0; 3]));
    let found = beam_search(&model, &[vec![1]], Batch::new(), &BeamConfig::new(3, 2)).unwrap();
    assert_eq!(found[0].iter().map(|beam| &beam.tokens[..]).collect::<Vec<_>>(), [[5, 5]]);
}

/// Half precision gets there by itself: logits beyond 65,504.
#[test]
fn an_overflow_in_half_precision_is_an_error() {
    let Some(device) = cpus().into_iter().find(|device| device.supports_dtype(DType::F16)) else {
        return;
    };
    let options = LoadOptions::new().with_precision(Precision::F16);
    let loaded = hugging_face::load(fixture("llama_tiny"), &device, options).unwrap();
    let mut model = loaded.model;
    let head = model.head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * 3e4);
    let generation = Generation::new(&model, &[vec![1, 2, 3]], &GenerationConfig::new(4)).unwrap();
    let error = generation.finish().unwrap_err().error;
    assert!(matches!(error, Error::NotANumber { row: 0, tokens: 3, .. }), "{error}");
}

/// Room is taken as tokens come, whatever may come at most.
#[test]
fn no_room_is_reserved_for_what_may_never_come() {
    let device = any_device();
    let model = decided(plain(), &device);
    let prompts = [vec![1, 2], vec![3]];
    let stop = |row: usize, tokens: RowTokens, logits: &mut [f32]| match tokens.written().len()
        == 4 + row
    {
        true => hooks::forced_tokens([7; 6])(row, tokens, logits),
        false => hooks::banned_tokens([7])(row, tokens, logits),
    };
    for most in [100_000_000, usize::MAX] {
        let config = GenerationConfig::new(most).with_stop_tokens(vec![7]);
        let rows = Generation::new(&model, &prompts, &config).unwrap().with_hook(stop).finish();
        let lengths: Vec<_> = rows.unwrap().iter().map(|row| row.tokens.len()).collect();
        assert_eq!(lengths, [5, 6]);

        let config = BeamConfig::new(2, most).with_stop_tokens(vec![7]);
        let found = beam_search_with_hook(&model, &prompts, Batch::new(), &config, stop);
        let lengths: Vec<_> = found.unwrap().iter().map(|beams| beams[0].tokens.len()).collect();
        assert_eq!(lengths, [5, 6]);
    }
}

/// Where learned positions or the cache end, so do rows, each by itself, and what they wrote stays.
#[test]
fn rows_end_where_there_is_no_more_room() {
    let device = any_device();
    let learned = plain().with_positions(Some(PositionEmbeddingConfig::learned(8)));
    let model = decided(learned, &device);
    let prompts = [vec![1, 2, 3, 4, 5], vec![6], vec![1; 8]];
    let rows = generate(&model, &prompts, &GenerationConfig::new(10));
    // The last token is written and not read.
    assert_eq!(rows.iter().map(|row| row.tokens.len()).collect::<Vec<_>>(), [4, 8, 1]);
    assert!(rows.iter().all(|row| row.finish == Finish::Length));
    for (row, prompt) in rows.iter().zip(&prompts) {
        let alone = generate(&model, std::slice::from_ref(prompt), &GenerationConfig::new(10));
        assert_eq!(row.tokens, alone[0].tokens);
    }
    let beams = BeamConfig::new(2, 10);
    let found = beam_search(&model, &prompts, Batch::new(), &beams).unwrap();
    assert_eq!(found.iter().map(|row| row[0].tokens.len()).collect::<Vec<_>>(), [4, 8, 1]);

    let too_long = Generation::new(&model, &[vec![1], vec![1; 9]], &GenerationConfig::new(1));
    let message = too_long.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("at most 8 tokens") && message.contains("9 in row 1"), "{message}");
    let too_long = beam_search(&model, &[vec![1; 9]], Batch::new(), &beams);
    assert!(matches!(too_long, Err(Error::Input { input: "prompts", .. })));

    // The limit of a cache counts the padding.
    let model = decided(plain(), &device);
    let cache = Some(CacheConfig::fixed(7));
    let config = GenerationConfig::new(10).with_cache(cache.clone());
    let limited = generate(&model, &prompts[..2], &config);
    let free = generate(&model, &prompts[..2], &GenerationConfig::new(10));
    for (limited, free) in limited.iter().zip(&free) {
        assert_eq!((&limited.tokens[..], limited.finish), (&free.tokens[..3], Finish::Length));
    }
    let beams = BeamConfig::new(2, 10).with_cache(cache);
    let found = beam_search(&model, &prompts[..2], Batch::new(), &beams).unwrap();
    assert!(found.iter().flatten().all(|beam| beam.tokens.len() == 3));
    let too_long = Generation::new(&model, &[vec![1; 8]], &config).map(|_| ()).unwrap_err();
    assert!(too_long.to_string().contains("CacheConfig"), "{too_long}");
}
