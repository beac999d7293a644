//! What a file says of a model, said as `config.json` of the same model would say it, so that the
//! reader of its family knows the rest; and what its tensors are called.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::architectures::{ARCHITECTURES, Architecture, object};
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

    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The part of a head that is rotated: the whole, unless the file says less.
    pub fn rotated(&self) -> Result<usize> {
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
