//! Wrong checkpoints: each gives the error that names what is wrong, and nothing panics.

use std::collections::BTreeMap;
use std::path::Path;

use burn_decoder::Error;
use burn_decoder::import::hugging_face::{self, Loaded};
use burn_decoder::import::{LoadOptions, Precision, WeightsMismatch};
use safetensors::tensor::Dtype;

use super::round_trip::{tensors, write};
use super::{copy_of, with_config};
use crate::backends::any_device;

fn load(folder: &Path) -> Result<Loaded, Error> {
    hugging_face::load(folder, &any_device(), LoadOptions::new())
}

/// What does not fit in the folder.
fn mismatch(folder: &Path) -> WeightsMismatch {
    match load(folder).unwrap_err() {
        Error::Weights(mismatch) => *mismatch,
        other => panic!("{other}"),
    }
}

/// The message about a file, which must be the one called `name`.
fn file_error(folder: &Path, name: &str) -> String {
    let error = load(folder).unwrap_err();
    let Error::File { path, .. } = &error else { panic!("{error}") };
    assert!(path.ends_with(name), "{error}");
    error.to_string()
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A copy of a folder whose weights were changed.
fn with_weights(folder: &str, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let copy = copy_of(folder);
    let file = copy.path().join("model.safetensors");
    let mut all = tensors(&file);
    change(&mut all);
    write(&file, &all);
    copy
}

const KEY: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn missing_and_unused_tensors() {
    let copy = with_weights("llama_tiny", |all| {
        let key = all.remove(KEY).unwrap();
        all.insert("model.layers.1.self_attn.keys.weight".into(), key);
        all.remove("lm_head.weight");
    });
    let found = mismatch(copy.path());
    assert_eq!(found.missing, ["lm_head.weight", KEY]);
    assert_eq!(found.unused, ["model.layers.1.self_attn.keys.weight"]);
    assert!(found.wrong_shape.is_empty() && found.wrong_type.is_empty());
    let message = load(copy.path()).unwrap_err().to_string();
    assert!(message.contains("\n  missing: lm_head.weight, model.layers.1"), "{message}");
    assert!(message.contains("\n  unused: model.layers.1.self_attn.keys.weight"), "{message}");
}

#[test]
fn swapped_shapes() {
    let copy = with_weights("llama_tiny", |all| all.get_mut(KEY).unwrap().1 = vec![24, 12]);
    let found = mismatch(copy.path());
    assert_eq!(found.wrong_shape.len(), 1);
    assert_eq!(found.wrong_shape[0].name, KEY);
    assert_eq!(found.wrong_shape[0].expected, [12, 24]);
    assert_eq!(found.wrong_shape[0].got, [24, 12]);
    let message = load(copy.path()).unwrap_err().to_string();
    assert!(message.ends_with(&format!("{KEY}: expected [12, 24], got [24, 12]")), "{message}");
    // GPT-2's packed weight is told once, though three parameters want it.
    let copy = with_weights("gpt2_tiny", |all| {
        all.get_mut("transformer.h.0.attn.c_attn.weight").unwrap().1 = vec![72, 24];
    });
    assert_eq!(mismatch(copy.path()).wrong_shape.len(), 1);
}

#[test]
fn another_type() {
    let copy = with_weights("llama_tiny", |all| all.get_mut(KEY).unwrap().0 = Dtype::I32);
    assert_eq!(mismatch(copy.path()).wrong_type, [(KEY.to_string(), "i32".to_string())]);
    let packed = "transformer.h.0.attn.c_attn.weight";
    let copy = with_weights("gpt2_tiny", |all| all.get_mut(packed).unwrap().0 = Dtype::U32);
    assert_eq!(mismatch(copy.path()).wrong_type, [(packed.to_string(), "u32".to_string())]);
}

/// Sizes, biases, layers and ties of the configuration that are not those of the file.
#[test]
fn a_configuration_that_contradicts_the_weights() {
    let changed = |folder, name: &str, value: serde_json::Value| {
        let copy = with_config(folder, |config| drop(config.insert(name.into(), value)));
        mismatch(copy.path())
    };
    let found = changed("llama_tiny", "vocab_size", 59.into());
    let names: Vec<_> = found.wrong_shape.iter().map(|wrong| wrong.name.as_str()).collect();
    assert_eq!(names, ["lm_head.weight", "model.embed_tokens.weight"]);
    let found = changed("llama_tiny", "num_key_value_heads", 4.into());
    assert_eq!(found.wrong_shape.len(), 3 * 2);
    let found = changed("llama_tiny", "num_hidden_layers", 2.into());
    assert_eq!(found.unused.len(), 9);
    assert!(found.unused.iter().all(|name| name.starts_with("model.layers.2.")));
    let found = changed("llama_tiny", "num_hidden_layers", 4.into());
    assert_eq!(found.missing.len(), 9);
    let found = changed("llama_tiny", "attention_bias", true.into());
    assert_eq!(found.missing.len(), 3 * 4);
    let found = changed("llama_tiny", "tie_word_embeddings", true.into());
    let copies = ("lm_head.weight".to_string(), "model.embed_tokens.weight".to_string());
    assert_eq!(found.not_copies, [copies]);
    let found = changed("qwen2_tiny", "tie_word_embeddings", false.into());
    assert_eq!(found.missing, ["lm_head.weight"]);
    let found = changed("mistral_tiny", "model_type", "qwen3".into());
    assert_eq!(found.missing.len(), 3 * 2, "{found}");
}

#[test]
fn a_truncated_file() {
    let whole = std::fs::read(super::fixture("llama_tiny").join("model.safetensors")).unwrap();
    let copy = copy_of("llama_tiny");
    let file = copy.path().join("model.safetensors");
    for length in [0, 5, 8, 100, 3000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let message = file_error(copy.path(), "model.safetensors");
        assert!(message.contains(&format!("got {length} bytes")), "{message}");
    }
    let longer = [whole.as_slice(), &[0]].concat();
    std::fs::write(&file, longer).unwrap();
    assert!(file_error(copy.path(), "model.safetensors").contains("was it cut off?"));
    std::fs::write(
        &file,
        [&[20, 0, 0, 0, 0, 0, 0, 0], b"{ no JSON at all   }".as_slice()].concat(),
    )
    .unwrap();
    assert!(file_error(copy.path(), "model.safetensors").contains("a header with"));
}

/// Any byte of the header may be any other: an error or a load, and never a panic.
#[test]
fn a_damaged_header_never_panics() {
    let whole = std::fs::read(super::fixture("phi_tiny").join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let copy = copy_of("phi_tiny");
    let file = copy.path().join("model.safetensors");
    for at in (0..8).chain((8..header).step_by(7)) {
        for byte in [b'0', b'9', b'"', b'}', 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            std::fs::write(&file, damaged).unwrap();
            if let Err(error) = load(copy.path()) {
                let known = matches!(error, Error::File { .. } | Error::Weights(_));
                assert!(known, "byte {at} as {byte}: {error}");
            }
        }
    }
}

#[test]
fn missing_and_unreadable_files() {
    let missing = super::fixture("no_such_folder");
    assert!(file_error(&missing, "no_such_folder/config.json").contains("No such file"));

    let copy = copy_of("llama_tiny");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let error = load(copy.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors or model.safetensors.index.json in it"), "{error}");

    for (file, text) in [
        ("config.json", "{ \"vocab_size\": 61,"),
        ("config.json", "[1, 2]"),
        ("config.json", ""),
        ("generation_config.json", "{]"),
    ] {
        let copy = copy_of("llama_tiny");
        std::fs::write(copy.path().join(file), text).unwrap();
        assert!(file_error(copy.path(), file).contains("a file with a JSON object"));
    }
    std::fs::write(copy.path().join("config.json"), [0xff, 0xfe]).unwrap();
    assert!(file_error(copy.path(), "config.json").contains("UTF-8"));

    let copy = copy_of("llama_tiny");
    let generation = copy.path().join("generation_config.json");
    std::fs::write(generation, r#"{ "eos_token_id": "</s>" }"#).unwrap();
    let error = load(copy.path()).unwrap_err().to_string();
    assert!(error.ends_with("got \"</s>\"") && error.contains("eos_token_id: "));
}

#[test]
fn broken_shards() {
    let with_index = |map: serde_json::Value| {
        let copy = copy_of("llama_tiny");
        let shard = copy.path().join("a.safetensors");
        std::fs::rename(copy.path().join("model.safetensors"), shard).unwrap();
        let index = copy.path().join("model.safetensors.index.json");
        std::fs::write(index, map.to_string()).unwrap();
        copy
    };
    let copy = with_index(serde_json::json!({ "weight_map": { "x": "b.safetensors" } }));
    assert!(
        file_error(copy.path(), "b.safetensors").contains("a shard that model.safetensors.index")
    );
    let copy = with_index(serde_json::json!({ "weight_map": { "x": "a.safetensors" } }));
    assert!(file_error(copy.path(), "a.safetensors").contains("a file without [\"x\"]"));
    for map in [
        serde_json::json!({}),
        serde_json::json!({ "weight_map": { "x": 3 } }),
        serde_json::json!({ "weight_map": { "x": "../a.safetensors" } }),
    ] {
        let copy = with_index(map);
        file_error(copy.path(), "model.safetensors.index.json");
    }
    // A tensor that the index does not name is not there.
    let copy =
        with_index(serde_json::json!({ "weight_map": { "lm_head.weight": "a.safetensors" } }));
    assert_eq!(mismatch(copy.path()).missing.len(), 29);
}

#[test]
fn a_precision_that_the_device_lacks() {
    for device in crate::backends::cpus() {
        if device.supports_dtype(burn::tensor::DType::F16) {
            continue;
        }
        let options = LoadOptions::new().with_precision(Precision::F16);
        let error = hugging_face::load(super::fixture("llama_tiny"), &device, options).unwrap_err();
        assert!(error.to_string().starts_with("LoadOptions::precision: "), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written() {
    let loaded = load(&super::fixture("llama_tiny")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = loaded.checkpoint.save(&loaded.model, file.join("folder")).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
    // A file in the way of the weights stays what it was.
    let folder = out.path().join("folder");
    std::fs::create_dir_all(folder.join("model.safetensors/x")).unwrap();
    let error = loaded.checkpoint.save(&loaded.model, &folder).unwrap_err();
    assert!(error.to_string().contains("a file that can be written"), "{error}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing unfinished is left");
}

/// A model that the family has no names for.
#[test]
fn a_model_of_another_family() {
    let gemma = load(&super::fixture("gemma2_tiny")).unwrap().model;
    let llama = load(&super::fixture("llama_tiny")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let error = llama.checkpoint.save(&gemma, out.path()).unwrap_err();
    let Error::Weights(found) = error else { panic!("{error}") };
    assert!(found.nameless.contains(&"decoder.layers.0.self_attention_output_norm.gamma".into()));
}

/// The text part of a multimodal file: the tensors of the model without its head, behind a prefix.
fn text_part(folder: &str, prefix: &str) -> tempfile::TempDir {
    with_weights(folder, |all| {
        let parts = std::mem::take(all);
        all.extend(parts.into_iter().map(|(name, tensor)| {
            let bare = name.strip_prefix("model.").unwrap_or(&name);
            (format!("{prefix}{bare}"), tensor)
        }));
        let other = all.values().next().unwrap().clone();
        all.insert("model.vision_tower.layers.0.weight".into(), other);
    })
}

#[test]
fn a_model_without_its_head_behind_a_prefix() {
    let plain = hugging_face::load(super::fixture("qwen2_tiny"), &any_device(), LoadOptions::new());
    let plain = plain.unwrap().model;
    for prefix in ["model.language_model.", "language_model.", "model.", "a.model."] {
        let copy = text_part("qwen2_tiny", prefix);
        let options = LoadOptions::new().with_prefix(prefix);
        let options = if prefix == "model." {
            options.with_ignored(["model.vision_tower."])
        } else {
            options
        };
        let loaded = hugging_face::load(copy.path(), &any_device(), options)
            .unwrap_or_else(|error| panic!("{prefix}: {error}"));
        let weight = |model: &burn_decoder::decoder::LanguageModel| {
            model.decoder.layers[1].self_attention.key.weight.val().into_data()
        };
        assert_eq!(weight(&loaded.model), weight(&plain), "{prefix}");
        // And its names are found again on the way back.
        let out = tempfile::tempdir().unwrap();
        loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
        let mut expected = tensors(&copy.path().join("model.safetensors"));
        expected.remove("model.vision_tower.layers.0.weight");
        assert!(tensors(&out.path().join("model.safetensors")) == expected, "{prefix}");
    }
}

/// A head that is not tied stands outside the prefix of the rest.
#[test]
fn a_head_outside_the_prefix() {
    let copy = text_part("llama_tiny", "model.language_model.");
    let file = copy.path().join("model.safetensors");
    let mut all = tensors(&file);
    let head = all.remove("model.language_model.lm_head.weight").unwrap();
    all.insert("lm_head.weight".into(), head);
    write(&file, &all);
    let options = || LoadOptions::new().with_prefix("model.language_model.");
    let loaded = hugging_face::load(copy.path(), &any_device(), options()).unwrap();
    let out = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    all.remove("model.vision_tower.layers.0.weight");
    assert!(tensors(&out.path().join("model.safetensors")) == all);
    let error =
        hugging_face::load(copy.path(), &any_device(), options().with_ignored(["lm_head."]));
    assert!(
        error.unwrap_err().to_string().contains("missing: model.language_model.lm_head.weight")
    );
}

/// What the names tell of the remedy, in the message.
#[test]
fn a_remedy_is_proposed() {
    let hints = |copy: &tempfile::TempDir, options: LoadOptions| {
        let error = hugging_face::load(copy.path(), &any_device(), options).unwrap_err();
        let message = error.to_string();
        let Error::Weights(found) = error else { panic!("{error}") };
        assert!(found.hints.iter().all(|hint| message.contains(hint.as_str())), "{message}");
        found.hints.join("; ")
    };
    let renamed = |folder: &str, prefix: &str| {
        with_weights(folder, |all| {
            let parts = std::mem::take(all);
            all.extend(parts.into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)));
        })
    };
    for prefix in ["_orig_mod.", "module.", "base.model."] {
        for folder in ["llama_tiny", "qwen2_tiny", "gpt2_tiny", "gptneox_tiny"] {
            let copy = renamed(folder, prefix);
            let found = hints(&copy, LoadOptions::new());
            // Without a head of its own, either spelling loads.
            let proposed = found.split('"').nth(1).unwrap().to_string();
            assert!(proposed.starts_with(prefix), "{folder}: {found}");
            let options = LoadOptions::new().with_prefix(proposed);
            hugging_face::load(copy.path(), &any_device(), options).unwrap();
        }
    }
    let copy = text_part("qwen2_tiny", "model.language_model.");
    let found = hints(&copy, LoadOptions::new());
    assert!(found.contains("LoadOptions::with_prefix(\"model.language_model.\")"), "{found}");
    // A prefix where there is none.
    let found = hints(&copy_of("llama_tiny"), LoadOptions::new().with_prefix("module."));
    assert!(found.contains("leave out LoadOptions::with_prefix"), "{found}");
    // Parts that the model does without.
    let copy = with_weights("qwen2_tiny", |all| {
        let other = all["model.norm.weight"].clone();
        all.insert("score.weight".into(), other.clone());
        all.insert("model.visual.norm.weight".into(), other);
    });
    let found = hints(&copy, LoadOptions::new());
    assert!(found.contains("with_ignored({\"model.visual.\", \"score.\"})"), "{found}");
    // Nothing to propose.
    let copy = with_weights("llama_tiny", |all| drop(all.remove(KEY)));
    assert_eq!(hints(&copy, LoadOptions::new()), "");
}

#[test]
fn quantised_weights_are_called_so() {
    let projection = "model.layers.1.self_attn.k_proj";
    let replace = |endings: &'static [&'static str]| {
        with_weights("llama_tiny", move |all| {
            let mut weight = all.remove(KEY).unwrap();
            weight.0 = Dtype::I32;
            for ending in endings {
                all.insert(format!("{projection}.{ending}"), weight.clone());
            }
        })
    };
    for endings in [
        &["qweight", "qzeros", "scales", "g_idx"][..],
        &["weight", "scales", "biases"],
        &["weight", "weight_scale"],
        &["weight", "weight.absmax"],
    ] {
        let message = load(replace(endings).path()).unwrap_err().to_string();
        assert!(message.contains("these weights are quantised"), "{endings:?}: {message}");
    }
    // FP8, which Burn has no type for.
    let copy = with_weights("llama_tiny", |all| {
        let weight = all.get_mut(KEY).unwrap();
        weight.0 = Dtype::F8_E4M3;
        weight.2.truncate(weight.2.len() / 4);
    });
    let message = load(copy.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("{KEY}: expected f16, bf16, f32 or f64, got F8_E4M3")));
    assert!(message.contains("these weights are quantised"), "{message}");
    // Where it is no parameter's, its type does not matter.
    let copy = with_weights("llama_tiny", |all| {
        all.insert("other.weight".into(), (Dtype::F8_E4M3, vec![4], vec![0; 4]));
    });
    let options = LoadOptions::new().with_ignored(["other."]);
    hugging_face::load(copy.path(), &any_device(), options).unwrap();
    // And by the configuration: transformers' and MLX's.
    for field in ["quantization_config", "quantization"] {
        let copy = with_config("llama_tiny", |config| {
            config.insert(field.into(), serde_json::json!({ "bits": 4, "group_size": 64 }));
        });
        let message = load(copy.path()).unwrap_err().to_string();
        assert!(
            message.contains(&format!("{field}: expected nothing: these weights are quantised"))
        );
    }
}

/// What stands in place of a file after a download that did not work.
#[test]
fn broken_downloads_have_their_own_words() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n";
    for (text, word) in [
        (pointer, "a Git LFS pointer"),
        ("\n<!DOCTYPE html>\n<html>", "an HTML or XML page"),
        ("<?xml version=\"1.0\"?><Error/>", "an HTML or XML page"),
        ("", "0 bytes"),
    ] {
        for file in ["model.safetensors", "config.json", "generation_config.json"] {
            let copy = copy_of("llama_tiny");
            std::fs::write(copy.path().join(file), text).unwrap();
            let message = file_error(copy.path(), file);
            assert!(message.contains(word), "{file}: {message}");
        }
        let device = any_device();
        let module = burn_decoder::attention::MultiHeadAttentionConfig::new(24, 4);
        for ending in ["pt", "bin", "bpk"] {
            let out = tempfile::tempdir().unwrap();
            let path = out.path().join(format!("weights.{ending}"));
            std::fs::write(&path, text).unwrap();
            let module = module.init(&device).unwrap();
            let loaded = burn_decoder::import::pytorch::load(module, &path, LoadOptions::new());
            let message = loaded.unwrap_err().to_string();
            assert!(message.contains(word), "{ending}: {message}");
        }
    }
    let copy = copy_of("llama_tiny");
    for (bytes, word) in [(&b"PK\x03\x04"[..], "torch.save"), (b"GGUF", "GGUF")] {
        std::fs::write(copy.path().join("model.safetensors"), bytes).unwrap();
        assert!(file_error(copy.path(), "model.safetensors").contains(word));
    }
    // Files of another format alone, and shards without their index.
    let weights = copy.path().join("model.safetensors");
    std::fs::rename(&weights, copy.path().join("pytorch_model.bin")).unwrap();
    let message = load(copy.path()).unwrap_err().to_string();
    assert!(message.contains("neither, but pytorch_model.bin"), "{message}");
    std::fs::write(copy.path().join("model-00001-of-00002.safetensors"), "").unwrap();
    let message = load(copy.path()).unwrap_err().to_string();
    assert!(message.contains("shards without model.safetensors.index.json"), "{message}");
}

/// Links into a cache that was not copied along.
#[cfg(unix)]
#[test]
fn broken_links_are_told() {
    let broken = |file: &str| {
        let copy = copy_of("llama_tiny");
        let path = copy.path().join(file);
        // One may be there already.
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink("../../blobs/1234", path).unwrap();
        copy
    };
    for file in ["model.safetensors", "config.json", "generation_config.json"] {
        let message = file_error(broken(file).path(), file);
        assert!(message.contains("a link to ../../blobs/1234, which is not there"), "{message}");
    }
    let copy = broken("model.safetensors.index.json");
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let message = file_error(copy.path(), "model.safetensors.index.json");
    assert!(message.contains("a link to"), "{message}");
}
