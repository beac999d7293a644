//! SentencePiece's tokenizers: pieces with scores, and spaces written `▁`.

use std::cmp::Ordering;
use std::collections::HashMap;

use burn_decoder::import::gguf::{TokenKind, Tokenizer as Values};
use serde_json::{Value, json};
use tokenizers::models::bpe::Merges;
use tokenizers::models::unigram::Unigram;

use super::{Parts, cannot_be_built};

/// How SentencePiece writes a space.
const SPACE: &str = "▁";

/// For pieces that are joined pair by pair.
pub fn pairs(values: &Values) -> Result<Parts, String> {
    let model = super::pairs(values, merges(values))?
        .unk_token(unknown(values)?.into())
        .fuse_unk(true)
        .byte_fallback(true);
    Ok(Parts { around: around(values), model: model.build().map_err(cannot_be_built)?.into() })
}

/// For the likeliest pieces.
pub fn unigram(values: &Values) -> Result<Parts, String> {
    let unknown = unknown(values)?;
    let pieces =
        values.tokens.iter().map(|token| (token.text.clone(), token.score.into())).collect();
    let unknown = values.tokens.iter().position(|token| token.text == unknown);
    let model = Unigram::from(pieces, unknown, false).map_err(cannot_be_built)?;
    Ok(Parts { around: around(values), model: model.into() })
}

/// The parts of `tokenizer.json` around the model.
fn around(values: &Values) -> Value {
    let prefix = values.add_space_prefix.unwrap_or(true);
    json!({ "normalizer": normalizer(values, prefix), "decoder": decoder(prefix) })
}

/// The token for what no piece stands for.
fn unknown(values: &Values) -> Result<&str, String> {
    let by_kind = values.tokens.iter().find(|token| token.kind == TokenKind::Unknown);
    let by_id = values.unknown.and_then(|id| values.text(id));
    by_id
        .or(by_kind.map(|token| token.text.as_str()))
        .ok_or_else(|| "tokenizer.ggml.unknown_token_id: expected a token, got nothing".to_string())
}

/// Which pieces are joined, the pair first whose piece has the highest score. SentencePiece looks up
/// the piece that two make; here every way of making one is a pair of its own.
fn merges(values: &Values) -> Merges {
    let is_text = |kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined);
    let ids: HashMap<&str, usize> =
        values.tokens.iter().enumerate().map(|(id, token)| (token.text.as_str(), id)).collect();
    let mut made: Vec<usize> = (0..values.tokens.len()).collect();
    made.retain(|id| values.tokens[*id].kind == TokenKind::Normal);
    made.sort_by(|a, b| {
        let score = |id: &usize| values.tokens[*id].score;
        score(b).partial_cmp(&score(a)).unwrap_or(Ordering::Equal)
    });
    let mut merges = Vec::new();
    for id in made {
        let text = values.tokens[id].text.as_str();
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            let is_piece =
                |piece: &str| ids.get(piece).is_some_and(|id| is_text(values.tokens[*id].kind));
            if is_piece(left) && is_piece(right) {
                merges.push((left.into(), right.into()));
            }
        }
    }
    merges
}

/// Spaces to `▁`, with one before a text where `prefix` says so.
fn normalizer(values: &Values, prefix: bool) -> Value {
    let mut parts = Vec::new();
    if values.remove_extra_whitespaces == Some(true) {
        parts.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
        parts.push(json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " }));
    }
    if prefix {
        parts.push(json!({ "type": "Prepend", "prepend": SPACE }));
    }
    parts.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE }));
    json!({ "type": "Sequence", "normalizers": parts })
}

/// The way back.
fn decoder(prefix: bool) -> Value {
    let mut parts = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        parts.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": parts })
}
