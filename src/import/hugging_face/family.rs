//! The families of models, by `model_type`.

use super::fields::Fields;
use super::{bart, gemma, gpt_neox, gpt2, llama, olmo2, phi};
use crate::Result;
use crate::decoder::LanguageModelConfig;
use crate::import::table::Table;

/// What a configuration says: a model, and what its tensors are called.
pub struct Description {
    pub config: LanguageModelConfig,
    pub table: Table,
}

type Reader = fn(&Fields) -> Result<Description>;

/// All that are known.
const FAMILIES: [(&str, Reader); 11] = [
    ("bart", bart::read),
    ("gemma2", gemma::read_2),
    ("gemma3_text", gemma::read_3),
    ("gpt2", gpt2::read),
    ("gpt_neox", gpt_neox::read),
    ("llama", llama::read),
    ("mistral", llama::read_mistral),
    ("olmo2", olmo2::read),
    ("phi", phi::read),
    ("qwen2", llama::read_qwen2),
    ("qwen3", llama::read_qwen3),
];

/// Reads a configuration by the reader of its family.
pub fn read(fields: &Fields) -> Result<Description> {
    let name = fields.find_text("model_type")?;
    let Some((_, reader)) = FAMILIES.iter().find(|(known, _)| name == Some(known)) else {
        let known: Vec<_> = FAMILIES.iter().map(|(name, _)| *name).collect();
        return fields.refuse("model_type", format!("one of {}", known.join(", ")));
    };
    // What would change any model's numbers and is in none of this crate's.
    fields.require_none("quantization_config")?;
    fields.require("is_causal", true)?;
    if fields.get("pruned_heads").and_then(|heads| heads.as_object()).is_some_and(|h| !h.is_empty())
    {
        return fields.refuse("pruned_heads", "none");
    }
    reader(fields)
}
