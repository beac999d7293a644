//! Configurations in JSON: files of 0.1.0 stay readable, unknown fields are errors, absent ones have
//! their defaults.
//!
//! The files of tests/fixtures/configs_0.1.0 are what Burn's `Config::save` wrote of the configurations
//! below with the crate as it was in 0.1.0. They are never written again.

use std::path::PathBuf;

use burn::config::Config;
use burn_decoder::Error;
use burn_decoder::attention::{
    AttentionSinks, HeadMapping, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig,
    RotaryLayout, RotaryScaling,
};
use burn_decoder::cache::CacheConfig;
use burn_decoder::config::{from_json, read};
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModelConfig,
    NormConfig, NormPlacement, PositionEmbeddingConfig, ResidualLayout,
};
use burn_decoder::generation::{BeamConfig, GenerationConfig, SamplingConfig};
use burn_decoder::mask::{LookAheadMaskConfig, Mask, PaddingMaskConfig, SequenceMaskConfig};
use serde_json::{Map, Value, json};

/// All defaults.
fn plain_model() -> LanguageModelConfig {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(24, 4),
        FeedForwardConfig::new(24, 37),
    );
    LanguageModelConfig::new(61, DecoderConfig::new(layer, 2))
}

/// Every field with another value than its default.
fn full_model() -> LanguageModelConfig {
    let yarn = RotaryScaling::Yarn {
        factor: 4.0,
        original_context: 2048,
        beta_fast: 16.0,
        beta_slow: 2.0,
        attention_factor: Some(1.25),
        truncate: false,
    };
    let llama = RotaryScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    let rotary = RotaryConfig::new()
        .with_base(500_000.0)
        .with_dim(Some(4))
        .with_layout(RotaryLayout::Interleaved)
        .with_scaling(Some(yarn));
    let rotaries = [
        Some(rotary),
        None,
        Some(RotaryConfig::new().with_scaling(Some(llama))),
        Some(RotaryConfig::new().with_scaling(Some(RotaryScaling::Linear { factor: 2.0 }))),
        Some(RotaryConfig::new().with_scaling(Some(RotaryScaling::Ntk { factor: 2.0 }))),
    ];
    let attention = MultiHeadAttentionConfig::new(24, 4)
        .with_kv_heads(Some(2))
        .with_head_dim(Some(8))
        .with_biases(false)
        .with_dropout(0.125)
        .with_scale(Some(0.25))
        .with_softcap(Some(50.0))
        .with_head_mapping(HeadMapping::Interleaved)
        .with_qk_norm(Some(QkNormConfig::new(NormConfig::rms_norm()).with_across_heads(true)))
        .with_rotary(Some(rotary))
        .with_sinks(AttentionSinks::Learned);
    let memory = MultiHeadAttentionConfig::new(24, 4)
        .with_memory_dim(Some(12))
        .with_sinks(AttentionSinks::Quiet);
    let feed_forward = FeedForwardConfig::new(24, 37)
        .with_activation(Activation::SwiGlu)
        .with_biases(false)
        .with_dropout(0.25);
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_cross_attention(Some(memory))
        .with_norm(NormConfig::RmsNorm { epsilon: 1e-6, unit_offset: true })
        .with_norm_placement(NormPlacement::Sandwich)
        .with_residual_layout(ResidualLayout::Parallel)
        .with_dropout(0.5);
    let decoder = DecoderConfig::new(layer, 3)
        .with_windows(vec![Some(4), None])
        .with_rotaries(rotaries.to_vec());
    LanguageModelConfig::new(61, decoder)
        .with_mask(Mask::look_ahead() | Mask::prefix(3))
        .with_positions(Some(PositionEmbeddingConfig::Learned {
            capacity: 32,
            std: 0.02,
            offset: 2,
        }))
        .with_scale_embedding(false)
        .with_embedding_std(Some(0.01))
        .with_embedding_norm(Some(NormConfig::LayerNorm { epsilon: 1e-5, bias: false }))
        .with_tied_head(true)
        .with_head_bias(true)
        .with_logit_softcap(Some(30.0))
        .with_dropout(0.1)
}

fn generation() -> GenerationConfig {
    let sampling = SamplingConfig::at_temperature(0.7)
        .with_top_k(Some(40))
        .with_top_p(Some(0.9))
        .with_min_p(Some(0.05))
        .with_repetition_penalty(1.1)
        .with_seed(17);
    GenerationConfig::new(64)
        .with_sampling(sampling)
        .with_stop_tokens(vec![2, 5])
        .with_cache(Some(cache()))
}

fn cache() -> CacheConfig {
    CacheConfig::new().with_capacity(64).with_limit(Some(128)).with_check_every(Some(3))
}

fn beam() -> BeamConfig {
    BeamConfig::new(3, 16).with_length_penalty(0.6).with_stop_tokens(vec![2]).with_cache(None)
}

fn sequence() -> SequenceMaskConfig {
    SequenceMaskConfig::new()
        .with_look_ahead(true)
        .with_pad_id(Some(-1))
        .with_window_keys(Some(8))
        .with_sinks(2)
        .with_chunks(Some(16))
        .with_prefix(1)
}

fn file(name: &str) -> PathBuf {
    super::import::fixture("configs_0.1.0").join(name)
}

