//! The tokenizer of a model's folder, as transformers opens it.

use std::path::Path;

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::failure::Failure;
use super::files;

/// Opens `tokenizer.json`.
///
/// Padding and truncation, which a file may still hold from training, are switched off, as a prompt
/// goes to the model whole and alone. Tokens that only `tokenizer_config.json` names are added.
pub fn open(folder: &Path) -> Result<Tokenizer, Failure> {
    let path = folder.join("tokenizer.json");
    let refuse = |got: String| Failure::from(format!("{}: expected a tokenizer, got {got}", path.display()));
    let mut tokenizer = Tokenizer::from_file(&path).map_err(|error| refuse(error.to_string()))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
    let config = folder.join("tokenizer_config.json");
    for (id, token) in added_tokens(&config)? {
        if tokenizer.get_added_tokens_decoder().get(&id) != Some(&token) {
            let added = if token.special {
                tokenizer.add_special_tokens([token])
            } else {
                tokenizer.add_tokens([token])
            };
            added.map_err(|error| refuse(error.to_string()))?;
        }
    }
    Ok(tokenizer)
}

/// The entries of `added_tokens_decoder`, by their ids.
fn added_tokens(config: &Path) -> Result<Vec<(u32, AddedToken)>, Failure> {
    let values = files::object(config)?;
    let Some(entries) = values.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let mut tokens = Vec::new();
    for (id, entry) in entries {
        let refuse = || {
            format!(
                "{}: added_tokens_decoder: expected ids with tokens, got {id:?}: {entry}",
                config.display()
            )
        };
        let flag = |name: &str| entry[name].as_bool();
        let content = entry["content"].as_str().ok_or_else(refuse)?;
        let special = flag("special").unwrap_or(false);
        let token = AddedToken::from(content.to_string(), special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special));
        tokens.push((id.parse().map_err(|_| refuse())?, token));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens)
}
