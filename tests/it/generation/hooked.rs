//! Logits hooks: the ready-made ones at work, a grammar behind one, and what can go wrong.

use std::sync::Mutex;

use burn_decoder::Error;
use burn_decoder::decoder::{Batch, LanguageModel};
use burn_decoder::generation::{
    BeamConfig, Finish, Generation, GenerationConfig, RowTokens, SamplingConfig, beam_search,
    beam_search_with_hook, hooks,
};

use super::{decided, generate, prompts};
use crate::backends::any_device;
use crate::cache::plain;

/// A hook sees each row's number and all of its tokens, in every step, and the prompt apart.
#[test]
fn a_hook_sees_every_row_and_step() {
    let model = decided(plain(), &any_device());
    let prompts = [vec![3, 1], vec![4]];
    let config = GenerationConfig::new(3);
    let seen = Mutex::new(Vec::new());
    let rows = Generation::new(&model, &prompts, &config)
        .unwrap()
        .with_hook(|row, tokens: RowTokens, logits: &mut [f32]| {
            assert_eq!((tokens.prompt(), logits.len()), (&prompts[row][..], 17));
            assert_eq!([tokens.prompt(), tokens.written()].concat(), tokens.to_vec());
            seen.lock().unwrap().push((row, tokens.written().to_vec()));
        })
        .finish()
        .unwrap();
    let expected: Vec<_> =
        (0..3).flat_map(|n| [0, 1].map(|row| (row, rows[row].tokens[..n].to_vec()))).collect();
    assert_eq!(seen.into_inner().unwrap(), expected);
    assert_eq!(rows, generate(&model, &prompts, &config), "it changed nothing");
}

#[test]
fn ready_made_hooks_keep_their_word() {
    let model = decided(plain(), &any_device());
    let prompts = prompts();
    let free = generate(&model, &prompts, &GenerationConfig::new(12));
    let banned = free[0].tokens[0];
    let stop = (0..17).find(|token| !free[1].tokens.contains(token) && *token != banned).unwrap();
    let config = GenerationConfig::new(12).with_stop_tokens(vec![stop]);
    let rows = Generation::new(&model, &prompts, &config)
        .unwrap()
        .with_hook(hooks::banned_tokens([banned]))
        .with_hook(hooks::minimum_new_tokens(5, [stop]))
        .with_hook(hooks::no_repeated_ngrams(2).unwrap())
        .finish()
        .unwrap();
    for (row, prompt) in rows.iter().zip(&prompts) {
        assert!(!row.tokens.contains(&banned));
        assert!(row.tokens.iter().position(|&token| token == stop).is_none_or(|at| at >= 5));
        let all = [prompt.clone(), row.tokens.clone()].concat();
        for end in prompt.len() + 1..=all.len() {
            let last = &all[end - 2..end];
            assert!(!all[..end - 1].windows(2).any(|pair| pair == last), "{all:?}");
        }
    }

    // A stop token that would have come at once.
    let early = free[1].tokens[0];
    let config = GenerationConfig::new(12).with_stop_tokens(vec![early]);
    assert_eq!(generate(&model, &prompts, &config)[1].tokens, [early]);
    let rows = Generation::new(&model, &prompts, &config)
        .unwrap()
        .with_hook(hooks::minimum_new_tokens(5, [early]))
        .finish()
        .unwrap();
    assert!(rows.iter().all(|row| row.tokens.len() >= 5), "{rows:?}");

    let config = GenerationConfig::new(12).with_stop_tokens(vec![stop]);
    let letters = |tokens: &[u32]| -> String {
        tokens.iter().map(|&token| char::from(b'a' + token as u8)).collect()
    };
    // The second row's fourth and fifth token.
    let string = letters(&free[1].tokens[3..5]);
    let stopped = Generation::new(&model, &prompts, &config)
        .unwrap()
        .with_hook(hooks::banned_tokens([stop]))
        .with_hook(|row, tokens: RowTokens, logits: &mut [f32]| {
            // The text of the first run, but for the stop token.
            hooks::forced_tokens(free[row].tokens.clone())(row, tokens, logits);
            logits[stop as usize] = -1e9;
        })
        .with_hook(hooks::stop_strings(letters, [string.clone()], stop).unwrap())
        .finish();
    let stopped = stopped.unwrap();
    let end = letters(&free[1].tokens).find(&string).unwrap() + 2;
    assert_eq!(stopped[1].tokens, [&free[1].tokens[..end], &[stop]].concat());
    assert_eq!(stopped[1].finish, Finish::Stop);
}

/// A hook in a search: the same beginnings, and what they may not say.
#[test]
fn a_search_has_its_hook() {
    let model = decided(plain(), &any_device());
    let prompts = [vec![3, 1], vec![4]];
    let config = BeamConfig::new(3, 5);
    let free = beam_search(&model, &prompts, Batch::new(), &config).unwrap();
    let banned = free[0][0].tokens[0];
    let idle = beam_search_with_hook(&model, &prompts, Batch::new(), &config, |_, _, _| ());
    assert_eq!(idle.unwrap(), free);
    let hook = hooks::banned_tokens([banned]);
    let found = beam_search_with_hook(&model, &prompts, Batch::new(), &config, hook).unwrap();
    for beams in found {
        assert_eq!(beams.len(), 3);
        assert!(beams.iter().all(|beam| !beam.tokens.contains(&banned)));
    }
}

