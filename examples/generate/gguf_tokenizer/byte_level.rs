//! Byte pairs: a pattern finds the words, and the bytes of a word are joined pair by pair.
//!
//! A file has the pattern's name alone, as llama.cpp spells it.

use burn_decoder::import::gguf::Tokenizer as Values;
use serde_json::{Value, json};

use super::{Parts, cannot_be_built, pairs};

/// Words of Llama 3, OLMo 2 and the later of OpenAI's: digits in threes, line breaks by themselves.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same, every digit by itself.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How words are found.
enum Words {
    /// By GPT-2's pattern.
    Gpt2,
    /// The same, once every digit stands by itself.
    SingleDigits,
    /// By a pattern.
    Pattern(&'static str),
}

/// What a name means.
struct Rules {
    words: Words,
    /// Whether a word that is a token is taken whole, whatever the pairs make of it.
    ignore_merges: bool,
    /// Whether texts are put into Unicode's composed form first.
    composed: bool,
}

fn rules(pre_tokenizer: &str) -> Option<Rules> {
    let (words, ignore_merges, composed) = match pre_tokenizer {
        "gpt-2" | "olmo" | "phi-2" => (Words::Gpt2, false, false),
        "command-r" | "refact" | "smollm" | "starcoder" => (Words::SingleDigits, false, false),
        "llama-bpe" | "llama-v3" | "llama3" => (Words::Pattern(LLAMA_3), true, false),
        "dbrx" | "smaug-bpe" => (Words::Pattern(LLAMA_3), false, false),
        "qwen2" => (Words::Pattern(QWEN_2), false, true),
        _ => return None,
    };
    Some(Rules { words, ignore_merges, composed })
}

/// Whether texts get the first token where a file does not say it: Llama 3's do.
pub fn begins_texts(pre_tokenizer: &str) -> bool {
    rules(pre_tokenizer).is_some_and(|rules| rules.ignore_merges)
}

/// What is this kind's own.
pub fn parts(values: &Values, pre_tokenizer: &str, merges: &[String]) -> Result<Parts, String> {
    let Some(Rules { words, ignore_merges, composed }) = rules(pre_tokenizer) else {
        return Err(format!(
            "tokenizer.ggml.pre: expected one of command-r, dbrx, gpt-2, llama-bpe, olmo, phi-2, qwen2, \
             refact, smaug-bpe, smollm, starcoder, got {pre_tokenizer}"
        ));
    };
    let byte_level = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let pre_tokenizer = match words {
        Words::Gpt2 => byte_level(true),
        Words::SingleDigits => {
            sequence(&[json!({ "type": "Digits", "individual_digits": true }), byte_level(true)])
        }
        Words::Pattern(pattern) => sequence(&[
            json!({
                "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated",
                "invert": false,
            }),
            byte_level(false),
        ]),
    };
    let around = json!({
        "normalizer": composed.then(|| json!({ "type": "NFC" })),
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(true),
    });
    let split = |(at, merge): (usize, &String)| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.into(), right.into())),
        None => Err(format!(
            "tokenizer.ggml.merges: expected two tokens with a space between them, got {merge:?} as {at}"
        )),
    };
    let merges = merges.iter().enumerate().map(split).collect::<Result<_, String>>()?;
    let model = pairs(values, merges)?.ignore_merges(ignore_merges);
    Ok(Parts { around, model: model.build().map_err(cannot_be_built)?.into() })
}

fn sequence(parts: &[Value]) -> Value {
    json!({ "type": "Sequence", "pretokenizers": parts })
}
