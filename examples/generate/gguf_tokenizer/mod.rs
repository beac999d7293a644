//! The tokenizer of a GGUF file, put together as `tokenizer.json` of the same model would have it.
//!
//! - [`byte_level`]: words by a pattern, whose bytes are joined pair by pair;
//! - [`scored`]: SentencePiece's two kinds, by the scores of the pieces.

mod byte_level;
mod scored;

#[cfg(test)]
pub mod tests;

use std::collections::HashSet;
use std::fmt::Display;

use burn_decoder::import::gguf::{TokenKind, Tokenizer as Values, TokenizerKind};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BpeBuilder, Merges, Vocab};
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// What is a kind's own: the parts of `tokenizer.json` around the model, and the model, of whose many
/// tokens no JSON is made.
struct Parts {
    around: Value,
    model: ModelWrapper,
}

/// The tokenizer of these values.
pub fn build(values: &Values) -> Result<Tokenizer, String> {
    check_texts(values)?;
    let Parts { mut around, model } = match &values.kind {
        TokenizerKind::ByteLevel { pre_tokenizer, merges } => {
            byte_level::parts(values, pre_tokenizer, merges)?
        }
        TokenizerKind::SentencePiece => scored::pairs(values)?,
        TokenizerKind::Unigram => scored::unigram(values)?,
        other => {
            return Err(format!("expected a tokenizer that this program knows, got {other:?}"));
        }
    };
    around["version"] = "1.0".into();
    around["model"] = json!({ "type": "BPE", "vocab": {}, "merges": [] });
    around["post_processor"] = post_processor(values)?;
    let mut tokenizer = Tokenizer::from_bytes(around.to_string()).map_err(cannot_be_built)?;
    tokenizer.with_model(model);
    tokenizer.add_tokens(added_tokens(values)).map_err(cannot_be_built)?;
    Ok(tokenizer)
}

fn cannot_be_built(error: impl Display) -> String {
    format!("expected a tokenizer that can be built, got {error}")
}

/// An error for a text that is there twice: one of the two could never be said.
fn check_texts(values: &Values) -> Result<(), String> {
    let mut seen = HashSet::new();
    match values.tokens.iter().position(|token| !seen.insert(&token.text)) {
        None => Ok(()),
        Some(id) => {
            let text = &values.tokens[id].text;
            Err(format!(
                "tokenizer.ggml.tokens: expected each token once, got {text:?} again as {id}"
            ))
        }
    }
}

/// Tokens that are taken whole wherever they stand in a text.
fn added_tokens(values: &Values) -> impl Iterator<Item = AddedToken> {
    values.tokens.iter().filter_map(|token| {
        let special = match token.kind {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            _ => return None,
        };
        Some(AddedToken::from(token.text.clone(), special).normalized(false))
    })
}

/// What puts the first token before a text, and the last behind it.
fn post_processor(values: &Values) -> Result<Value, String> {
    let by_habit = match &values.kind {
        TokenizerKind::ByteLevel { pre_tokenizer, .. } => byte_level::begins_texts(pre_tokenizer),
        TokenizerKind::SentencePiece => true,
        _ => false,
    };
    let token = |wanted: bool, id: Option<u32>, name: &str| match (wanted, id) {
        (false, _) => Ok(None),
        (true, Some(id)) => match values.text(id) {
            Some(text) => Ok(Some((id, text))),
            None => Err(format!(
                "tokenizer.ggml.{name}_token_id: expected one of {} tokens, got {id}",
                values.tokens.len()
            )),
        },
        (true, None) => {
            Err(format!("tokenizer.ggml.{name}_token_id: expected a token, got nothing"))
        }
    };
    let add_bos = values.add_bos.unwrap_or(by_habit && values.bos.is_some());
    let first = token(add_bos, values.bos, "bos")?;
    let last = token(values.add_eos == Some(true), values.eos, "eos")?;
    if first.is_none() && last.is_none() {
        return Ok(Value::Null);
    }
    let special = |(_, text): (u32, &str)| json!({ "SpecialToken": { "id": text, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let around = |texts: &[&str]| {
        let inside = texts.iter().map(|id| sequence(id));
        let parts = first.map(special).into_iter().chain(inside).chain(last.map(special));
        parts.collect::<Vec<Value>>()
    };
    let tokens: serde_json::Map<String, Value> = [first, last]
        .into_iter()
        .flatten()
        .map(|(id, text)| (text.into(), json!({ "id": text, "ids": [id], "tokens": [text] })))
        .collect();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": around(&["A"]),
        "pair": around(&["A", "B"]),
        "special_tokens": tokens,
    }))
}

/// What joins these pairs, earlier ones first.
fn pairs(values: &Values, merges: Merges) -> Result<BpeBuilder, String> {
    let tokens = values.tokens.iter().zip(0..);
    let ids: Vocab = tokens.map(|(token, id)| (token.text.clone(), id)).collect();
    // The builder panics if a pair is longer than every token.
    let made = |(left, right): &(String, String)| format!("{left}{right}");
    if let Some(at) = merges.iter().position(|pair| !ids.contains_key(&made(pair))) {
        let (left, right) = &merges[at];
        return Err(format!(
            "tokenizer.ggml.merges: expected pairs that make a token, got {left:?} and {right:?} as {at}"
        ));
    }
    Ok(BpeBuilder::new().vocab_and_merges(ids, merges))
}
