//! What a field means that a file does not have, and the names that fields had before.

use burn::config::Config;
use serde_json::{Map, Value};

use crate::attention::{MultiHeadAttentionConfig, QkNormConfig, RotaryConfig};
use crate::cache::CacheConfig;
use crate::decoder::{
    DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig, NormConfig,
};
use crate::generation::{BeamConfig, GenerationConfig, SamplingConfig};
use crate::mask::{LookAheadMaskConfig, Mask, PaddingMaskConfig, SequenceMaskConfig};

/// The default of every field of the configuration called `name` that has one.
pub fn defaults(name: &str) -> Map<String, Value> {
    let attention = || MultiHeadAttentionConfig::new(1, 1);
    let feed_forward = || FeedForwardConfig::new(1, 1);
    let layer = || DecoderLayerConfig::new(attention(), feed_forward());
    let decoder = || DecoderConfig::new(layer(), 1);
    match name {
        "BeamConfig" => without(&BeamConfig::new(1, 1), &["width", "max_new_tokens"]),
        "CacheConfig" => without(&CacheConfig::new(), &[]),
        "DecoderConfig" => without(&decoder(), &["layer", "layers"]),
        "DecoderLayerConfig" => without(&layer(), &["self_attention", "feed_forward"]),
        "FeedForwardConfig" => without(&feed_forward(), &["d_model", "d_ff"]),
        "GenerationConfig" => without(&GenerationConfig::new(1), &["max_new_tokens"]),
        "LanguageModelConfig" => {
            without(&LanguageModelConfig::new(1, decoder()), &["vocab_size", "decoder"])
        }
        "LookAheadMaskConfig" => without(&LookAheadMaskConfig::new(), &[]),
        "MultiHeadAttentionConfig" => without(&attention(), &["d_model", "heads"]),
        "PaddingMaskConfig" => without(&PaddingMaskConfig::new(0), &["pad_id"]),
        "QkNormConfig" => without(&QkNormConfig::new(NormConfig::layer_norm()), &["norm"]),
        "RotaryConfig" => without(&RotaryConfig::new(), &[]),
        "SamplingConfig" => without(&SamplingConfig::new(), &[]),
        "SequenceMaskConfig" => without(&SequenceMaskConfig::new(), &[]),
        _ => Map::new(),
    }
}

/// The fields of `config` but those that have no default.
fn without(config: &impl Config, required: &[&str]) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(config) else { return Map::new() };
    fields.retain(|name, _| !required.contains(&name.as_str()));
    fields
}

/// Fields that had another name: of which configuration, the old name, the new one.
const RENAMED: [(&str, &str, &str); 1] = [("DecoderLayerConfig", "arrangement", "residual_layout")];

/// Brings the fields of an older file of the configuration called `name` to their places of today.
pub fn migrate(name: &str, fields: &mut Map<String, Value>) {
    for (config, old, new) in RENAMED {
        if name == config
            && !fields.contains_key(new)
            && let Some(value) = fields.remove(old)
        {
            fields.insert(new.into(), value);
        }
    }
    if name == "LanguageModelConfig"
        && let Some(mask) = fields.remove("mask")
    {
        move_mask(mask, fields);
    }
}

/// The mask stood beside the decoder, as a rule. Now it stands in it, and look-ahead is its default.
fn move_mask(mask: Value, fields: &mut Map<String, Value>) {
    let is_default = serde_json::to_value(Mask::look_ahead()).is_ok_and(|rule| rule == mask);
    if let Some(Value::Object(decoder)) = fields.get_mut("decoder")
        && !is_default
        && !decoder.contains_key("mask")
    {
        decoder.insert("mask".into(), serde_json::json!({ "look_ahead": false, "rule": mask }));
    }
}
