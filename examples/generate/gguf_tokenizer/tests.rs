//! Tokenizers of GGUF files against those that the files were made from: see
//! tests/fixtures/gguf/make_gguf.py.

use std::fs;
use std::path::{Path, PathBuf};

use burn_decoder::import::gguf::{Gguf, Tokenizer as Values, TokenizerKind};
use serde_json::Value;

use super::build;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/gguf");

pub fn file(name: &str) -> PathBuf {
    Path::new(FIXTURES).join(format!("{name}.gguf"))
}

fn values(name: &str) -> Values {
    Gguf::open(file(name)).unwrap().tokenizer().unwrap()
}

/// A text and its tokens.
type Tokenized = (String, Vec<u32>);

/// Names of files, with texts and their tokens.
fn expected() -> Vec<(String, Vec<Tokenized>)> {
    let text = fs::read_to_string(Path::new(FIXTURES).join("tokens.json")).unwrap();
    let Value::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("an object") };
    let pairs = |pairs| serde_json::from_value(pairs).unwrap();
    files.into_iter().map(|(name, texts)| (name, pairs(texts))).collect()
}

#[test]
fn tokens_are_those_of_the_original() {
    let expected = expected();
    assert_eq!(expected.len(), 7);
    for (name, texts) in expected {
        let tokenizer = build(&values(&name)).unwrap();
        for (text, expected) in texts {
            let got = tokenizer.encode(text.as_str(), true).unwrap();
            assert_eq!(got.get_ids(), expected, "{name}: {text:?} in {:?}", got.get_tokens());
        }
    }
}

#[test]
fn texts_come_back() {
    for (name, texts) in expected() {
        let tokenizer = build(&values(&name)).unwrap();
        for (text, tokens) in texts {
            // Qwen composes what is composed already, and pieces without bytes have an unknown one.
            if name != "olmo2" && !text.contains("<|") {
                assert_eq!(tokenizer.decode(&tokens, true).unwrap(), text, "{name}");
            }
        }
    }
}

#[test]
fn what_is_not_known_is_named() {
    let refused = |change: fn(&mut Values)| {
        let mut values = values("llama");
        change(&mut values);
        build(&values).unwrap_err()
    };
    let error = refused(|values| {
        let TokenizerKind::ByteLevel { pre_tokenizer, .. } = &mut values.kind else { panic!() };
        *pre_tokenizer = "tekken".into();
    });
    assert!(error.starts_with("tokenizer.ggml.pre: ") && error.ends_with("got tekken"), "{error}");
    let error = refused(|values| values.tokens[300].text = values.tokens[299].text.clone());
    assert!(error.ends_with("again as 300"), "{error}");
    let error = refused(|values| (values.add_bos, values.bos) = (Some(true), Some(999)));
    assert_eq!(error, "tokenizer.ggml.bos_token_id: expected one of 340 tokens, got 999");
    // A pair of no token, one longer than every token, and no pair.
    let longest = values("llama").tokens.into_iter().max_by_key(|token| token.text.len()).unwrap();
    let longest = format!("{0} {0}", longest.text);
    for merge in ["no token", &longest, "no\u{a0}pair"] {
        let mut values = values("llama");
        let TokenizerKind::ByteLevel { merges, .. } = &mut values.kind else { panic!() };
        merges[7] = merge.into();
        let error = build(&values).unwrap_err();
        assert!(error.starts_with("tokenizer.ggml.merges: "), "{error}");
        assert!(error.ends_with(" as 7"), "{error}");
    }
}
