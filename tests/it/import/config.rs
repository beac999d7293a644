//! Configurations: old files and new ones, what absent fields mean, what is refused by name.

use burn_decoder::Error;
use burn_decoder::import::hugging_face::Checkpoint;
use serde_json::{Map, Value, json};

use super::{FOLDERS, copy_of, fixture, with_config};

/// This crate's configuration of a folder, as text.
fn read(folder: &std::path::Path) -> String {
    Checkpoint::open(folder).unwrap().config().to_string()
}

fn remove(config: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        assert!(config.remove(*name).is_some(), "{name} is there");
    }
}

fn insert(config: &mut Map<String, Value>, values: Value) {
    config.extend(values.as_object().unwrap().clone());
}

#[test]
fn older_files_mean_the_same() {
    let same = |folder: &str, change: &dyn Fn(&mut Map<String, Value>)| {
        assert_eq!(read(with_config(folder, change).path()), read(&fixture(folder)), "{folder}");
    };
    same("llama_tiny", &|config| {
        remove(config, &["rope_parameters", "attention_bias", "mlp_bias", "tie_word_embeddings"]);
        remove(config, &["head_dim", "hidden_act", "rms_norm_eps"]);
        insert(config, json!({ "rope_theta": 10000.0, "rope_scaling": null }));
    });
    for kind in ["type", "rope_type"] {
        same("llama3rope_tiny", &|config| {
            remove(config, &["rope_parameters"]);
            let mut scaling = json!({
                "factor": 4.0, "high_freq_factor": 4.0, "low_freq_factor": 1,
                "original_max_position_embeddings": 32
            });
            scaling[kind] = "llama3".into();
            insert(config, json!({ "rope_theta": 50, "rope_scaling": scaling }));
        });
    }
    same("qwen2_tiny", &|config| remove(config, &["layer_types"]));
    same("qwen3_tiny", &|config| remove(config, &["layer_types", "use_sliding_window"]));
    same("gemma2_tiny", &|config| {
        remove(config, &["layer_types", "tie_word_embeddings", "hidden_activation"]);
    });
    same("gemma3_tiny", &|config| {
        remove(config, &["layer_types", "rope_parameters", "_sliding_window_pattern"]);
        insert(
            config,
            json!({
                "rope_theta": 5000.0, "rope_local_base_freq": 100.0,
                "rope_scaling": { "rope_type": "linear", "factor": 4.0 }
            }),
        );
    });
    same("gemma3_tiny", &|config| {
        remove(config, &["layer_types", "sliding_window_pattern"]);
    });
    same("gptneox_tiny", &|config| {
        remove(config, &["rope_parameters", "use_parallel_residual", "attention_bias"]);
        insert(config, json!({ "rotary_pct": 0.67, "rotary_emb_base": 10000 }));
    });
    same("phi_tiny", &|config| {
        remove(config, &["rope_parameters", "qk_layernorm", "hidden_act"]);
        insert(config, json!({ "partial_rotary_factor": 0.67, "rope_theta": 10000.0 }));
    });
    same("gpt2_tiny", &|config| {
        remove(config, &["activation_function", "layer_norm_epsilon", "tie_word_embeddings"]);
    });
    same("bart_tiny", &|config| remove(config, &["activation_function", "tie_word_embeddings"]));
}

/// Each of these changes what is computed, so the configuration must show it.
#[test]
fn what_matters_is_honoured() {
    for (folder, change) in [
        ("mistral_tiny", json!({ "sliding_window": null })),
        ("qwen2_tiny", json!({ "use_sliding_window": false })),
        ("qwen2_tiny", json!({ "max_window_layers": 1, "layer_types": null })),
        ("qwen3_tiny", json!({ "head_dim": 8 })),
        ("gemma2_tiny", json!({ "attn_logit_softcapping": null })),
        ("gemma2_tiny", json!({ "final_logit_softcapping": null })),
        ("gemma2_tiny", json!({ "query_pre_attn_scalar": 16 })),
        ("gemma3_tiny", json!({ "final_logit_softcapping": 30.0 })),
        ("gptneox_tiny", json!({ "use_parallel_residual": false })),
        ("gptneox_tiny", json!({ "hidden_act": "gelu_new" })),
        ("gpt2_tiny", json!({ "scale_attn_weights": false })),
        ("gpt2_tiny", json!({ "resid_pdrop": 0.1 })),
        ("llama_tiny", json!({ "attention_bias": true })),
        ("llama_tiny", json!({ "mlp_bias": true })),
        ("llama_tiny", json!({ "tie_word_embeddings": true })),
        ("llama_tiny", json!({ "rms_norm_eps": 1e-5 })),
        ("llama_tiny", json!({ "rope_parameters": { "rope_theta": 500.0 } })),
        ("llama_tiny", json!({ "rope_parameters": { "rope_type": "yarn", "factor": 2.0 } })),
        ("bart_tiny", json!({ "scale_embedding": false })),
    ] {
        let changed = with_config(folder, |config| insert(config, change.clone()));
        assert_ne!(read(changed.path()), read(&fixture(folder)), "{folder}: {change}");
    }
    // And this one transformers does not read.
    let changed = with_config("gemma3_tiny", |config| {
        insert(config, json!({ "attn_logit_softcapping": 2.0 }));
    });
    assert_eq!(read(changed.path()), read(&fixture("gemma3_tiny")));
}

