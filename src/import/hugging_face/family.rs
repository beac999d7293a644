//! The families of models, by `model_type`.

use super::description::Description;
use super::fields::Fields;
use super::{bart, gemma, gpt_neox, gpt2, llama, olmo2, phi};
use crate::Result;

type Reader = fn(&Fields) -> Result<Description>;

/// All that are known.
const FAMILIES: [(&str, Reader); 12] = [
    ("bart", bart::read),
    ("gemma2", gemma::read_2),
    ("gemma3_text", gemma::read_3),
    ("gpt2", gpt2::read),
    ("gpt_neox", gpt_neox::read),
    ("llama", llama::read),
    ("mistral", llama::read_mistral),
    ("olmo2", olmo2::read),
    ("phi", phi::read),
    ("phi3", phi::read_3),
    ("qwen2", llama::read_qwen2),
    ("qwen3", llama::read_qwen3),
];

/// Reads a configuration by the reader of its family.
pub fn read(fields: &Fields) -> Result<Description> {
    let name = fields.find_text("model_type")?;
    let Some((_, reader)) = FAMILIES.iter().find(|(known, _)| name == Some(known)) else {
        let known: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}{}", known.join(", "), text_model(fields));
        return fields.refuse("model_type", expected);
    };
    // transformers' own name, and MLX's.
    fields.require_no_quantization("quantization_config")?;
    fields.require_no_quantization("quantization")?;
    // What would change any model's numbers and is in none of this crate's.
    fields.require("is_causal", true)?;
    if fields.get("pruned_heads").and_then(|heads| heads.as_object()).is_some_and(|h| !h.is_empty())
    {
        return fields.refuse("pruned_heads", "none");
    }
    reader(fields)
}

/// Where the text model of a larger model is, if its configuration has one that is known.
fn text_model(fields: &Fields) -> String {
    let text = fields.find_object("text_config").ok().flatten();
    let name = text.and_then(|text| text.find_text("model_type").ok().flatten());
    match name.filter(|name| FAMILIES.iter().any(|(known, _)| name == known)) {
        None => String::new(),
        Some(name) => format!(
            " (its text model, a {name}, stands in text_config: put that object into a config.json \
             of its own beside the weights, and load these by LoadOptions::with_prefix with what \
             the names of its tensors begin with, \"language_model.\" or \"model.language_model.\")"
        ),
    }
}
