//! From a folder on: whole, and by adapters alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::Dataset;
use burn::module::{Lora, Module, ParamGroup};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Int, Tensor};
use burn::train::InferenceStep;
use burn::train::metric::Adaptor;
use burn_decoder::decoder::{Batch, LanguageModel};
use burn_decoder::import::{LoadOptions, hugging_face};
use burn_decoder::training::TextLoss;
use serde_json::json;
use shared::Backend;
use train::model::NextToken;
use train::rows::{RowBatcher, ValidationRows};
use train::text::Texts;
use train::{ADAPTERS, Verdict};

use crate::{assert_says, backend, folder, parse, refused, train};

const TUNE: &str = "--context 16 --batch 4 --steps 60 --validate-every 20 --warm-up 5 \
                    --valid-rows 8 --sample 4 --learning-rate 0.01";

fn device() -> Device {
    let backend = if backend() == "flex" { Backend::Flex } else { Backend::Ndarray };
    backend.device("train").unwrap()
}

/// A small Llama of random weights with a tokenizer of characters.
fn model(folder: &Path) -> PathBuf {
    let to = folder.join("model");
    fs::create_dir(&to).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llama_tiny");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY ;.\n".chars();
    let vocabulary: BTreeMap<String, usize> = characters.map(String::from).zip(0..).collect();
    let separator = json!({
        "id": 60, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true,
    });
    let mut whole = vocabulary.clone();
    whole.insert("<|endoftext|>".into(), 60);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [separator],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": whole, "merges": [],
        },
    });
    fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap())
    };
    entries.filter(|path| path.is_file()).map(named).collect()
}

fn load(folder: &Path) -> LanguageModel {
    hugging_face::load(folder, &device(), LoadOptions::new()).unwrap().model
}

#[test]
fn a_model_learns_a_new_text_whole() {
    let (folder, text) = folder();
    let from = model(folder.path());
    let out = folder.path().join("run");
    let before = files(&from);
    let arguments = format!("{TUNE} --from {}", from.display());
    let (verdict, printed, json) = train(&text, &out, &arguments).unwrap();
    assert_eq!(verdict, Verdict::Trained, "{printed}");
    assert!(json["validation_loss"].as_f64().unwrap() < 2.8, "{printed}"); // ln 61 = 4.1
    assert_eq!(files(&from), before);
    let after = files(&out);
    assert_eq!(after["tokenizer.json"], before["tokenizer.json"]);
    assert_eq!(after["config.json"], before["config.json"]);
    assert_ne!(after["model.safetensors"], before["model.safetensors"]);
    load(&out);
}