/// That the file means `expected`, by all of this crate's fields, and that it breaks as it should.
fn assert_readable<C: Config + std::fmt::Display>(name: &str, expected: &C) {
    let path = file(name);
    let found: C = read(&path).unwrap();
    assert_eq!(found.to_string(), expected.to_string(), "{name}");
    let text = std::fs::read_to_string(&path).unwrap();
    let whole: Value = serde_json::from_str(&text).unwrap();
    for at in objects(&whole) {
        let mut changed = whole.clone();
        object(&mut changed, &at).insert("colour".into(), json!("red"));
        let error = from_json::<C>(&changed.to_string()).unwrap_err();
        assert!(matches!(error, Error::ConfigFile { .. }), "{name}, {at}: {error}");
        for field in object(&mut whole.clone(), &at).keys() {
            let mut changed = whole.clone();
            object(&mut changed, &at).remove(field);
            // Its default, or an error that names it.
            if let Err(error) = from_json::<C>(&changed.to_string()) {
                let Error::ConfigFile { expected, .. } = &error else { panic!("{error}") };
                let named = expected.contains(field.as_str()) || expected.contains("variant");
                assert!(named, "{name}, {at}/{field}: {error}");
            }
        }
    }
}

/// The JSON pointers of all objects.
fn objects(value: &Value) -> Vec<String> {
    fn collect(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(name, value)| collect(value, format!("{at}/{name}"), found));
                found.push(at);
            }
            Value::Array(values) => {
                let values = values.iter().enumerate();
                values.for_each(|(index, value)| collect(value, format!("{at}/{index}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(value, String::new(), &mut found);
    found
}

fn object<'a>(value: &'a mut Value, at: &str) -> &'a mut Map<String, Value> {
    value.pointer_mut(at).unwrap().as_object_mut().unwrap()
}

#[test]
fn files_of_0_1_0_are_readable() {
    assert_readable("language_model_plain.json", &plain_model());
    assert_readable("language_model_full.json", &full_model());
    assert_readable("generation.json", &generation());
    assert_readable("sampling.json", &generation().sampling);
    assert_readable("cache.json", &cache());
    assert_readable("beam.json", &beam());
    assert_readable("sequence_mask.json", &sequence());
    assert_readable("padding_mask.json", &PaddingMaskConfig::new(0));
    assert_readable("look_ahead_mask.json", &LookAheadMaskConfig::new());
}

#[test]
fn absent_fields_have_their_defaults() {
    let layer = json!({
        "self_attention": { "d_model": 24, "heads": 4 },
        "feed_forward": { "d_model": 24, "d_ff": 37 },
    });
    let model = json!({ "vocab_size": 61, "decoder": { "layer": layer, "layers": 2 } });
    let found: LanguageModelConfig = from_json(&model.to_string()).unwrap();
    assert_eq!(found.to_string(), plain_model().to_string());
    let found: GenerationConfig = from_json(r#"{ "max_new_tokens": 3 }"#).unwrap();
    assert_eq!(found.to_string(), GenerationConfig::new(3).to_string());
    let found: SequenceMaskConfig = from_json("{}").unwrap();
    assert_eq!(found.to_string(), SequenceMaskConfig::new().to_string());
}

#[test]
fn what_is_wrong_is_named() {
    let error = |text: &str| from_json::<LanguageModelConfig>(text).unwrap_err().to_string();
    let change = |at: &str, value: Value| {
        let mut model = serde_json::to_value(full_model()).unwrap();
        match model.pointer_mut(at) {
            Some(place) => *place = value,
            None => {
                let (object, field) = at.rsplit_once('/').unwrap();
                let object = model.pointer_mut(object).unwrap().as_object_mut().unwrap();
                object.insert(field.into(), value);
            }
        }
        error(&model.to_string())
    };
    let unknown = change("/decoder/layer/self_attention/head", json!(4));
    let named = "JSON, decoder.layer.self_attention.head: expected one of d_model, heads, ";
    assert!(unknown.starts_with(named) && unknown.ends_with("got an unknown field"), "{unknown}");
    let typed = change("/decoder/layer/self_attention/heads", json!("4"));
    let expected = "JSON, decoder.layer.self_attention.heads: expected usize, got string \"4\"";
    assert_eq!(typed, expected);
    let negative = change("/vocab_size", json!(-1));
    assert_eq!(negative, "JSON, vocab_size: expected usize, got integer `-1`");
    let variant = change("/decoder/layer/norm_placement", json!("Before"));
    let expected = "JSON, decoder.layer.norm_placement: expected one of Pre, Post, Output, Sandwich, got \"Before\"";
    assert_eq!(variant, expected);
    let inside = change("/decoder/rotaries/0/scaling/Yarn/beta_fsat", json!(32));
    assert!(inside.starts_with("JSON, decoder.rotaries[0].scaling.Yarn.beta_fsat: "), "{inside}");
    assert_eq!(
        error(r#"{ "vocab_size": 61 }"#),
        "JSON, the whole configuration: expected a field decoder, got none"
    );
    assert!(error("{").starts_with("JSON: expected a configuration as JSON, got "));
    let error = read::<CacheConfig>(file("none.json")).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}
