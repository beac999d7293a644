//! The architectures that are known, and what each says that no other does.

use serde_json::{Map, Value as Json, json};

use super::architecture::Reading;
use super::names;
use super::value::Value;
use crate::{Error, Result};

/// An architecture of llama.cpp's.
pub struct Architecture {
    /// As files spell it.
    pub name: &'static str,
    /// As transformers spells it.
    pub model_type: &'static str,
    /// The key of ε, behind the name, and transformers' field.
    pub epsilon: (&'static str, &'static str),
    /// What its norms are called, where it has its own way.
    pub norms: &'static [(&'static str, &'static str)],
    /// Reads what no other architecture has.
    pub rest: fn(&Reading) -> Result<Map<String, Json>>,
}

const RMS: (&str, &str) = ("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const LAYER: (&str, &str) = ("attention.layer_norm_epsilon", "layer_norm_eps");

/// All that are known.
pub const ARCHITECTURES: [Architecture; 8] = [
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        epsilon: RMS,
        norms: &names::SANDWICH,
        rest: gemma2,
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        epsilon: RMS,
        norms: &names::SANDWICH,
        rest: gemma3,
    },
    Architecture {
        name: "llama",
        model_type: "llama",
        epsilon: RMS,
        norms: &names::PRE,
        rest: llama,
    },
    Architecture {
        name: "olmo2",
        model_type: "olmo2",
        epsilon: RMS,
        norms: &names::SANDWICH,
        rest: whole_heads,
    },
    Architecture {
        name: "phi2",
        model_type: "phi",
        epsilon: LAYER,
        norms: &names::PRE,
        rest: phi2,
    },
    Architecture { name: "phi3", model_type: "phi3", epsilon: RMS, norms: &names::PRE, rest: phi3 },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        epsilon: RMS,
        norms: &names::PRE,
        rest: whole_heads,
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        epsilon: RMS,
        norms: &names::PRE,
        rest: qwen3,
    },
];

/// The fields of an object that was written as one.
pub fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(values) => values,
        _ => Map::new(),
    }
}

/// An error unless whole heads are rotated.
fn whole_heads(reading: &Reading) -> Result<Map<String, Json>> {
    if reading.rotated()? != reading.head_dim {
        let expected = format!("{}, a head's whole width", reading.head_dim);
        return reading.keys.refuse(&reading.key("rope.dimension_count"), expected);
    }
    Ok(Map::new())
}

fn llama(reading: &Reading) -> Result<Map<String, Json>> {
    whole_heads(reading)?;
    Ok(object(json!({
        "attention_bias": reading.has("blk.0.attn_q.bias"),
        "mlp_bias": reading.has("blk.0.ffn_up.bias"),
    })))
}

fn qwen3(reading: &Reading) -> Result<Map<String, Json>> {
    whole_heads(reading)?;
    Ok(object(json!({ "attention_bias": reading.has("blk.0.attn_q.bias") })))
}

fn phi2(reading: &Reading) -> Result<Map<String, Json>> {
    // Between two whole numbers of dimensions: transformers rounds down.
    let part = (reading.rotated()? as f64 + 0.25) / reading.head_dim as f64;
    let part = if part > 1.0 { 1.0 } else { part };
    Ok(object(json!({ "partial_rotary_factor": part })))
}

fn phi3(reading: &Reading) -> Result<Map<String, Json>> {
    for factors in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if reading.has(factors) {
            return Err(Error::File {
                path: reading.keys.path().into(),
                expected: "rotary positions that this crate has: plain, linear, yarn".into(),
                got: format!("longrope, with the tensor {factors}"),
            });
        }
    }
    let mut values = phi2(reading)?;
    let window = reading.key("attention.sliding_window");
    if !matches!(reading.keys.get(&window), None | Some(Value::Unsigned(0))) {
        values.insert("sliding_window".into(), reading.keys.size(&window)?.into());
    }
    Ok(values)
}

fn gemma2(reading: &Reading) -> Result<Map<String, Json>> {
    whole_heads(reading)?;
    let number = |rest: &str, default: f64| -> Result<f64> {
        Ok(reading.keys.find_number(&reading.key(rest))?.unwrap_or(default))
    };
    let mut values = gemma(reading, 46)?;
    values.extend(object(json!({
        "attn_logit_softcapping": number("attn_logit_softcapping", 50.0)?,
        "final_logit_softcapping": number("final_logit_softcapping", 30.0)?,
    })));
    Ok(values)
}

fn gemma3(reading: &Reading) -> Result<Map<String, Json>> {
    whole_heads(reading)?;
    let find = |rest: &str| reading.keys.find_number(&reading.key(rest));
    let mut values = gemma(reading, 62)?;
    let pattern = reading.key("attention.sliding_window_pattern");
    match reading.keys.get(&pattern) {
        Some(Value::Array(layers)) => {
            let kind = |layer| match layer {
                Value::Bool(true) => Some("sliding_attention"),
                Value::Bool(false) => Some("full_attention"),
                _ => None,
            };
            let kinds: Option<Vec<_>> = layers.iter().map(kind).collect();
            let Some(kinds) = kinds.filter(|kinds| kinds.len() == reading.layers) else {
                let expected = format!("true or false for each of {} layers", reading.layers);
                return reading.keys.refuse(&pattern, expected);
            };
            values.insert("layer_types".into(), kinds.into());
        }
        _ => {
            let every = reading.keys.find_size(&pattern)?.unwrap_or(6);
            values.insert("sliding_window_pattern".into(), every.into());
        }
    }
    let local = find("rope.freq_base_swa")?.unwrap_or(10_000.0);
    values.insert("rope_local_base_freq".into(), local.into());
    if let Some(softcap) = find("final_logit_softcapping")? {
        values.insert("final_logit_softcapping".into(), softcap.into());
    }
    Ok(values)
}

/// What both have. Queries are scaled by the width of a head, but for the largest model of each, which
/// files do not tell apart from the others in another way than by its layers.
fn gemma(reading: &Reading, largest: usize) -> Result<Map<String, Json>> {
    let Reading { keys, d_model, layers, heads, head_dim, .. } = *reading;
    let scalar = if layers == largest { d_model / heads } else { head_dim };
    let window = keys.find_size(&reading.key("attention.sliding_window"))?.unwrap_or(4096);
    Ok(object(json!({ "query_pre_attn_scalar": scalar, "sliding_window": window })))
}