#[test]
fn adapters_learn_and_the_model_stays_as_it_is() {
    let (folder, text) = folder();
    let from = model(folder.path());
    let [out, merged] = ["run", "merged"].map(|name| folder.path().join(name));
    let before = files(&from);
    let arguments =
        format!("{TUNE} --from {} --lora 3 --export {}", from.display(), merged.display());
    let (verdict, printed, json) = train(&text, &out, &arguments).unwrap();
    assert_eq!(verdict, Verdict::Trained, "{printed}");
    assert_eq!(files(&from), before);
    assert!(!out.join("model.safetensors").exists(), "only the adapters are kept");

    // Two matrices of rank 3 for each of 7 projections in 3 layers, and nothing else.
    let adapters = ModuleRecord::load(out.join(ADAPTERS)).unwrap();
    assert_eq!(adapters.len(), 2 * 7 * 3);
    for part in fs::read_dir(out.join("checkpoints")).unwrap() {
        let path = part.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("model-") {
            assert_eq!(ModuleRecord::load(path).unwrap().len(), 2 * 7 * 3);
        }
    }

    // The adapters alone, on the model as it is in the folder, give the loss that was measured in
    // training: so the model was that of the folder all the time.
    let projections =
        r"(attention\.(query|key|value|output)|feed_forward\.(up|gate|down))\.weight$";
    let group = ParamGroup::from_regex(projections).unwrap();
    let plain = load(&from);
    let adapted = plain.clone().apply_lora(Lora::new(3, 6.0).set_param_group(group));
    let adapted = adapted.try_load_record(adapters.allow_partial(true)).unwrap();
    let settings = parse(&text, &out, &arguments).settings;
    let texts = Texts::read(std::slice::from_ref(&text)).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
    let stream = texts.encode(&tokenizer).unwrap();
    let (_, held_out) = stream.split(settings.valid_share, settings.context).unwrap();
    let rows = ValidationRows::new(Arc::new(held_out), &settings);
    let rows: Vec<_> = (0..rows.len()).map(|row| rows.get(row).unwrap()).collect();
    let batch = RowBatcher.batch(rows, &device());
    let loss = |model: LanguageModel| {
        let output = InferenceStep::step(&NextToken::new(model, 1, 0.0), batch.clone());
        let TextLoss { loss, .. } = output.adapt();
        loss.into_scalar::<f64>()
    };
    let [before, after] = [plain, adapted.clone()].map(loss);
    // The same f32; serde_json may read the last bit of its f64 otherwise.
    let measured = json["validation_loss"].as_f64().unwrap();
    assert!((after - measured).abs() < 1e-12, "{after}, measured {measured}");
    assert!(after < before - 0.3, "{before} {after}");

    // Merged on request: the same scores, but for rounding.
    let tokens = Tensor::<2, Int>::from_ints([[5, 3, 8, 1, 40, 60, 2]], &device());
    let scores = |model: LanguageModel| model.forward(tokens.clone(), Batch::new()).unwrap().logits;
    let difference = (scores(load(&merged)) - scores(adapted)).abs().max().into_scalar::<f32>();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn adapters_go_on_where_they_were() {
    let (folder, text) = folder();
    let from = model(folder.path());
    let out = folder.path().join("run");
    let arguments = format!("{TUNE} --from {} --lora 2", from.display());
    train(&text, &out, &arguments).unwrap();
    let expected = fs::read(out.join("checkpoints/model-3.bpk")).unwrap();
    fs::remove_file(out.join("outcome.json")).unwrap();
    fs::remove_file(out.join("checkpoints/3.json")).unwrap();
    train(&text, &out, &arguments).unwrap();
    let tensors = |bytes: Vec<u8>| {
        let bytes = burn::tensor::Bytes::from_bytes_vec(bytes);
        let reader = burn::store::burn_pack::Reader::from_bytes(bytes).unwrap();
        let data = |tensor: burn::store::burn_pack::Tensor| {
            let (name, _, _, id, bytes) = tensor.into_parts().unwrap();
            (name, (id, bytes.to_vec()))
        };
        reader.into_tensors().unwrap().into_iter().map(data).collect::<BTreeMap<_, _>>()
    };
    let got = fs::read(out.join("checkpoints/model-3.bpk")).unwrap();
    assert!(tensors(got) == tensors(expected));
}

#[test]
fn a_model_that_does_not_fit_is_refused_until_it_is_mended() {
    let (folder, text) = folder();
    let from = model(folder.path());
    let out = folder.path().join("run");
    let arguments = format!("{TUNE} --from {}", from.display());
    let tokenizer = fs::read_to_string(from.join("tokenizer.json")).unwrap();
    fs::write(from.join("tokenizer.json"), tokenizer.replace("60", "61")).unwrap();
    let message = refused(&text, &out, &arguments);
    assert_says(&message, &["tokenizer.json", "0 to 60", "got 61"]);
    // Nothing of it is left, so that the same command reads what was mended.
    assert!(!out.exists());
    // A pair that is longer than every token, which the tokenizers crate has no room for.
    let end = "<|endoftext|>";
    let merges = format!("\"merges\":[\"{end} {end}\"]");
    let damaged = tokenizer.replace("\"merges\":[]", &merges);
    fs::write(from.join("tokenizer.json"), &damaged).unwrap();
    assert_says(&refused(&text, &out, &arguments), &["tokenizer.json", "panics"]);
    fs::write(from.join("tokenizer.json"), tokenizer).unwrap();
    train(&text, &out, &arguments).unwrap();
    // A run that was begun before stays, whatever it is refused for.
    fs::write(out.join("tokenizer.json"), damaged).unwrap();
    let kept = files(&out);
    assert_says(&refused(&text, &out, &arguments), &["tokenizer.json", "panics"]);
    assert!(files(&out) == kept);
}