#[test]
fn a_row_without_any_token_left_is_an_error() {
    let model = decided(plain(), &any_device());
    let prompts = [vec![3, 1], vec![4]];
    let hook = |row: usize, tokens: RowTokens, logits: &mut [f32]| {
        if row == 1 && tokens.written().len() == 2 {
            logits.fill(f32::NEG_INFINITY);
        }
    };
    let generation = Generation::new(&model, &prompts, &GenerationConfig::new(5)).unwrap();
    let error = generation.with_hook(hook).finish().unwrap_err().error;
    assert!(matches!(error, Error::NoTokenLeft { row: 1, tokens: 3 }), "{error}");
    let config = BeamConfig::new(2, 5);
    let found = beam_search_with_hook(&model, &prompts, Batch::new(), &config, hook);
    assert!(matches!(found, Err(Error::NoTokenLeft { row: 1, tokens: 3 })));

    // A token outside the vocabulary can't be forced.
    let generation = Generation::new(&model, &prompts, &GenerationConfig::new(5)).unwrap();
    let error = generation.with_hook(hooks::forced_tokens([17])).finish().unwrap_err().error;
    assert!(matches!(error, Error::NoTokenLeft { row: 0, tokens: 2 }), "{error}");
}

/// What each token of the vocabulary of 17 says; the last one ends the text.
const WORDS: [&str; 17] = [
    "{", "}", "[", "]", ":", ",", "\"", "a", "b", " ", "0", "1", "-2.5", "true", "false", "null",
    "",
];
const END: usize = 16;

/// A machine that has read the beginning of a JSON text, token by token.
#[derive(Clone)]
struct Json {
    /// The closing brackets that are owed.
    owed: Vec<&'static str>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Value,
    FirstElement,
    FirstKey,
    Key,
    InKey,
    Colon,
    InString,
    Behind,
    Ended,
}

impl Json {
    fn new() -> Self {
        Self { owed: Vec::new(), place: Place::Value }
    }

    /// The machine behind one more token, if it may come here.
    fn read(&self, token: usize) -> Option<Self> {
        use Place::*;
        let mut next = self.clone();
        next.place = match (self.place, WORDS[token]) {
            (Value | FirstElement, "{") => {
                next.owed.push("}");
                FirstKey
            }
            (Value | FirstElement, "[") => {
                next.owed.push("]");
                FirstElement
            }
            (Value | FirstElement, "\"") => InString,
            (Value | FirstElement, "0" | "1" | "-2.5" | "true" | "false" | "null") => Behind,
            (FirstKey | Key, "\"") => InKey,
            (InKey, "\"") => Colon,
            (InString, "\"") => Behind,
            (InKey | InString, word) if token != END && !word.is_empty() => self.place,
            (Colon, ":") => Value,
            (Behind, ",") if self.owed.last() == Some(&"}") => Key,
            (Behind, ",") if self.owed.last() == Some(&"]") => Value,
            (FirstElement, "]") | (FirstKey, "}") => {
                next.owed.pop();
                Behind
            }
            (Behind, word) if self.owed.last() == Some(&word) => {
                next.owed.pop();
                Behind
            }
            (Behind, "") if self.owed.is_empty() => Ended,
            _ => return None,
        };
        Some(next)
    }

    /// The least number of tokens to the end of the text, the end itself included.
    fn least(&self) -> usize {
        use Place::*;
        let here = match self.place {
            Ended => return 0,
            Behind | FirstElement | FirstKey => 0,
            Value | InString => 1,
            Colon => 2,
            InKey => 3,
            Key => 4,
        };
        here + self.owed.len() + 1
    }
}

/// Leaves the tokens alone that go on with a JSON text, and that leave room to end it.
fn grammar(most: usize) -> impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send {
    move |_, tokens, logits| {
        let read = |json: Json, &token: &u32| json.read(token as usize);
        let so_far = tokens.written().iter().try_fold(Json::new(), read);
        let so_far = so_far.expect("all so far was allowed");
        let left = most - tokens.written().len();
        for (token, logit) in logits.iter_mut().enumerate() {
            if so_far.read(token).is_none_or(|next| next.least() > left - 1) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// The text of a row that has ended.
fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| WORDS[token as usize]).collect()
}

fn assert_json(tokens: &[u32]) {
    assert_eq!(tokens.last(), Some(&(END as u32)), "{}", text(tokens));
    let parsed = serde_json::from_str::<serde_json::Value>(&text(tokens));
    assert!(parsed.is_ok(), "{}: {parsed:?}", text(tokens));
}

/// A grammar fits behind a hook: a model that knows nothing of JSON writes nothing else.
#[test]
fn a_grammar_fits_behind_a_hook() {
    let most = 24;
    let model: LanguageModel = plain().init(&any_device()).unwrap();
    let prompts = prompts();
    let mut lengths = Vec::new();
    for seed in 0..10 {
        let sampling = SamplingConfig::at_temperature(1.0).with_seed(seed);
        let config =
            GenerationConfig::new(most).with_sampling(sampling).with_stop_tokens(vec![END as u32]);
        let generation = Generation::new(&model, &prompts, &config).unwrap();
        for row in generation.with_hook(grammar(most)).finish().unwrap() {
            assert_json(&row.tokens);
            lengths.push(row.tokens.len());
        }
    }
    assert!(lengths.iter().any(|&length| length > 8), "{lengths:?}");

    let config = BeamConfig::new(3, most).with_stop_tokens(vec![END as u32]);
    let hook = grammar(most);
    let found = beam_search_with_hook(&model, &prompts, Batch::new(), &config, hook).unwrap();
    for beam in found.iter().flatten() {
        assert_json(&beam.tokens);
    }
}
