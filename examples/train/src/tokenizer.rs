//! The tokenizer: made for the text, as a `tokenizer.json` that transformers reads too.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;

use serde_json::{Map, Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::args::{Settings, Tokens};
use super::failure::Failure;
use super::text::Texts;

/// Begins a document.
pub const SEPARATOR: &str = "<|endoftext|>";

/// The tokenizer that the settings ask for.
pub fn make(settings: &Settings, texts: &Texts) -> Result<Tokenizer, Failure> {
    match settings.tokens {
        Tokens::Characters => characters(texts),
        Tokens::Bpe => byte_pairs(texts, settings.vocab),
    }
}

/// Each character of the text is a token, in the order of Unicode.
fn characters(texts: &Texts) -> Result<Tokenizer, Failure> {
    let known: BTreeSet<char> =
        texts.documents().flat_map(|text| text.split(SEPARATOR)).flat_map(str::chars).collect();
    let separator = known.len();
    let vocabulary: Map<String, Value> =
        known.iter().enumerate().map(|(id, one)| (one.to_string(), id.into())).collect();
    // Byte pairs without any merge: what is left are the characters.
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": separator, "content": SEPARATOR, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    });
    Tokenizer::from_str(&tokenizer.to_string())
        .map_err(|error| Failure::Run(format!("the tokenizer of characters: {error}")))
}

/// Byte-level byte-pair encoding, trained on the text.
fn byte_pairs(texts: &Texts, vocabulary: usize) -> Result<Tokenizer, Failure> {
    let failed = |error: tokenizers::Error| Failure::Run(format!("the tokenizer: {error}"));
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary)
        .show_progress(false)
        .initial_alphabet(alphabet)
        .special_tokens(vec![AddedToken::from(SEPARATOR, true)])
        .build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    let documents = texts.documents().flat_map(|text| text.split(SEPARATOR));
    tokenizer.train(&mut trainer, documents).map_err(failed)?;
    Ok(tokenizer)
}

/// `tokenizer_config.json` for it.
pub fn config(context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "model_max_length": context,
        "clean_up_tokenization_spaces": false,
    })
}