#[test]
fn what_this_crate_lacks_is_refused_by_name() {
    for (folder, field, value) in [
        ("gpt2_tiny", "activation_function", json!("quick_gelu")),
        ("gpt2_tiny", "scale_attn_by_inverse_layer_idx", json!(true)),
        ("gpt2_tiny", "add_cross_attention", json!(true)),
        ("gpt2_tiny", "n_embd", json!(0)),
        ("gpt2_tiny", "n_layer", json!(1_000_000)),
        ("llama_tiny", "hidden_act", json!("relu")),
        ("llama_tiny", "hidden_size", json!("24")),
        ("llama_tiny", "vocab_size", json!(-1)),
        ("llama_tiny", "vocab_size", json!(1e18)),
        ("llama_tiny", "intermediate_size", Value::Null),
        ("llama_tiny", "attention_bias", json!("no")),
        ("llama_tiny", "pretraining_tp", json!(2)),
        ("llama_tiny", "partial_rotary_factor", json!(0.5)),
        ("llama_tiny", "quantization_config", json!({ "bits": 4 })),
        ("llama_tiny", "is_causal", json!(false)),
        ("llama_tiny", "pruned_heads", json!({ "0": [1] })),
        ("llama_tiny", "model_type", json!("t5")),
        ("llama_tiny", "model_type", Value::Null),
        ("llama_tiny", "rope_parameters.rope_type", json!("dynamic")),
        ("llama_tiny", "rope_parameters.rope_type", json!("longrope")),
        ("llama_tiny", "rope_parameters.rope_theta", json!("10000")),
        ("llama3rope_tiny", "rope_parameters.low_freq_factor", Value::Null),
        ("gemma3_tiny", "rope_parameters.full_attention.rope_type", json!("dynamic")),
        ("gemma2_tiny", "use_bidirectional_attention", json!(true)),
        ("gemma2_tiny", "query_pre_attn_scalar", json!(0)),
        ("gemma2_tiny", "layer_types", json!(["full_attention"])),
        ("qwen2_tiny", "layer_types", json!(["chunked_attention"])),
        ("phi_tiny", "qk_layernorm", json!(true)),
        ("bart_tiny", "normalize_before", json!(true)),
        ("bart_tiny", "add_final_layer_norm", json!(true)),
        ("bart_tiny", "decoder_layerdrop", json!(0.1)),
        ("bart_tiny", "tie_word_embeddings", json!(false)),
    ] {
        let changed = with_config(folder, |config| {
            let mut path: Vec<_> = field.split('.').collect();
            let last = path.pop().unwrap();
            let inside = path.into_iter().fold(config, |inside, name| {
                inside.get_mut(name).unwrap().as_object_mut().unwrap()
            });
            inside.insert(last.into(), value.clone());
        });
        match Checkpoint::open(changed.path()).unwrap_err() {
            Error::ConfigFile { field: named, got, expected, path } => {
                assert_eq!(named, field, "{folder}: {value}");
                assert_eq!(got, value.to_string());
                assert!(!expected.is_empty() && path.ends_with("config.json"));
            }
            other => panic!("{folder}, {field} {value}: {other}"),
        }
    }
}

#[test]
fn an_unknown_architecture_is_told_what_is_known() {
    let changed =
        with_config("llama_tiny", |config| insert(config, json!({ "model_type": "mamba" })));
    let error = Checkpoint::open(changed.path()).unwrap_err().to_string();
    let known = "model_type: expected one of bart, gemma2, gemma3_text, gpt2, gpt_neox, llama, \
                 mistral, olmo2, phi, qwen2, qwen3, got \"mamba\"";
    assert!(error.ends_with(known), "{error}");
}

/// Any field of any family with any odd value: an error, or a configuration, and never a panic.
#[test]
fn odd_values_never_panic() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(7),
        json!(1e300),
        json!(1u64 << 40),
        json!(0.5),
        json!(""),
        json!("silu"),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "rope_type": "linear" }),
        json!({ "rope_type": "yarn", "factor": 0 }),
    ];
    let device = crate::backends::any_device();
    for (folder, _) in FOLDERS {
        let copy = copy_of(folder);
        let path = copy.path().join("config.json");
        let original: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for name in original.keys() {
            for value in &odd {
                let mut changed = original.clone();
                changed.insert(name.clone(), value.clone());
                std::fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
                let options = burn_decoder::import::LoadOptions::new();
                let loaded =
                    burn_decoder::import::hugging_face::load(copy.path(), &device, options);
                if let Err(error) = loaded {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}
