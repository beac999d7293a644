//! The tokenizer of a file, as plain values: what a tokenizer of any library is built from.

use super::keys::Keys;
use super::special::find;
use super::value::Value;
use crate::Result;

/// A tokenizer, as a file has it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tokenizer {
    /// How texts are split.
    pub kind: TokenizerKind,
    /// All tokens, by their ids.
    pub tokens: Vec<Token>,
    /// The token that a text begins with, if the file says one.
    pub bos: Option<u32>,
    /// The token that a text ends with, if the file says one.
    pub eos: Option<u32>,
    /// The token for what no other stands for, if the file says one.
    pub unknown: Option<u32>,
    /// The token that padding is filled with, if the file says one.
    pub padding: Option<u32>,
    /// Whether texts get the first token, if the file says it. Files that don't are read by the kind's
    /// habit: true for [`TokenizerKind::SentencePiece`].
    pub add_bos: Option<bool>,
    /// Whether texts get the last token, if the file says it; false is the habit.
    pub add_eos: Option<bool>,
    /// Whether a space is put before a text, if the file says it. True is SentencePiece's habit.
    pub add_space_prefix: Option<bool>,
    /// Whether spaces that follow one another become one, if the file says it; false is the habit.
    pub remove_extra_whitespaces: Option<bool>,
}

/// How a tokenizer splits texts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TokenizerKind {
    /// `gpt2`: words that a pattern finds, whose bytes are joined pair by pair. Tokens are spelled in
    /// the characters that GPT-2 writes bytes in.
    ByteLevel {
        /// The name of the pattern: `llama-bpe`, `qwen2`; `default` if the file says none.
        pre_tokenizer: String,
        /// Which two are joined, earlier ones first: two tokens with a space between them.
        merges: Vec<String>,
    },
    /// `llama`: characters that are joined pair by pair, the pair first whose token has the highest
    /// score; what has no token is spelled in bytes. Spaces are written `▁`.
    SentencePiece,
    /// `t5`: the tokens whose scores have the highest sum. Spaces are written `▁`.
    Unigram,
}

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// How it is spelled.
    pub text: String,
    /// How likely it is, as a logarithm or a rank; 0 in a file without scores.
    pub score: f32,
    /// What it is for.
    pub kind: TokenKind,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// What no other token stands for.
    Unknown,
    /// A mark that no text gives: the beginning of a turn.
    Control,
    /// A piece that is taken whole wherever it stands.
    UserDefined,
    /// Nothing.
    Unused,
    /// One byte, spelled `<0x0A>`.
    Byte,
}

impl Tokenizer {
    pub(super) fn read(keys: &Keys) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let flag = |name: &str| keys.find_flag(&key(name));
        let kind = match keys.find_text(&key("model"))? {
            Some("gpt2") => {
                let text = |value| match value {
                    Value::Text(text) => Some(text.to_string()),
                    _ => None,
                };
                let Some(merges) = keys.find_all(&key("merges"), "texts", text)? else {
                    return keys.refuse(&key("merges"), "the pairs that are joined");
                };
                let pre = keys.find_text(&key("pre"))?.unwrap_or("default");
                TokenizerKind::ByteLevel { pre_tokenizer: pre.into(), merges }
            }
            Some("llama") => TokenizerKind::SentencePiece,
            Some("t5") => {
                if keys.get(&key("precompiled_charsmap")).is_some() {
                    return keys.refuse(
                        &key("precompiled_charsmap"),
                        "none: this crate does not know its rules of replacing characters",
                    );
                }
                TokenizerKind::Unigram
            }
            _ => return keys.refuse(&key("model"), "a tokenizer: gpt2, llama or t5"),
        };
        Ok(Self {
            tokens: tokens(keys, &kind)?,
            kind,
            bos: find(keys, "bos")?,
            eos: find(keys, "eos")?,
            unknown: find(keys, "unknown")?,
            padding: find(keys, "padding")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        })
    }

    /// The text of the token `id`, if there is one.
    #[must_use]
    pub fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(|token| token.text.as_str())
    }
}

/// The tokens, with scores and kinds if the file has them.
fn tokens(keys: &Keys, kind: &TokenizerKind) -> Result<Vec<Token>> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let Some(texts) = keys.find_array(&key("tokens"))? else {
        return keys.refuse(&key("tokens"), "the texts of the tokens");
    };
    let score = |value| match value {
        Value::Float(score) => Some(score as f32),
        _ => None,
    };
    let scores = keys.find_all(&key("scores"), "numbers", score)?;
    let kinds = keys.find_all(&key("token_type"), "kinds of tokens, 1 to 6", kind_of)?;
    let is_scored = !matches!(kind, TokenizerKind::ByteLevel { .. });
    if is_scored && scores.is_none() {
        return keys.refuse(&key("scores"), "a score for each token");
    }
    let counts =
        [("scores", scores.as_ref().map(Vec::len)), ("token_type", kinds.as_ref().map(Vec::len))];
    for (name, count) in counts {
        if count.is_some_and(|count| count != texts.len()) {
            return keys
                .refuse(&key(name), format!("{} elements, one for each token", texts.len()));
        }
    }
    let tokens: Option<Vec<Token>> = texts
        .iter()
        .enumerate()
        .map(|(id, text)| match text {
            Value::Text(text) => Some(Token {
                text: text.into(),
                score: scores.as_ref().map_or(0.0, |scores| scores[id]),
                kind: kinds.as_ref().map_or(TokenKind::Normal, |kinds| kinds[id]),
            }),
            _ => None,
        })
        .collect();
    match tokens {
        Some(tokens) => Ok(tokens),
        None => keys.refuse(&key("tokens"), "an array of texts"),
    }
}

fn kind_of(value: Value) -> Option<TokenKind> {
    Some(match value.as_u64()? {
        1 => TokenKind::Normal,
        2 => TokenKind::Unknown,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => TokenKind::Unused,
        6 => TokenKind::Byte,
        _ => return None,
    })
}
