//! The copy example, run in small: what it refuses, what it keeps, what it catches.

mod kept;
mod process;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use clap::Parser;
use copy::args::MaskChoice;
use copy::loss::Estimate;
use copy::task::Task;
use copy::{Args, Failure, Verdict, run};
use serde_json::Value;
use shared::Backend;

/// Small enough for a second: it learns nothing.
const TINY: &str = "--steps 2 --batch 4 --unseen 20 --d-model 8 --heads 2 --d-ff 8 --layers 1";

fn backend() -> &'static str {
    if cfg!(feature = "ndarray") { "ndarray" } else { "flex" }
}

fn device() -> Device {
    parse("").unwrap().backend.device("copy").unwrap()
}

fn parse(arguments: &str) -> Result<Args, clap::Error> {
    let backend = ["copy", "--backend", backend()];
    Args::try_parse_from(backend.into_iter().chain(arguments.split_whitespace()))
}

/// Runs the example. Gives its verdict, what it printed, and its last line, which is JSON.
fn copy(arguments: &str) -> Result<(Verdict, String, Value), Failure> {
    let mut printed = Vec::new();
    let verdict = run(parse(arguments).unwrap(), &mut printed)?;
    let printed = String::from_utf8(printed).unwrap();
    let json = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    Ok((verdict, printed, json))
}

