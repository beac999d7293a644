//! The tokens with a meaning of their own.

use super::keys::Keys;
use super::value::Value;
use crate::Result;

/// Ends of an answer: control tokens that files made before there were keys for them hold by their
/// texts alone.
const ENDS: [&str; 8] = [
    "<end_of_turn>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|im_end|>",
    "<|return|>",
];

/// The number of control tokens in `tokenizer.ggml.token_type`.
const CONTROL: u64 = 3;

/// The special tokens of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<u32>,
    /// Each once, that of the text first.
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
}

impl SpecialTokens {
    pub fn read(keys: &Keys) -> Result<Self> {
        let mut eos: Vec<u32> = Vec::new();
        let said = ["eos", "eot", "eom"].map(|end| find(keys, end));
        for token in said {
            eos.extend(token?);
        }
        eos.extend(ends_by_text(keys)?);
        let mut seen = std::collections::BTreeSet::new();
        eos.retain(|token| seen.insert(*token));
        Ok(Self { bos: find(keys, "bos")?, eos, pad: find(keys, "padding")? })
    }
}

/// The token that the key of this name says.
pub fn find(keys: &Keys, name: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    match keys.get(&key) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
            // The number that says that there is none.
            Some(u32::MAX) => Ok(None),
            Some(id) => Ok(Some(id)),
            None => keys.refuse(&key, "a token id"),
        },
    }
}

/// The control tokens whose texts end an answer.
fn ends_by_text(keys: &Keys) -> Result<Vec<u32>> {
    let tokens = keys.find_array("tokenizer.ggml.tokens")?;
    let kinds = keys.find_array("tokenizer.ggml.token_type")?;
    let (Some(tokens), Some(kinds)) = (tokens, kinds) else { return Ok(Vec::new()) };
    let ends = tokens.iter().zip(kinds.iter()).enumerate().filter(|(_, (token, kind))| {
        let is_end = matches!(token, Value::Text(text) if ENDS.contains(text));
        is_end && kind.as_u64() == Some(CONTROL)
    });
    Ok(ends.map(|(id, _)| id as u32).collect())
}
