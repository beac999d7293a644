//! The tokenizer of a model's folder, as transformers opens it.

use std::panic;
use std::path::Path;

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use crate::failure::Failure;
use crate::files;

/// Opens `tokenizer.json`.
///
/// Padding and truncation, which a file may still hold from training, are switched off, as a prompt
/// goes to the model whole and alone. Tokens that only `tokenizer_config.json` names are added.
pub fn open(folder: &Path) -> Result<Tokenizer, Failure> {
    let path = folder.join("tokenizer.json");
    let refuse =
        |got: String| Failure::from(format!("{}: expected a tokenizer, got {got}", path.display()));
    // The crate takes some damaged files to be whole, and panics at what it finds in them.
    let mut tokenizer = panic::catch_unwind(|| Tokenizer::from_file(&path))
        .unwrap_or_else(|_| Err("one at which the tokenizers crate panics, as told above".into()))
        .map_err(|error| refuse(error.to_string()))?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::tests::folder;

    /// The tokens of a text, in a folder whose `tokenizer.json` has this in place of null.
    fn tokens(field: &str, value: Value, text: &str) -> Vec<u32> {
        let folder = folder();
        let path = folder.path().join("tokenizer.json");
        let mut tokenizer: Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        tokenizer[field] = value;
        fs::write(&path, tokenizer.to_string()).unwrap();
        open(folder.path()).unwrap().encode(text, true).unwrap().get_ids().to_vec()
    }

    fn padding(strategy: Value) -> Value {
        json!({ "strategy": strategy, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "w0" })
    }

    #[test]
    fn padding_and_truncation_are_switched_off() {
        let text = "w5 w6 w7 w8 w9";
        assert_eq!(tokens("padding", padding(json!({ "Fixed": 12 })), text), [5, 6, 7, 8, 9]);
        assert_eq!(tokens("padding", padding(json!("BatchLongest")), text), [5, 6, 7, 8, 9]);
        let mut multiple = padding(json!("BatchLongest"));
        multiple["pad_to_multiple_of"] = json!(8);
        assert_eq!(tokens("padding", multiple, text), [5, 6, 7, 8, 9]);
        let short = json!({ "max_length": 3, "strategy": "LongestFirst", "stride": 0,
            "direction": "Right" });
        assert_eq!(tokens("truncation", short, text), [5, 6, 7, 8, 9]);
    }

    /// The tokens that a text begins and ends with stay: they are the model's.
    #[test]
    fn the_post_processor_stays() {
        let template = json!({
            "type": "TemplateProcessing",
            "single": [
                { "SpecialToken": { "id": "w1", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } },
            ],
            "pair": [
                { "Sequence": { "id": "A", "type_id": 0 } },
                { "Sequence": { "id": "B", "type_id": 1 } },
            ],
            "special_tokens": { "w1": { "id": "w1", "ids": [1], "tokens": ["w1"] } },
        });
        assert_eq!(tokens("post_processor", template, "w5 w6"), [1, 5, 6]);
    }

    #[test]
    fn tokens_of_the_configuration_are_added() {
        let folder = folder();
        let config = json!({ "added_tokens_decoder": {
            "61": { "content": "<new token>", "special": true },
            "7": { "content": "w7", "special": true, "normalized": false },
        } });
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = open(folder.path()).unwrap();
        let encoding = tokenizer.encode("w5<new token>w6", false).unwrap();
        assert_eq!(encoding.get_ids(), [5, 61, 6]);
        assert_eq!(tokenizer.decode(&[5, 7, 6], true).unwrap(), "w5 w6");
        let config = json!({ "added_tokens_decoder": { "x": { "content": "y" } } });
        fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let refused = open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("added_tokens_decoder") && refused.contains("\"x\""), "{refused}");
    }

    /// A pair of tokens that is longer than every token, which the crate has no room for.
    #[test]
    fn a_file_at_which_the_crate_panics_is_refused() {
        let folder = folder();
        let path = folder.path().join("tokenizer.json");
        let mut tokenizer: Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let vocab = tokenizer["model"]["vocab"].take();
        tokenizer["model"] = json!({ "type": "BPE", "vocab": vocab, "merges": ["w10 w11"] });
        fs::write(&path, tokenizer.to_string()).unwrap();
        let refused = open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("tokenizer.json") && refused.contains("panics"), "{refused}");
    }
}
