//! The generate example, on a tiny checkpoint with a tokenizer of sixty-one words.

use std::fs;
use std::path::Path;

use clap::Parser;
use safetensors::SafeTensors;
use serde_json::{Map, json};
use tempfile::TempDir;

use super::{Args, run};

/// What transformers computed, in the root of the workspace.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
const CHECKPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/llama_tiny");

/// A folder with the tiny Llama and a tokenizer whose token `i` is the word `wi`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(CHECKPOINT).join(file), folder.path().join(file)).unwrap();
    }
    let vocab: Map<_, _> = (0..61).map(|i| (format!("w{i}"), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn parse(folder: &Path, arguments: &[&str]) -> Result<Args, clap::Error> {
    let backend = if cfg!(feature = "ndarray") { "ndarray" } else { "flex" };
    let always = ["generate", "--backend", backend, "--model", folder.to_str().unwrap()];
    Args::try_parse_from(always.into_iter().chain(arguments.iter().copied()))
}

/// Whether what was compared agrees, and what was printed.
fn generate(folder: &Path, arguments: &[&str]) -> Result<(bool, String), String> {
    let mut printed = Vec::new();
    let agrees = run(&parse(folder, arguments).unwrap(), &mut printed);
    let printed = String::from_utf8(printed).unwrap();
    agrees.map(|agrees| (agrees, printed)).map_err(|error| error.to_string())
}

/// Rows of a tensor of token ids, in words.
fn words(name: &str) -> Vec<String> {
    let bytes = fs::read(Path::new(CHECKPOINT).join("reference.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let width = tensor.shape()[1];
    let (ids, []) = tensor.data().as_chunks::<8>() else { panic!("{name}: expected i64") };
    let ids: Vec<i64> = ids.iter().map(|id| i64::from_le_bytes(*id)).collect();
    let row = |row: &[i64]| row.iter().map(|id| format!("w{id}")).collect::<Vec<_>>().join(" ");
    ids.chunks(width).map(row).collect()
}

/// The continuation is the original's, alone and in a batch.
#[test]
fn the_model_says_what_the_original_says() {
    let folder = folder();
    let (prompts, expected) = (words("input_ids"), words("greedy_ids"));
    for (prompt, expected) in prompts.iter().zip(&expected) {
        let arguments = ["--prompt", prompt, "--max-new-tokens", "12"];
        let (_, printed) = generate(folder.path(), &arguments).unwrap();
        assert_eq!(printed.trim(), expected);
    }
    let both = ["--prompt", &prompts[0], "--prompt", &prompts[1], "--max-new-tokens", "12"];
    let (_, printed) = generate(folder.path(), &both).unwrap();
    for (row, (prompt, expected)) in prompts.iter().zip(&expected).enumerate() {
        assert!(printed.contains(&format!("[{row}] {prompt}")), "{printed}");
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
}

/// A message goes through the template of the folder, wherever that is.
#[test]
fn a_chat_goes_through_the_template() {
    let folder = folder();
    let template = "{% for m in messages %}{{ bos_token }} {{ m.content }} {% endfor %}w7";
    let said = |arguments: &[&str]| generate(folder.path(), arguments).unwrap().1;
    let plain = said(&["--prompt", "w1 w5 w1 w9 w7", "--max-new-tokens", "5"]);
    let chat = ["--prompt", "w9", "--chat", "--system", "w5", "--max-new-tokens", "5"];
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let tokens = folder.path().join("tokenizer_config.json");
    fs::write(&tokens, json!({ "bos_token": "w1" }).to_string()).unwrap();
    assert_eq!(said(&chat), plain);
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let config = json!({ "bos_token": { "content": "w1" }, "chat_template": template });
    fs::write(&tokens, config.to_string()).unwrap();
    assert_eq!(said(&chat), plain);
    fs::remove_file(&tokens).unwrap();
    let refused = generate(folder.path(), &chat).unwrap_err();
    assert!(refused.contains("chat_template.jinja") && refused.contains("without --chat"));
}

#[test]
fn logits_are_compared_with_a_dump() {
    let compare = |of: &str| {
        let dump = format!("{FIXTURES}/{of}/reference.safetensors");
        generate(Path::new(CHECKPOINT), &["--parity", &dump, "--tolerance", "1e-4"]).unwrap()
    };
    let (agrees, printed) = compare("llama_tiny");
    assert!(agrees && printed.contains("logits agrees"), "{printed}");
    let (agrees, printed) = compare("qwen3_tiny");
    assert!(!agrees && printed.contains("logits does not agree"), "{printed}");
}

#[test]
fn bad_input_is_refused() {
    let folder = folder();
    assert_eq!(parse(folder.path(), &[]).unwrap_err().exit_code(), 2);
    assert_eq!(
        parse(folder.path(), &["--prompt", "w1", "--system", "w2"]).unwrap_err().exit_code(),
        2
    );
    let nowhere = folder.path().join("nowhere");
    for (folder, arguments, words) in [
        (folder.path(), vec!["--prompt", "w1", "--top-k", "3"], ["top_k", "temperature"]),
        (folder.path(), vec!["--prompt", ""], ["prompts", "an empty prompt in row 0"]),
        (folder.path(), vec!["--prompt", "w1", "--max-new-tokens", "0"], ["max_new_tokens", "1"]),
        (Path::new(CHECKPOINT), vec!["--prompt", "w1"], ["tokenizer.json", "expected a tokenizer"]),
        (&nowhere, vec!["--parity", "nothing.safetensors"], ["nothing.safetensors", "expected"]),
    ] {
        let refused = generate(folder, &arguments).unwrap_err();
        for word in words {
            assert!(refused.contains(word), "{word:?} is missing in {refused:?}");
        }
    }
}
