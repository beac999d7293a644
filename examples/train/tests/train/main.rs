//! The training example, run in small: what it refuses, what it keeps, what it catches, and that a
//! killed run ends as one that was not.

mod devices;
mod fine_tune;
mod killed;
mod parts;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;
use train::{Args, Failure, Verdict, run};

/// Small enough for a second.
const TINY: &str = "--layers 1 --heads 2 --d-model 16 --context 16 --batch 4 --steps 12 \
                    --validate-every 4 --warm-up 2 --valid-rows 8 --sample 8";

fn backend() -> &'static str {
    if cfg!(feature = "flex") { "flex" } else { "ndarray" }
}

/// A text of three documents with words that come again.
fn text() -> String {
    let words = ["mask", "query", "key", "value", "causal", "future", "past", "row", "head"];
    let mut state = 7_usize;
    let mut text = String::new();
    for document in 0..3 {
        if document > 0 {
            text += "<|endoftext|>";
        }
        for sentence in 0..60 {
            for _ in 0..5 {
                state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
                text += words[state / 65_536 % words.len()];
                text += if sentence % 7 == 0 { "; " } else { " " };
            }
            text += ".\n";
        }
    }
    text
}

/// A folder with a text in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    fs::write(&path, text()).unwrap();
    (folder, path)
}

fn parse(text: &Path, out: &Path, arguments: &str) -> Args {
    let arguments = arguments.split_whitespace();
    let words = ["train", text.to_str().unwrap(), "--plain", "--out", out.to_str().unwrap()];
    let mut words: Vec<&str> = words.into_iter().chain(arguments).collect();
    if !words.contains(&"--devices") {
        words.extend(["--backend", backend()]);
    }
    Args::try_parse_from(words).unwrap()
}

/// Runs the example. Gives its verdict, what it printed, and its last line, which is JSON.
fn train(text: &Path, out: &Path, arguments: &str) -> Result<(Verdict, String, Value), Failure> {
    let mut printed = Vec::new();
    let verdict = run(&parse(text, out, arguments), &mut printed)?;
    let printed = String::from_utf8(printed).unwrap();
    let json = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    Ok((verdict, printed, json))
}

