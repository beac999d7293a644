//! The generate example, on a tiny checkpoint with a tokenizer of sixty-one words.

use std::fs;
use std::path::Path;

use clap::Parser;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::args::Args;
use crate::load::load;
use crate::output::Output;
use crate::run;
use crate::source::Source;
use crate::speak::Voice;

/// What transformers computed, in the root of the workspace.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
const CHECKPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/llama_tiny");

/// A folder with the tiny Llama and a tokenizer whose token `i` is the word `wi`.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(CHECKPOINT).join(file), folder.path().join(file)).unwrap();
    }
    fs::write(folder.path().join("tokenizer.json"), tokenizer(|_| None).to_string()).unwrap();
    folder
}

/// The text of `tokenizer.json`, whose vocabulary `change` has changed.
fn tokenizer(change: impl Fn(&mut Map<String, Value>) -> Option<Value>) -> Value {
    let mut vocab = (0..61).map(|i| (format!("w{i}"), json!(i))).collect();
    change(&mut vocab);
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w0" },
    })
}

pub fn parse(folder: &Path, arguments: &[&str]) -> Result<Args, clap::Error> {
    let backend = if cfg!(feature = "ndarray") { "ndarray" } else { "flex" };
    let always = ["generate", "--backend", backend, "--model", folder.to_str().unwrap()];
    Args::try_parse_from(always.into_iter().chain(arguments.iter().copied()))
}

/// Whether what was compared agrees, and what was printed.
pub fn generate(folder: &Path, arguments: &[&str]) -> Result<(bool, String), String> {
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
        let line = format!("[{row}] {prompt} {expected}\n");
        assert!(printed.contains(&line), "{line:?} is not in {printed:?}");
    }
}

/// A character that the last token leaves unfinished is shown as such, and not left out.
#[test]
fn a_text_is_written_to_its_end() {
    let folder = folder();
    let (prompt, expected) = (&words("input_ids")[0], &words("greedy_ids")[0]);
    let last = expected.split(' ').next_back().unwrap();
    // The first of the two bytes of an é, as byte-level tokenizers write it.
    let mut tokenizer = tokenizer(|vocab| {
        let id = vocab.remove(last)?;
        vocab.insert("Ã".into(), id)
    });
    tokenizer["decoder"] = json!({ "type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": true });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let arguments = ["--prompt", prompt, "--max-new-tokens", "12"];
    let (_, alone) = generate(folder.path(), &arguments).unwrap();
    assert!(alone.ends_with("\u{fffd}\n"), "{alone:?}");
    let twice = [&arguments[..], &["--prompt", prompt]].concat();
    let (_, batch) = generate(folder.path(), &twice).unwrap();
    assert!(batch.contains(&alone), "{alone:?} is not in {batch:?}");
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

/// With the words of its own kind, and before the weights are looked for: there are none.
#[test]
fn bad_input_is_refused_before_the_weights_are_read() {
    let folder = folder();
    let folder = folder.path();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("chat_template.jinja"), "{{ raise_exception('never') }}").unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let refused = generate(folder, arguments).unwrap_err();
        for word in words {
            assert!(refused.contains(word), "{word:?} is missing in {refused:?}");
        }
    };
    let prompt = ["--prompt", "w1"];
    refused(&prompt, &["model.safetensors"]);
    refused(&["--prompt", "w1", "--top-k", "3"], &["--top-k 3", "--temperature"]);
    refused(&["--prompt", "w1", "--prompt", " "], &["number 2", "at least one token"]);
    refused(&["--prompt", "w1", "--chat"], &["the model's chat template: never"]);
    refused(&["--prompt", "w1", "--parity", "nothing.safetensors"], &["nothing.safetensors"]);
    let write = |name: &str, value: &Value| {
        fs::write(folder.join(name), value.to_string()).unwrap();
    };
    let tokenizer = tokenizer(|vocab| vocab.insert("w61".into(), json!(61)));
    write("tokenizer.json", &tokenizer);
    refused(&["--prompt", "w1 w61"], &["token 61", "at index 1", "0 to 60"]);
    write("generation_config.json", &json!({ "do_sample": true, "top_p": 7 }));
    refused(&prompt, &["generation_config.json", "top_p", "got 7"]);
    fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    refused(&["--prompt", "w1", "--temperature", "0"], &["tokenizer.json", "a tokenizer, got"]);
    fs::write(folder.join("config.json"), "{}").unwrap();
    refused(&["--prompt", "w1", "--temperature", "0"], &["config.json"]);
}