/// The error of a run that must be refused as bad input.
fn refused(arguments: &str) -> String {
    let failure = copy(arguments).expect_err(arguments);
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
fn arguments_that_cannot_be_read_are_refused() {
    for arguments in [
        "--backend cuda",
        "--batch -1",
        "--mask look-behind",
        "--architecture encoder",
        "--seed x",
        "--learning-rate fast",
        "--prove a --out b",
        "--prove a --steps 3",
        "--nonsense",
    ] {
        let error = parse(arguments).expect_err(arguments);
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}

#[test]
fn an_option_that_is_given_twice_takes_the_last() {
    let args = parse("--steps 7 --mask none --backend wgpu --steps 8 --mask look-ahead").unwrap();
    assert_eq!(args.settings.steps, 8);
    assert_eq!(args.settings.mask, MaskChoice::LookAhead);
    assert_eq!(args.backend, Backend::Wgpu);
    assert_eq!(parse("--prove a --prove b").unwrap().prove.unwrap(), Path::new("b"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (argument, range) in [
        ("--layers 0", "1 to"),
        ("--heads 0", "1 to"),
        ("--d-model 0", "2 to"),
        ("--d-ff 0", "1 to"),
        ("--vocab 1", "2 to"),
        ("--min-source 1", "2 to"),
        ("--max-source 1000000", "2 to"),
        ("--steps 0", "1 to"),
        ("--batch 0", "1 to"),
        ("--unseen 0", "1 to"),
        ("--learning-rate 0", "above 0"),
        ("--learning-rate NaN", "above 0"),
        ("--learning-rate 2", "at most 1"),
    ] {
        let (name, value) = argument.split_once(' ').unwrap();
        assert_says(&refused(argument), &[name, range, &format!("got {value}")]);
    }
}

#[test]
fn arguments_that_do_not_fit_each_other_are_refused() {
    assert_says(&refused("--heads 3"), &["--heads", "divides --d-model 64", "got 3"]);
    assert_says(&refused("--d-model 63 --heads 7"), &["--d-model", "even", "got 63"]);
    let message = refused("--min-source 9 --max-source 8");
    assert_says(&message, &["--min-source", "at most --max-source 8", "got 9"]);
    let message = refused("--vocab 2 --min-source 2 --max-source 3");
    assert_says(&message, &["different strings", "--unseen", "raise --vocab"]);
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_backend_that_is_not_compiled_in_is_refused() {
    let args = Args::try_parse_from(["copy", "--backend", "wgpu"]).unwrap();
    let failure = run(args, &mut Vec::new()).unwrap_err();
    assert_eq!(failure.code(), 2);
    assert_says(&failure.to_string(), &["compiled in", "got wgpu", "--features wgpu"]);
}

#[test]
fn a_text_that_cannot_be_copied_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        format!("{TINY} --text {}", path.display())
    };
    assert_says(&refused("--text /nowhere/text"), &["--text /nowhere/text", "No such file"]);
    let message = refused(&format!("--text {}", folder.path().display()));
    assert_says(&message, &["--text", "directory"]);
    assert_says(&refused(&text("empty", b"")), &["at least 128 bytes", "got 0"]);
    assert_says(&refused(&text("short", &[7; 100])), &["at least 128 bytes", "got 100"]);
    assert_says(&refused(&text("same", &[7; 1000])), &["two different bytes"]);
    assert_says(&refused(&text("dull", &b"ab".repeat(500))), &["repeats itself less"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    // Training would take hours.
    let long = "--steps 1000000";
    let message = refused(&format!("{long} --out {}", folder.path().display()));
    assert_says(&message, &["--out", "empty folder"]);
    assert_says(&refused(&format!("{long} --out {}", file.display())), &["--out", "file"]);
    let below = file.join("run");
    assert_says(&refused(&format!("{long} --out {}", below.display())), &["--out"]);
    assert_says(&refused(&format!("{long} --out /proc/run")), &["--out: cannot write to /proc"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn a_run_is_kept_whole_and_proved_again() {
    for architecture in ["decoder-only", "cross"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/run");
        let out = out.display();
        let (verdict, printed, trained) =
            copy(&format!("{TINY} --architecture {architecture} --out {out}")).unwrap();
        assert_eq!(verdict, Verdict::NotProved, "{printed}");

        let mut expected = vec!["attention_1.svg", "config.json", "history.csv", "loss.svg"];
        expected.extend(["mask.svg", "model.bpk"]);
        if architecture == "cross" {
            expected.insert(2, "cross_attention_1.svg");
        }
        assert_eq!(names(&folder.path().join("deep/run")), expected);
        assert_eq!(names(&folder.path().join("deep")), ["run"]);

        let (_, _, proved) = copy(&format!("--prove {out}")).unwrap();
        for part in ["settings", "exact_copies", "copied_half", "first_half", "checks"] {
            assert_eq!(proved[part], trained[part], "{part}");
        }
    }
}

#[test]
fn a_wrong_config_or_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    copy(&format!("{TINY} --out {}", run.display())).unwrap();
    let prove = format!("--prove {}", run.display());
    let config = fs::read_to_string(run.join("config.json")).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_str(&config).unwrap();
        change(&mut json);
        fs::write(run.join("config.json"), json.to_string()).unwrap();
        refused(&prove)
    };
    let message = with(&|json| drop(json["settings"].as_object_mut().unwrap().remove("heads")));
    assert_says(&message, &["config.json", "missing field `heads`"]);
    let message = with(&|json| json["settings"]["heads"] = "two".into());
    assert_says(&message, &["config.json", "invalid type"]);
    let message = with(&|json| json["settings"]["hats"] = 2.into());
    assert_says(&message, &["config.json", "unknown field `hats`"]);
    // Each value is possible, but not the one that the model was made with.
    let message = with(&|json| json["settings"]["heads"] = 0.into());
    assert_says(&message, &["config.json", "heads"]);
    let message = with(&|json| json["settings"]["vocab"] = 7.into());
    assert_says(&message, &["config.json", "the same model"]);

    fs::write(run.join("config.json"), &config).unwrap();
    let record = fs::read(run.join("model.bpk")).unwrap();
    fs::write(run.join("model.bpk"), &record[..record.len() / 2]).unwrap();
    assert_says(&refused(&prove), &["model.bpk"]);
    fs::write(run.join("model.bpk"), "not a record").unwrap();
    assert_says(&refused(&prove), &["model.bpk"]);
    fs::remove_file(run.join("model.bpk")).unwrap();
    assert_says(&refused(&prove), &["model.bpk"]);
    assert_says(&refused("--prove /nowhere"), &["/nowhere/config.json", "No such file"]);
}

/// Small, but it has the time to see what it is not to see.
const SMALL: &str = "--batch 16 --unseen 50 --d-model 16 --heads 2 --d-ff 32 \
                     --vocab 16 --learning-rate 0.01";

#[test]
fn a_model_without_the_mask_is_caught_and_one_with_it_is_not() {
    for architecture in ["decoder-only", "cross"] {
        let arguments = format!("{SMALL} --steps 60 --architecture {architecture}");
        let (verdict, printed, json) = copy(&arguments).unwrap();
        assert_eq!(verdict, Verdict::NotProved, "{printed}");
        assert_eq!(json["stopped"], Value::Null, "{printed}");

        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let leaking = format!("{arguments} --mask none --out {}", out.display());
        let proved = format!("--prove {}", out.display());
        for arguments in [leaking, proved] {
            let (verdict, printed, json) = copy(&arguments).unwrap();
            assert_eq!(verdict, Verdict::Leak, "{printed}");
            assert_says(
                &printed,
                &["LEAK CAUGHT", "first leak at query 0, from key 1: mask missing"],
            );
            for check in 0..3 {
                let leak = &json["checks"][check]["first"];
                assert_eq!((leak["query"].as_u64(), leak["key"].as_u64()), (Some(0), Some(1)));
            }
        }
    }
}

/// Each token of the first half is seen before it is to be predicted; the alarm tells as soon as the
/// model has learned to look there.
#[test]
fn a_training_that_sees_the_future_is_stopped() {
    let (verdict, printed, json) = copy(&format!("{SMALL} --steps 600 --mask none")).unwrap();
    assert_eq!(verdict, Verdict::Leak, "{printed}");
    assert_says(&printed, &["training was stopped at step", "nats, expected at least 2.7726"]);
    let step = json["stopped"]["step"].as_u64().unwrap();
    assert!((10..300).contains(&step), "stopped at step {step}");
    assert!(json["below_floor"].is_string(), "{printed}");
}

#[test]
fn a_text_is_copied_by_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    fs::write(&path, include_str!("main.rs")).unwrap();
    let (verdict, printed, _) = copy(&format!("{TINY} --text {}", path.display())).unwrap();
    assert_eq!(verdict, Verdict::NotProved, "{printed}");
    assert_says(&printed, &["loss of the first half, on noise"]);
}

#[test]
fn what_is_left_out_can_be_known_beforehand() {
    let task = |architecture: &str| {
        let sizes = "--vocab 4 --min-source 3 --max-source 3 --unseen 16 --batch 2";
        let args = parse(&format!("{sizes} --architecture {architecture}")).unwrap();
        Task::new(&args.settings).unwrap()
    };
    let mut copied = task("decoder-only");
    let samples = copied.training_batch(2).unwrap();
    // 48 of the 64 strings are left, each of them as likely.
    let known = 2.0 * (64.0_f64 / 48.0).ln();
    assert!((copied.known_beforehand(&samples) - known).abs() < 1e-12);
    assert_eq!(task("cross").known_beforehand(&samples), 0.0);
}

#[test]
fn an_estimate_is_the_mean_and_its_standard_error() {
    let estimate = Estimate::of(&[1.0, 2.0, 3.0, 6.0]);
    assert_eq!(estimate.mean, 3.0);
    // variance (4 + 1 + 0 + 9) / 3, over 4 values
    assert!((estimate.standard_error - (14.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
}

#[test]
fn a_text_that_was_changed_is_no_longer_proved() {
    let folder = tempfile::tempdir().unwrap();
    let [path, run] = ["text", "run"].map(|name| folder.path().join(name));
    let text = include_str!("main.rs");
    fs::write(&path, text).unwrap();
    copy(&format!("{TINY} --text {} --out {}", path.display(), run.display())).unwrap();
    let prove = format!("--prove {}", run.display());
    copy(&prove).unwrap();

    // The same length, and yet what was unseen is now what was trained on.
    let half = text.len() / 2;
    let turned = [&text.as_bytes()[half..], &text.as_bytes()[..half]].concat();
    fs::write(&path, turned).unwrap();
    assert_says(&refused(&prove), &["--text", "the text of the training", "got another"]);
    fs::write(&path, text).unwrap();
    copy(&prove).unwrap();

    // A run from before there was a checksum.
    let config = run.join("config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("text").is_some());
    fs::write(&config, json.to_string()).unwrap();
    copy(&prove).unwrap();
}

/// The files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