/// The error of a run that must be refused as bad input.
fn refused(text: &Path, out: &Path, arguments: &str) -> String {
    let failure = train(text, out, arguments).expect_err(arguments);
    assert_eq!(failure.code(), 2, "{failure}");
    failure.to_string()
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn what_no_run_can_be_made_of_is_refused() {
    let (folder, text) = folder();
    let out = folder.path().join("run");
    for (arguments, said) in [
        ("--heads 3", "--heads: expected a number that divides --d-model 128, got 3"),
        ("--steps 0", "--steps: expected 1 to"),
        ("--validate-every 300", "--validate-every: expected a number that divides --steps 2000"),
        ("--warm-up 2000", "--warm-up: expected less than --steps 2000"),
        ("--batch 12 --accumulate 5", "--batch: expected a multiple of 5"),
        ("--learning-rate 2", "--learning-rate: expected"),
        ("--clip NaN", "--clip: expected 0 to"),
        ("--final-learning-rate 0.01", "--final-learning-rate: expected 0 to 0.001, got 0.01"),
        ("--family llama --d-model 12 --heads 4", "--d-model: expected an even number"),
        ("--family llama --dropout 0.1", "--dropout: expected 0"),
        ("--context 5000", "text: expected more than --context 5000 tokens"),
        ("--from /nowhere", "/nowhere"),
    ] {
        assert_says(&refused(&text, &out, arguments), &[said]);
    }
    let nowhere = folder.path().join("nowhere");
    assert_says(&refused(&nowhere, &out, TINY), &["nowhere", "No such file"]);
    fs::write(&nowhere, [0xff, 0xfe]).unwrap();
    assert_says(&refused(&nowhere, &out, TINY), &["expected UTF-8"]);
    for arguments in ["--layers 2 --from x", "--lora 4", "--mask none --from x"] {
        let words = ["train", "a", "--out", "b"].into_iter().chain(arguments.split_whitespace());
        assert!(Args::try_parse_from(words).is_err(), "{arguments}");
    }
}

#[test]
fn a_run_is_kept_and_gone_on_with_by_the_same_command_alone() {
    let (folder, text) = folder();
    let out = folder.path().join("deep/run");
    let (verdict, printed, json) = train(&text, &out, TINY).unwrap();
    assert_eq!(verdict, Verdict::Trained, "{printed}");
    for name in ["config.json", "generation_config.json", "model.safetensors", "outcome.json"]
        .into_iter()
        .chain(["page.html", "run.json", "tokenizer.json", "tokenizer_config.json"])
    {
        assert!(out.join(name).is_file(), "{name}");
    }
    let page = fs::read_to_string(out.join("page.html")).unwrap();
    assert_says(
        &page,
        &[
            "Curves",
            "<polyline",
            "Step 12",
            "Who influences whom",
            "causal",
            "Settings",
            "generate",
        ],
    );
    assert!(!page.contains("src=") && !page.contains("<script"), "the page is whole by itself");

    // Done is done.
    let model = fs::read(out.join("model.safetensors")).unwrap();
    let (_, _, again) = train(&text, &out, TINY).unwrap();
    assert_eq!(again, json);
    assert_eq!(fs::read(out.join("model.safetensors")).unwrap(), model);

    // It can be exported then.
    let exported = folder.path().join("exported");
    let export = format!("{TINY} --export {}", exported.display());
    train(&text, &out, &export).unwrap();
    assert_eq!(fs::read(exported.join("model.safetensors")).unwrap(), model);
    assert!(exported.join("tokenizer.json").is_file());

    let message = refused(&text, &out, &format!("{TINY} --seed 2 --clip 0.5"));
    assert_says(&message, &["other settings", "--seed: expected 1337, got 2", "--clip"]);
    let other = folder.path().join("other.txt");
    fs::write(&other, self::text().replace("mask", "musk")).unwrap();
    assert_says(&refused(&other, &out, TINY), &["expected the text", "got another"]);
    let message = refused(&text, folder.path(), TINY);
    assert_says(&message, &["expected a new or empty folder"]);
}

/// Letters that nothing but the future tells: a model learns to look there, if it can.
#[test]
fn a_training_that_sees_the_future_is_stopped_and_one_that_does_not_is_not() {
    let (folder, text) = folder();
    let letter = |place| char::from(b'a' + train::rows::draw(1, place, 12) as u8);
    fs::write(&text, (0..6000).map(letter).collect::<String>()).unwrap();
    let settings = "--layers 1 --heads 2 --d-model 32 --context 16 --batch 16 --steps 240 \
                    --validate-every 60 --warm-up 5 --learning-rate 0.01 --sample 0 --valid-rows 8";
    let causal = folder.path().join("causal");
    let (verdict, printed, _) = train(&text, &causal, settings).unwrap();
    assert_eq!(verdict, Verdict::Trained, "{printed}");

    let leaking = folder.path().join("leaking");
    let settings = format!("{settings} --mask none");
    let (verdict, printed, json) = train(&text, &leaking, &settings).unwrap();
    assert_eq!((verdict, verdict.code()), (Verdict::Leak, 3), "{printed}");
    assert_says(&printed, &["LEAK CAUGHT: the training was stopped", "nats, expected at least"]);
    assert!(json["stopped"].is_string());
    assert!(!leaking.join("model.safetensors").exists(), "no one is to speak by it");
    let page = fs::read_to_string(leaking.join("page.html")).unwrap();
    assert_says(&page, &["sees the future", "NOT CAUSAL", "#d0312d"]);
    // Asked again, it says so again.
    assert_eq!(train(&text, &leaking, &settings).unwrap().0, Verdict::Leak);
}

#[test]
fn bytes_are_tokens_too_and_llama_learns() {
    let (folder, text) = folder();
    let out = folder.path().join("run");
    let arguments = format!("{TINY} --tokens bpe --vocab 300 --family llama");
    let (verdict, printed, json) = train(&text, &out, &arguments).unwrap();
    assert_eq!(verdict, Verdict::Trained, "{printed}");
    let config: Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    // All bytes, the separator, and the merges that the small text has.
    let vocabulary = config["vocab_size"].as_u64().unwrap();
    assert!((270..=300).contains(&vocabulary), "{vocabulary}");
    // One token stands for several bytes.
    let nats = json["validation_loss"].as_f64().unwrap();
    assert!(json["bits_per_byte"].as_f64().unwrap() < 0.8 * nats / 2.0_f64.ln());
}

#[cfg(target_os = "linux")]
#[test]
fn the_run_is_kept_where_nobody_reads() {
    use std::fs::File;
    use std::process::{Command, Stdio};

    let (folder, text) = folder();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (name, stdout, stderr, code) in [
        ("closed", Stdio::piped(), Stdio::piped(), 0),
        ("full", full(), Stdio::piped(), 4),
        ("silent", Stdio::null(), full(), 0),
    ] {
        let out = folder.path().join(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_train"))
            .arg(&text)
            .arg("--out")
            .arg(&out)
            .args(["--backend", backend()])
            .args(TINY.split_whitespace())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        drop(child.stdout.take()); // closed, if it was a pipe
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{name}: {said}");
        assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{name}: {said}");
        assert!(out.join("model.safetensors").is_file(), "{name}");
    }
}
