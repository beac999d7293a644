//! What a file says of a model, said as `config.json` of the same model would say it, so that the
//! reader of its family knows the rest; and what its tensors are called.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::header::TensorInfo;
use super::keys::Keys;
use super::names;
use super::rotary;
use super::value::Value;
use crate::decoder::LanguageModelConfig;
use crate::import::hugging_face::{Description, Fields, packed_attention, read_family};
use crate::import::table::Table;
use crate::norm::NormConfig;
use crate::{Error, Result};

const NAME: &str = "general.architecture";

/// An architecture of llama.cpp's.
struct Architecture {
    /// As files spell it.
    name: &'static str,
    /// As transformers spells it.
    model_type: &'static str,
    /// The key of ε, behind the name, and transformers' field.
    epsilon: (&'static str, &'static str),
    /// What its norms are called, where it has its own way.
    norms: &'static [(&'static str, &'static str)],
    /// Reads what no other architecture has.
    rest: fn(&Reading) -> Result<Map<String, Json>>,
}

const RMS: (&str, &str) = ("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const LAYER: (&str, &str) = ("attention.layer_norm_epsilon", "layer_norm_eps");

/// All that are known.
const ARCHITECTURES: [Architecture; 8] = [
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

/// A model, as a file describes it.
#[derive(Clone, Debug)]
pub struct Described {
    pub config: LanguageModelConfig,
    pub table: Table,
    /// Whether the rows of query and key stand pair by pair, as the first Llama had them.
    pub pairwise: bool,
}

/// A description that is being read.
pub struct Reading<'a> {
    pub keys: &'a Keys<'a>,
    pub tensors: &'a BTreeMap<String, TensorInfo>,
    /// The factors of the tensor `rope_freqs`, if there is one.
    pub rope_factors: Option<Vec<f32>>,
    name: &'static str,
    pub d_model: usize,
    pub layers: usize,
    pub heads: usize,
    pub head_dim: usize,
}

/// The model that `keys` and `tensors` tell of.
pub fn read(
    keys: &Keys,
    tensors: &BTreeMap<String, TensorInfo>,
    rope_factors: Option<Vec<f32>>,
) -> Result<Described> {
    let name = keys.find_text(NAME)?;
    let Some(architecture) = ARCHITECTURES.iter().find(|known| name == Some(known.name)) else {
        let known: Vec<_> = ARCHITECTURES.iter().map(|known| known.name).collect();
        return keys.refuse(NAME, format!("one of {}", known.join(", ")));
    };
    keys.require("general.type", "model", |value| matches!(value, Value::Text("model")))?;
    keys.require("split.count", "a file in one piece; merge its parts", |value| {
        value.as_u64().is_some_and(|count| count < 2)
    })?;
    keys.require("general.quantization_version", "2", |value| value.as_u64() == Some(2))?;
    let reading = Reading::new(architecture.name, keys, tensors, rope_factors)?;
    let values = reading.values(architecture)?;
    keys.refuse_unread(&format!("{}.", architecture.name))?;
    let Description { config, mut table } =
        read_family(&Fields::new(keys.path(), &values)).map_err(|error| reading.by_key(error))?;
    if architecture.name.starts_with("phi") && reading.has("blk.0.attn_qkv.weight") {
        // The first files of Phi 2 have the three in one; those of Phi 3 have no others.
        let kv_heads = config.decoder.layer.self_attention.kv_heads.unwrap_or(reading.heads);
        let (query, key) = (reading.heads * reading.head_dim, kv_heads * reading.head_dim);
        table = table.with_rows_first(packed_attention(query, key));
    }
    Ok(Described {
        config: with_whole_scales(config),
        table: names::renamed(table, architecture.norms),
        pairwise: architecture.name == "llama",
    })
}

impl<'a> Reading<'a> {
    fn new(
        name: &'static str,
        keys: &'a Keys<'a>,
        tensors: &'a BTreeMap<String, TensorInfo>,
        rope_factors: Option<Vec<f32>>,
    ) -> Result<Self> {
        let key = |rest: &str| format!("{name}.{rest}");
        let d_model = keys.size(&key("embedding_length"))?;
        let embedding = tensors.get("token_embd.weight").and_then(|info| info.shape.last());
        if let Some(&width) = embedding
            && width != d_model
        {
            // Before frequencies are computed for so many channels.
            let expected = format!("{width}, the width of token_embd.weight");
            return keys.refuse(&key("embedding_length"), expected);
        }
        let layers = keys.size(&key("block_count"))?;
        if layers > tensors.len() {
            // Before they are all prepared.
            let expected = format!("at most {}, since so many tensors are there", tensors.len());
            return keys.refuse(&key("block_count"), expected);
        }
        let heads = keys.size(&key("attention.head_count"))?;
        let head_dim = match keys.find_size(&key("attention.key_length"))? {
            Some(head_dim) => head_dim,
            None if d_model.is_multiple_of(heads) => d_model / heads,
            None => {
                return keys
                    .refuse(&key("attention.head_count"), format!("a divisor of {d_model}"));
            }
        };
        let queries = ["attn_q", "attn_qkv"].map(|part| format!("blk.0.{part}.weight"));
        for (name, info) in queries.iter().filter_map(|name| Some((name, tensors.get(name)?))) {
            if let Some(&rows) = info.shape.first()
                && head_dim > rows
            {
                let expected = format!("at most {rows}, the rows of {name}");
                return keys.refuse(&key("attention.key_length"), expected);
            }
        }
        let values = key("attention.value_length");
        if keys.find_size(&values)?.is_some_and(|width| width != head_dim) {
            return keys.refuse(&values, format!("{head_dim}, the width of the keys"));
        }
        Ok(Self { keys, tensors, rope_factors, name, d_model, layers, heads, head_dim })
    }

    /// The whole key of the architecture that ends with `rest`.
    pub fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.name)
    }

    /// What `config.json` would say.
    fn values(&self, architecture: &Architecture) -> Result<Map<String, Json>> {
        let Self { keys, d_model, layers, heads, head_dim, .. } = *self;
        let kv_heads = keys.find_size(&self.key("attention.head_count_kv"))?.unwrap_or(heads);
        let (epsilon, epsilon_there) = architecture.epsilon;
        // What the file tells besides, and what changes no number.
        for record in ["tensor_data_layout", "use_parallel_residual"] {
            keys.get(&self.key(record));
        }
        for experts in ["expert_count", "expert_used_count"] {
            let none = |value: Value| value.as_u64() == Some(0);
            keys.require(&self.key(experts), "0: a model without experts", none)?;
        }
        let causal = self.key("attention.causal");
        keys.require(&causal, "true", |value| matches!(value, Value::Bool(true)))?;
        let mut values = object(json!({
            "model_type": architecture.model_type,
            "vocab_size": self.vocab_size()?,
            "hidden_size": d_model,
            "intermediate_size": keys.size(&self.key("feed_forward_length"))?,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "rope_theta": keys.find_number(&self.key("rope.freq_base"))?.unwrap_or(10_000.0),
            "tie_word_embeddings": !self.has("output.weight"),
        }));
        values.insert(epsilon_there.into(), keys.number(&self.key(epsilon))?.into());
        if let Some(context) = keys.find_size(&self.key("context_length"))? {
            values.insert("max_position_embeddings".into(), context.into());
        }
        if let Some(scaling) = rotary::scaling(self)? {
            values.insert("rope_scaling".into(), scaling);
        }
        values.extend((architecture.rest)(self)?);
        Ok(values)
    }

    /// The rows of the embedding, which a file may also say.
    fn vocab_size(&self) -> Result<usize> {
        let embedding = self.tensors.get("token_embd.weight").and_then(|info| info.shape.first());
        let said = self.key("vocab_size");
        match (embedding, self.keys.find_size(&said)?) {
            (None, _) => Err(Error::File {
                path: self.keys.path().into(),
                expected: "a tensor token_embd.weight".into(),
                got: format!("none among {} tensors", self.tensors.len()),
            }),
            (Some(&rows), Some(other)) if rows != other => {
                self.keys.refuse(&said, format!("{rows}, the rows of token_embd.weight"))
            }
            (Some(&rows), _) => Ok(rows),
        }
    }

    fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The part of a head that is rotated: the whole, unless the file says less.
    fn rotated(&self) -> Result<usize> {
        let key = self.key("rope.dimension_count");
        let rotated = self.keys.find_size(&key)?.unwrap_or(self.head_dim);
        if rotated > self.head_dim {
            return self.keys.refuse(&key, format!("at most {}, a head's width", self.head_dim));
        }
        Ok(rotated)
    }

    /// An error of transformers' field in the words of the file.
    fn by_key(&self, error: Error) -> Error {
        const FIELDS: [(&str, &str); 3] = [
            ("rope_theta", "rope.freq_base"),
            ("rope_scaling", "rope.scaling"),
            ("sliding_window", "attention.sliding_window"),
        ];
        match error {
            Error::ConfigFile { path, field, expected, got } => {
                let known = FIELDS.iter().find_map(|(theirs, ours)| {
                    Some(self.key(&format!("{ours}{}", field.strip_prefix(theirs)?)))
                });
                Error::ConfigFile { path, field: known.unwrap_or(field), expected, got }
            }
            other => other,
        }
    }
}

/// The fields of an object that was written as one.
fn object(value: Json) -> Map<String, Json> {
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

/// The same model with norms whose scale is the parameter itself: a file holds `1 + γ` of those that
/// add one.
fn with_whole_scales(mut config: LanguageModelConfig) -> LanguageModelConfig {
    let whole = |norm: &mut NormConfig| {
        if let NormConfig::RmsNorm { unit_offset, .. } = norm {
            *unit_offset = false;
        }
    };
    whole(&mut config.decoder.layer.norm);
    if let Some(norm) = &mut config.decoder.layer.self_attention.qk_norm {
        whole(&mut norm.norm);
    }
    config
}