/// A GGUF file speaks as the same model in a folder would.
#[test]
fn a_file_holds_all_that_a_folder_does() {
    let file = crate::gguf_tokenizer::tests::file("llama_tied");
    let said = |arguments: &[&str]| generate(&file, arguments).unwrap().1;
    // Jinja leaves out the line break at the end of a template.
    let marked = "<|im_start|>user\nA mask<|im_end|>\n<|im_start|>assistant";
    let plain = said(&["--prompt", marked, "--max-new-tokens", "9"]);
    assert!(plain.len() > 1, "{plain:?}");
    assert_eq!(said(&["--prompt", "A mask", "--chat", "--max-new-tokens", "9"]), plain);
    assert_ne!(said(&["--prompt", "A mask", "--max-new-tokens", "9"]), plain);
    let untemplated = crate::gguf_tokenizer::tests::file("gemma2");
    let refused = generate(&untemplated, &["--prompt", "A mask", "--chat"]).unwrap_err();
    assert!(refused.contains("no tokenizer.chat_template"), "{refused}");
}

/// With `--in-memory` a file is not needed once it is loaded; a mapped one would be cut off under it.
#[test]
fn weights_in_memory_outlive_their_file() {
    let file = crate::gguf_tokenizer::tests::file("llama_tied");
    let arguments = ["--prompt", "A mask", "--max-new-tokens", "9", "--in-memory"];
    let plain = generate(&file, &arguments[..4]).unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    fs::copy(file, &copy).unwrap();
    let args = parse(&copy, &arguments).unwrap();
    let source = Source::open(&copy).unwrap();
    let voice = Voice::open(&args, &source).unwrap();
    let loaded = load(source, &args, &args.backend.device("generate").unwrap()).unwrap();
    fs::File::create(&copy).unwrap();
    let mut said = Vec::new();
    voice.speak(&loaded, &args, &mut Output::new(&mut said)).unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), plain);
}

/// Learned positions end: a prompt that is longer is refused by its length.
#[test]
fn a_prompt_beyond_the_positions_is_refused() {
    let folder = folder();
    let gpt2 = Path::new(FIXTURES).join("gpt2_tiny");
    fs::copy(gpt2.join("config.json"), folder.path().join("config.json")).unwrap();
    let text = fs::read_to_string(gpt2.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let positions = config["n_positions"].as_u64().unwrap() as usize;
    let prompt = vec!["w1"; positions + 1].join(" ");
    let refused = generate(folder.path(), &["--prompt", &prompt]).unwrap_err();
    let words = format!("at most {positions} tokens");
    assert!(refused.contains(&words) && refused.contains(&format!("got {}", positions + 1)));
}

#[test]
fn arguments_are_checked_one_by_one() {
    let folder = folder();
    let refused = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["--prompt", "w1"].iter().chain(arguments).copied().collect();
        let refused = parse(folder.path(), &arguments).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        refused.to_string()
    };
    assert_eq!(parse(folder.path(), &[]).unwrap_err().exit_code(), 2);
    refused(&["--system", "w2"]);
    for (option, value, expected) in [
        ("--max-new-tokens", "0", "at least 1, got 0"),
        ("--temperature", "-1", "at least 0, got -1"),
        ("--temperature", "NaN", "at least 0, got NaN"),
        ("--temperature", "inf", "a finite number"),
        ("--temperature", "hot", "expected a number, got hot"),
        ("--top-p", "0", "above 0 and of at most 1, got 0"),
        ("--top-p", "1.5", "above 0 and of at most 1, got 1.5"),
        ("--min-p", "-0.5", "from 0 to 1, got -0.5"),
        ("--repetition-penalty", "0", "above 0"),
        ("--repetition-penalty", "1e300", "that f32 has"),
        ("--repetition-penalty", "1e-300", "that f32 has"),
        ("--tolerance", "NaN", "at least 0, got NaN"),
    ] {
        let words = refused(&[option, value]);
        assert!(words.contains(option) && words.contains(expected), "{words}");
    }
}

#[test]
fn the_last_of_an_option_counts_and_all_prompts() {
    let folder = folder();
    let twice = ["--prompt", "w1", "--chat", "--max-new-tokens", "3", "--system", "a", "--prompt"];
    let twice = [&twice[..], &["w2", "--max-new-tokens", "5", "--chat", "--system", "b"]].concat();
    let args = parse(folder.path(), &twice).unwrap();
    assert_eq!((args.max_new_tokens, args.system.as_deref()), (5, Some("b")));
    assert_eq!(args.prompt, ["w1", "w2"]);
}

/// Draws as the file says are those of the same options, and options go before it.
#[test]
fn the_generation_config_of_the_folder_is_used() {
    let folder = folder();
    let prompt = &words("input_ids")[0];
    let said = |options: &[&str]| {
        let arguments = [&["--prompt", prompt, "--max-new-tokens", "12"], options].concat();
        generate(folder.path(), &arguments).unwrap().1
    };
    let drawn = ["--temperature", "2", "--top-k", "40", "--top-p", "0.9", "--seed", "3"];
    let (greedy, drawn) = (said(&[]), said(&drawn));
    assert_ne!(greedy, drawn);
    let file = json!({ "do_sample": true, "temperature": 2.0, "top_k": 40, "top_p": 0.9 });
    fs::write(folder.path().join("generation_config.json"), file.to_string()).unwrap();
    assert_eq!(said(&["--seed", "3"]), drawn);
    assert_eq!(said(&["--temperature", "0"]), greedy);
}
