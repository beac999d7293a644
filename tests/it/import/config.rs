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
        ("llama_tiny", "rope_interleaved", json!(true)),
        ("llama_tiny", "partial_rotary_factor", json!(0.5)),
        ("llama_tiny", "quantization_config", json!({ "bits": 4 })),
        ("llama_tiny", "quantization", json!({ "bits": 4, "group_size": 64 })),
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
                 mistral, olmo2, phi, phi3, qwen2, qwen3, got \"mamba\"";
    assert!(error.ends_with(known), "{error}");
}

/// What transformers does with two blocks, and what it drops without a word.
#[test]
fn nothing_of_rotary_positions_is_dropped() {
    let yarn = |more: Value| {
        let mut block = json!({ "rope_type": "yarn", "factor": 4.0 });
        block.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        block
    };
    let scaling = |folder: &str, values: Value| {
        let changed = with_config(folder, |config| insert(config, values));
        let config = Checkpoint::open(changed.path()).unwrap().config().to_string();
        let config: Value = serde_json::from_str(&config).unwrap();
        let decoder = &config["decoder"];
        match decoder["rotaries"].as_array().unwrap().as_slice() {
            [] => decoder["layer"]["self_attention"]["rotary"].clone(),
            // Gemma 3's third layer is the first without a window.
            all => all[2].clone(),
        }
    };
    // rope_scaling takes the place of rope_parameters.
    for kind in ["rope_type", "type"] {
        let values = json!({ "rope_scaling": {
            kind: "yarn", "factor": 4.0, "original_max_position_embeddings": 32768
        } });
        for folder in ["llama_tiny", "qwen2_tiny", "gemma2_tiny"] {
            let rotary = scaling(folder, values.clone());
            assert_eq!(rotary["scaling"]["Yarn"]["factor"], 4.0, "{folder}");
            assert_eq!(rotary["scaling"]["Yarn"]["original_context"], 32768, "{folder}");
            assert_eq!(rotary["base"], 10_000.0, "{folder}");
        }
    }
    // In Gemma 3, that of the layers without a window, whose base stays.
    let values = json!({ "rope_scaling": { "rope_type": "linear", "factor": 8.0 } });
    let rotary = scaling("gemma3_tiny", values);
    assert_eq!(rotary["scaling"]["Linear"]["factor"], 8.0);
    assert_eq!(rotary["base"], 5000.0);
    // An empty one is none.
    assert_eq!(scaling("llama_tiny", json!({ "rope_scaling": {} }))["scaling"], Value::Null);
    // DeepSeek's two numbers.
    let numbers = json!({ "mscale": 0.707, "mscale_all_dim": 0.5 });
    let rotary = scaling("llama_tiny", json!({ "rope_parameters": yarn(numbers) }));
    let factor = rotary["scaling"]["Yarn"]["attention_factor"].as_f64().unwrap();
    let amplitude = |mscale: f64| 0.1 * mscale * 4f64.ln() + 1.0;
    assert!((factor - amplitude(0.707) / amplitude(0.5)).abs() < 1e-12, "{factor}");
    // The trained context: beside the block, in it, the model's, the family's.
    let context = |values: Value| {
        let changed = with_config("llama_tiny", |config| {
            config.remove("max_position_embeddings");
            insert(config, values);
        });
        let config = Checkpoint::open(changed.path()).unwrap().config().to_string();
        let config: Value = serde_json::from_str(&config).unwrap();
        let rotary = &config["decoder"]["layer"]["self_attention"]["rotary"];
        rotary["scaling"]["Yarn"]["original_context"].as_u64().unwrap()
    };
    assert_eq!(context(json!({ "rope_scaling": yarn(json!({})) })), 2048);
    let length = json!({ "rope_scaling": yarn(json!({})), "max_position_embeddings": 512 });
    assert_eq!(context(length), 512);
    let beside = json!({
        "rope_scaling": yarn(json!({})), "original_max_position_embeddings": 128,
        "max_position_embeddings": 512
    });
    assert_eq!(context(beside), 128);
    // What changes nothing, or says the same twice.
    for (folder, values) in [
        ("gptneox_tiny", json!({ "rope_theta": 10000, "partial_rotary_factor": 0.67 })),
        ("llama_tiny", json!({ "rope_theta": 10000 })),
        ("gpt2_tiny", json!({ "rope_theta": null, "rotary": false })),
    ] {
        let changed = with_config(folder, |config| insert(config, values));
        assert_eq!(read(changed.path()), read(&fixture(folder)), "{folder}");
    }
    let record = json!({ "type": "linear", "factor": 2.0, "finetuned": true,
        "original_max_position_embeddings": 4096 });
    assert_eq!(
        scaling("llama_tiny", json!({ "rope_scaling": record }))["scaling"]["Linear"]["factor"],
        2.0
    );

    let default = |more: Value| {
        let mut block = json!({ "rope_type": "default", "rope_theta": 10000.0 });
        block.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        block
    };
    for (folder, field, values) in [
        ("llama_tiny", "rope_scaling.factor", json!({ "rope_scaling": { "factor": 8.0 } })),
        (
            "llama_tiny",
            "rope_parameters.factor",
            json!({ "rope_parameters": default(json!({ "factor": 8.0 })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.attn_factor",
            json!({ "rope_scaling": yarn(json!({ "attn_factor": 1.0 })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.beta_fsat",
            json!({ "rope_scaling": yarn(json!({ "beta_fsat": 16 })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.beta_fast",
            json!({ "rope_scaling": { "type": "linear", "factor": 2.0, "beta_fast": 16 } }),
        ),
        (
            "llama_tiny",
            "rope_scaling.type",
            json!({ "rope_scaling": yarn(json!({ "type": "linear" })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.mscale",
            json!({ "rope_scaling": yarn(json!({ "mscale": 0.7 })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.mscale_all_dim",
            json!({ "rope_scaling": yarn(json!({ "mscale_all_dim": 0.7 })) }),
        ),
        (
            "llama_tiny",
            "rope_scaling.original_max_position_embeddings",
            json!({
                "rope_scaling": yarn(json!({ "original_max_position_embeddings": 64 })),
                "original_max_position_embeddings": 128
            }),
        ),
        // A base that the other block would take away.
        ("mistral_tiny", "rope_parameters.rope_theta", json!({ "rope_scaling": yarn(json!({})) })),
        (
            "llama_tiny",
            "rope_parameters.factor",
            json!({
                "rope_parameters": yarn(json!({})),
                "rope_scaling": { "rope_type": "yarn", "factor": 2.0 }
            }),
        ),
        // Two bases, two parts.
        ("mistral_tiny", "rope_theta", json!({ "rope_theta": 10000.0 })),
        ("gptneox_tiny", "rotary_pct", json!({ "rotary_pct": 0.25 })),
        ("gptneox_tiny", "rope_theta", json!({ "rope_theta": 500.0 })),
        ("gptneox_tiny", "partial_rotary_factor", json!({ "partial_rotary_factor": 0.25 })),
        ("gemma3_tiny", "rope_theta", json!({ "rope_theta": 1.0 })),
        // What the family does not read.
        ("llama_tiny", "rope_local_base_freq", json!({ "rope_local_base_freq": 100.0 })),
        ("llama_tiny", "rotary_pct", json!({ "rotary_pct": 0.25 })),
        ("gpt2_tiny", "rope_scaling", json!({ "rope_scaling": { "type": "linear", "factor": 2 } })),
        ("bart_tiny", "rope_theta", json!({ "rope_theta": 10000.0 })),
        // Blocks by kind of layer, and not.
        (
            "qwen2_tiny",
            "rope_parameters.full_attention",
            json!({ "rope_parameters": { "full_attention": { "rope_type": "default" } } }),
        ),
        (
            "gemma3_tiny",
            "rope_parameters.rope_theta",
            json!({ "rope_parameters": {
            "rope_theta": 10000.0
        } }),
        ),
    ] {
        let changed = with_config(folder, |config| insert(config, values.clone()));
        match Checkpoint::open(changed.path()) {
            Err(Error::ConfigFile { field: named, .. }) => {
                assert_eq!(named, field, "{folder}: {values}");
            }
            Err(other) => panic!("{folder}, {values}: {other}"),
            Ok(_) => panic!("{folder}: {values} is dropped"),
        }
    }
}

/// Defaults of transformers' configuration classes, not one for all.
#[test]
fn absent_fields_mean_what_they_mean_in_the_family() {
    let families = [
        ("bart", [50_265, 1024, 4096, 12, 16, 16, 64]),
        ("gemma2", [256_000, 2304, 9216, 26, 8, 4, 256]),
        ("gemma3_text", [262_208, 2304, 9216, 26, 8, 4, 256]),
        ("gpt2", [50_257, 768, 3072, 12, 12, 12, 64]),
        ("gpt_neox", [50_432, 6144, 24_576, 44, 64, 64, 96]),
        ("llama", [32_000, 4096, 11_008, 32, 32, 32, 128]),
        ("mistral", [32_000, 4096, 14_336, 32, 32, 8, 128]),
        ("olmo2", [50_304, 4096, 11_008, 32, 32, 32, 128]),
        ("phi", [51_200, 2048, 8192, 24, 32, 32, 64]),
        ("qwen2", [151_936, 4096, 22_016, 32, 32, 32, 128]),
        ("qwen3", [151_936, 4096, 22_016, 32, 32, 32, 128]),
    ];
    let sizes = |config: Value| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let config = checkpoint.config();
        let layer = &config.decoder.layer;
        let attention = &layer.self_attention;
        [
            config.vocab_size,
            attention.d_model,
            layer.feed_forward.d_ff,
            config.decoder.layers,
            attention.heads,
            attention.kv_heads.unwrap_or(attention.heads),
            attention.head_dim.unwrap_or(attention.d_model / attention.heads),
        ]
    };
    for (family, expected) in families {
        assert_eq!(sizes(json!({ "model_type": family })), expected, "{family}");
    }
    let kv_heads = |family: &str, value: Value| {
        sizes(json!({
            "model_type": family, "num_attention_heads": 16, "num_key_value_heads": value,
            "hidden_size": 1024
        }))[5]
    };
    // null is the number of heads, as in transformers; absent is not.
    for family in ["mistral", "qwen2", "qwen3", "llama"] {
        assert_eq!(kv_heads(family, Value::Null), 16, "{family}");
        assert_eq!(kv_heads(family, json!(2)), 2, "{family}");
    }
    // GPT-2's fields by their other names.
    let config = json!({ "model_type": "gpt2", "hidden_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4 });
    assert_eq!(sizes(config), [50_257, 64, 256, 3, 4, 4, 16]);
}

/// No number depends on these.
#[test]
fn what_changes_nothing_is_accepted() {
    for (folder, values) in [
        ("llama_tiny", json!({ "pretraining_tp": 2 })),
        ("qwen3_tiny", json!({ "sliding_window": 1u64 << 40, "max_window_layers": -1 })),
        ("gpt2_tiny", json!({ "reorder_and_upcast_attn": true })),
        ("gptneox_tiny", json!({ "hidden_act": "gelu_python" })),
        ("phi_tiny", json!({ "hidden_act": "gelu_python_tanh" })),
        ("bart_tiny", json!({ "encoder_layerdrop": 0.1, "classifier_dropout": "any" })),
    ] {
        let changed = with_config(folder, |config| insert(config, values.clone()));
        assert_eq!(read(changed.path()), read(&fixture(folder)), "{folder}: {values}");
    }
}

/// The configuration of a model of images and text says where its text model is.
#[test]
fn a_text_model_inside_another_is_pointed_to() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gemma3", "vision_config": {},
        "text_config": { "model_type": "gemma3_text", "hidden_size": 2560 }
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    for word in ["a gemma3_text, stands in text_config", "with_prefix", "model.language_model."] {
        assert!(error.contains(word), "{error}");
    }
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
