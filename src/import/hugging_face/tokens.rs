//! The tokens with a meaning of their own: no number of the model depends on them.

use super::fields::Fields;
use crate::Result;

/// The special tokens of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub bos: Option<u32>,
    pub decoder_start: Option<u32>,
    pub eos: Vec<u32>,
    pub pad: Option<u32>,
}

impl Tokens {
    /// The tokens of several files, of which earlier ones go first.
    pub fn read(files: &[Fields]) -> Result<Self> {
        let first = |name| -> Result<_> { Ok(find(files, name)?.first().copied()) };
        Ok(Self {
            bos: first("bos_token_id")?,
            decoder_start: first("decoder_start_token_id")?,
            eos: find(files, "eos_token_id")?,
            pad: first("pad_token_id")?,
        })
    }
}

/// The token ids under `name` in the first file that has it: one, several or none. A negative id
/// means none, as in the first conversions of Llama.
fn find(files: &[Fields], name: &str) -> Result<Vec<u32>> {
    let Some((fields, value)) =
        files.iter().find_map(|fields| fields.get(name).map(|value| (fields, value)))
    else {
        return Ok(Vec::new());
    };
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let mut ids = Vec::new();
    for value in values.iter().filter(|value| !value.is_null()) {
        match value.as_i64().map(u32::try_from) {
            Some(Ok(id)) => ids.push(id),
            Some(Err(_)) if value.as_i64() < Some(0) => {}
            _ => return fields.refuse(name, "a token id, several, or -1 or null for none"),
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    #[test]
    fn ids_that_mean_none_are_none() {
        let object = |value: Value| -> Map<String, Value> { value.as_object().unwrap().clone() };
        let read = |generation: Value, config: Value| {
            let (generation, config) = (object(generation), object(config));
            Tokens::read(&[Fields::new("generation", &generation), Fields::new("config", &config)])
        };
        let tokens = read(json!({}), json!({ "pad_token_id": -1, "eos_token_id": [2, -1, 3] }));
        assert_eq!(tokens.unwrap(), Tokens { eos: vec![2, 3], ..Tokens::default() });
        // The first file's null says nothing, its -1 says none.
        let config = json!({ "pad_token_id": 7, "bos_token_id": 1 });
        let tokens = read(json!({ "pad_token_id": null, "bos_token_id": -1 }), config).unwrap();
        assert_eq!(tokens, Tokens { pad: Some(7), ..Tokens::default() });
        assert_eq!(read(json!({ "eos_token_id": [] }), json!({})).unwrap(), Tokens::default());
        for wrong in [json!("2"), json!(1.5), json!([true]), json!(1u64 << 40)] {
            let error = read(json!({}), json!({ "pad_token_id": wrong })).unwrap_err().to_string();
            assert!(error.starts_with("config, pad_token_id: expected a token id"), "{error}");
        }
    }
}
