//! What was loaded is written back as it was, bit for bit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::{DType, Tensor};
use burn_decoder::decoder::LanguageModel;
use burn_decoder::import::hugging_face::{self, Checkpoint};
use burn_decoder::import::{LoadOptions, Precision, Progress};
use burn_decoder::sequence::Batch;
use burn_decoder::weights::{Format, blocks};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::{FOLDERS, copy_of, fixture};
use crate::backends::{any_device, cpus};
use crate::fixtures::{OUTPUT, assert_close};

/// The tensors of a file: type, shape and bytes.
pub fn tensors(path: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, tensor): (&str, TensorView)| {
        (name.to_string(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
    };
    file.iter().map(tensor).collect()
}

/// Writes tensors to a file.
pub fn write(path: &Path, tensors: &BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The file `name` of a folder in half precision: the upper half of each f32.
fn to_bf16(path: &Path) {
    let mut tensors = tensors(path);
    for (dtype, _, bytes) in tensors.values_mut() {
        *dtype = Dtype::BF16;
        *bytes = bytes.chunks(4).flat_map(|f32| [f32[2], f32[3]]).collect();
    }
    write(path, &tensors);
}

on_each_backend! {
    fn every_family_is_exact(device: Device) {
        for (folder, _) in FOLDERS {
            let loaded = hugging_face::load(fixture(folder), &device, LoadOptions::new()).unwrap();
            let out = tempfile::tempdir().unwrap();
            let out = out.path().join("new");
            loaded.checkpoint.save(&loaded.model, &out).unwrap();
            let read = |folder: &Path, file: &str| std::fs::read(folder.join(file)).unwrap();
            for file in ["config.json", "generation_config.json"] {
                assert_eq!(read(&out, file), read(&fixture(folder), file), "{folder}, {file}");
            }
            let file = "model.safetensors";
            let mut expected = tensors(&fixture(folder).join(file));
            if folder == "bart_tiny" {
                // The decoder alone, and what the two share.
                expected.retain(|name, _| !name.starts_with("model.encoder."));
            } else {
                assert!(read(&out, file) == read(&fixture(folder), file), "{folder}: the file");
            }
            let got = tensors(&out.join(file));
            assert!(got.keys().eq(expected.keys()), "{folder}: {:?}", got.keys());
            for (name, tensor) in &got {
                assert!(*tensor == expected[name], "{folder}: {name}");
            }
            // And it is a checkpoint again.
            assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
            Checkpoint::open(&out).unwrap().load(&device, LoadOptions::new()).unwrap();
        }
    }

    /// Half precision stays where the device has it, and is widened exactly where it does not; matrices
    /// of f32 stay too, on a CPU as rows of the file.
    fn precision_as_stored(device: Device) {
        let folders = ["llama_tiny", "gpt2_tiny", "gptneox_tiny"].into_iter();
        for (folder, format) in folders.flat_map(|f| [Format::Bf16, Format::F32].map(|t| (f, t))) {
            let copy = copy_of(folder);
            let file = copy.path().join("model.safetensors");
            if format == Format::Bf16 {
                to_bf16(&file);
            }
            let as_stored = || LoadOptions::new().with_precision(Precision::AsStored);
            let loaded = hugging_face::load(copy.path(), &device, as_stored()).unwrap();
            let cpu = cpus().contains(&device);
            let layer = &loaded.model.decoder.layers[0];
            for weight in [&loaded.model.embedding.weight, &layer.self_attention.key.weight] {
                let stored = blocks(weight).map(|blocks| blocks.format());
                assert_eq!(stored, cpu.then_some(format), "{folder}");
            }
            let half = device.supports_dtype(DType::BF16);
            if cpu {
                // The same numbers, multiplied where they lie.
                let logits = |model: &LanguageModel| {
                    let tokens = Tensor::from_data([[3, 1, 4], [1, 5, 2]], &device);
                    let output = model.forward(tokens, Batch::new()).unwrap();
                    output.logits.into_data()
                };
                let wide = hugging_face::load(copy.path(), &device, LoadOptions::new()).unwrap();
                assert_close(folder, logits(&loaded.model), logits(&wide.model), OUTPUT);
                // Copied out of a file, they need it no longer: mapped ones would be cut off with it.
                let second = copy_of(folder);
                let of_second = second.path().join("model.safetensors");
                std::fs::copy(&file, &of_second).unwrap();
                let options = as_stored().with_weights_in_memory(true);
                let copied = hugging_face::load(second.path(), &device, options).unwrap();
                std::fs::File::create(of_second).unwrap();
                assert_eq!(logits(&copied.model), logits(&loaded.model), "{folder}");
            }
            let out = tempfile::tempdir().unwrap();
            loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
            let got = tensors(&out.path().join("model.safetensors"));
            for (name, (dtype, shape, bytes)) in tensors(&file) {
                let wide = || bytes.chunks(2).flat_map(|half| [0, 0, half[0], half[1]]).collect();
                // Learned positions are no projection's and no embedding's.
                let kept = cpu && shape.len() == 2 && !name.contains("wpe");
                let expected = match half || kept || format == Format::F32 {
                    true => (dtype, shape, bytes),
                    false => (Dtype::F32, shape, wide()),
                };
                assert!(got[&name] == expected, "{folder}: {name}");
            }
        }
    }
}

/// Names without the base model's, copies of the tied embedding and buffers of older files.
#[test]
fn an_old_file_of_gpt2() {
    let copy = copy_of("gpt2_tiny");
    let file = copy.path().join("model.safetensors");
    let mut old: BTreeMap<_, _> = tensors(&file)
        .into_iter()
        .map(|(name, tensor)| (name.strip_prefix("transformer.").unwrap().to_string(), tensor))
        .collect();
    let parameters = old.clone();
    old.insert("h.0.attn.bias".into(), (Dtype::U8, vec![1, 1, 3, 3], vec![1; 9]));
    old.insert("h.0.attn.masked_bias".into(), (Dtype::F32, vec![], vec![0; 4]));
    old.insert("lm_head.weight".into(), old["wte.weight"].clone());
    write(&file, &old);
    let device = any_device();
    let loaded = hugging_face::load(copy.path(), &device, LoadOptions::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    assert!(tensors(&out.path().join("model.safetensors")) == parameters);
}

/// Frequencies that older files of Llama hold.
#[test]
fn an_old_file_of_llama() {
    let copy = copy_of("llama_tiny");
    let file = copy.path().join("model.safetensors");
    let parameters = tensors(&file);
    let mut old = parameters.clone();
    let frequencies = (Dtype::F32, vec![3], vec![0; 12]);
    old.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), frequencies);
    write(&file, &old);
    let loaded = hugging_face::load(copy.path(), &any_device(), LoadOptions::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    assert!(tensors(&out.path().join("model.safetensors")) == parameters);
}

/// A tied embedding that stands under the head's name only.
#[test]
fn a_tied_tensor_under_its_other_name() {
    let copy = copy_of("qwen2_tiny");
    let file = copy.path().join("model.safetensors");
    let mut renamed = tensors(&file);
    let embedding = renamed.remove("model.embed_tokens.weight").unwrap();
    renamed.insert("lm_head.weight".into(), embedding);
    write(&file, &renamed);
    let device = any_device();
    let loaded = hugging_face::load(copy.path(), &device, LoadOptions::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    assert!(tensors(&out.path().join("model.safetensors")) == renamed);
}

#[test]
fn shards_are_one_model() {
    let copy = copy_of("llama_tiny");
    let file = copy.path().join("model.safetensors");
    let whole = tensors(&file);
    let mut shards = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
    let mut map = serde_json::Map::new();
    for (index, (name, tensor)) in whole.iter().enumerate() {
        shards[index % 3].insert(name.clone(), tensor.clone());
        map.insert(name.clone(), format!("model-{}-of-3.safetensors", index % 3 + 1).into());
    }
    for (index, shard) in shards.iter().enumerate() {
        write(&copy.path().join(format!("model-{}-of-3.safetensors", index + 1)), shard);
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    std::fs::write(copy.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let loaded = hugging_face::load(copy.path(), &any_device(), LoadOptions::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    assert!(tensors(&out.path().join("model.safetensors")) == whole);
}

/// A folder of links, as Hugging Face's cache has them: what they lead to belongs to others and stays.
#[cfg(unix)]
#[test]
fn links_in_a_folder_make_way() {
    let (out, blobs) = (tempfile::tempdir().unwrap(), copy_of("llama_tiny"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(blobs.path()).unwrap() {
        let entry = entry.unwrap();
        std::os::unix::fs::symlink(entry.path(), out.path().join(entry.file_name())).unwrap();
        files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
    }
    let mut loaded = hugging_face::load(out.path(), &any_device(), LoadOptions::new()).unwrap();
    let weight = &mut loaded.model.embedding.weight;
    *weight = weight.clone().map(|weight| weight * 2.0);
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    for (blob, bytes) in files {
        assert!(std::fs::read(&blob).unwrap() == bytes, "{blob:?} is as it was");
    }
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        assert!(std::fs::symlink_metadata(out.path().join(name)).unwrap().is_file(), "{name}");
    }
    let values = |model: &LanguageModel| model.embedding.weight.val().into_data();
    let again = hugging_face::load(out.path(), &any_device(), LoadOptions::new()).unwrap();
    assert_eq!(values(&again.model), values(&loaded.model));
}

/// A folder that held another checkpoint holds this one alone afterwards.
#[test]
fn nothing_of_an_earlier_checkpoint_is_left() {
    let loaded =
        hugging_face::load(fixture("llama_tiny"), &any_device(), LoadOptions::new()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| out.path().join(name);
    // Shards as transformers names them, one that only the index names, and files of the user's.
    let map = serde_json::json!({ "weight_map": {
        "x": "model-00001-of-00002.safetensors", "y": "odd.safetensors", "z": "notes.txt",
        "w": "../outside.safetensors",
    } });
    let outside = out.path().parent().unwrap().join("outside.safetensors");
    std::fs::write(file("model.safetensors.index.json"), map.to_string()).unwrap();
    let mine = ["notes.txt", "tokenizer.json", "adapter.safetensors"];
    let theirs =
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "odd.safetensors"];
    for name in mine.iter().chain(&theirs) {
        std::fs::write(file(name), "x").unwrap();
    }
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    let mut left: Vec<_> = std::fs::read_dir(out.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected =
        [&mine[..], &["config.json", "generation_config.json", "model.safetensors"]].concat();
    expected.sort();
    assert_eq!(left, expected);
    assert!(!outside.exists());
    hugging_face::load(out.path(), &any_device(), LoadOptions::new()).unwrap();

    // A generation_config.json that this checkpoint does not have is another's too.
    let copy = copy_of("llama_tiny");
    std::fs::remove_file(copy.path().join("generation_config.json")).unwrap();
    let loaded = hugging_face::load(copy.path(), &any_device(), LoadOptions::new()).unwrap();
    std::fs::write(file("generation_config.json"), r#"{ "eos_token_id": 9 }"#).unwrap();
    loaded.checkpoint.save(&loaded.model, out.path()).unwrap();
    let again = hugging_face::load(out.path(), &any_device(), LoadOptions::new()).unwrap();
    assert!(again.eos_tokens.is_empty() && !file("generation_config.json").exists());
}

#[test]
fn progress_is_told_to_the_end() {
    let told = Arc::new(Mutex::new(Vec::<Progress>::new()));
    let teller = told.clone();
    let options = LoadOptions::new().with_progress(move |p| teller.lock().unwrap().push(p));
    hugging_face::load(fixture("gpt2_tiny"), &any_device(), options).unwrap();
    let told = told.lock().unwrap();
    let weights = tensors(&fixture("gpt2_tiny").join("model.safetensors"));
    let bytes: usize = weights.values().map(|(_, _, bytes)| bytes.len()).sum();
    // Query, key and value are three parameters here: 4 more for each of 3 layers.
    let parameters = weights.len() + 3 * 4;
    assert_eq!(told.len(), parameters);
    for (index, progress) in told.iter().enumerate() {
        assert_eq!((progress.parameters, progress.of_parameters), (index + 1, parameters));
        assert_eq!(progress.of_bytes, bytes as u64);
        assert!(progress.bytes <= progress.of_bytes);
    }
    assert_eq!(told.last().unwrap().bytes, bytes as u64);
}

#[test]
fn the_tokens_of_a_folder() {
    let loaded = |folder: &Path| hugging_face::load(folder, &any_device(), LoadOptions::new());
    let bart = loaded(&fixture("bart_tiny")).unwrap();
    assert_eq!((bart.bos_token, bart.pad_token), (Some(0), Some(1)));
    assert_eq!(bart.decoder_start_token, Some(2));
    assert!(bart.eos_tokens.is_empty());
    // The generation's configuration goes before the model's.
    let copy = super::with_config("llama_tiny", |config| {
        config.insert("eos_token_id".into(), 5.into());
        config.insert("bos_token_id".into(), 7.into());
    });
    let generation = copy.path().join("generation_config.json");
    std::fs::write(generation, r#"{ "eos_token_id": [2, 3] }"#).unwrap();
    let llama = loaded(copy.path()).unwrap();
    assert_eq!((llama.bos_token, llama.eos_tokens), (Some(7), vec![2, 3]));
    // The first conversions of Llama have no padding.
    let copy = super::with_config("llama_tiny", |config| {
        config.insert("pad_token_id".into(), (-1).into());
    });
    assert_eq!(loaded(copy.path()).unwrap().pad_token, None);
}

/// A token id that is none is told before the weights are looked at: here there are none.
#[test]
fn tokens_are_read_before_weights() {
    let copy = super::with_config("llama_tiny", |config| {
        config.insert("pad_token_id".into(), "</s>".into());
    });
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let error = Checkpoint::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("config.json, pad_token_id: expected a token id"), "{error}");
}
