//! The two programs, on runs of the copy example that learned nothing: what they find, what they
//! refuse, and how they end when nobody reads.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Parser;
use copy::{Args, run};
use tempfile::TempDir;

fn backend() -> &'static str {
    if cfg!(feature = "ndarray") { "ndarray" } else { "flex" }
}

/// A run of the copy example, with an exit code of 0 from `check`, or of 3 without the mask.
fn kept_run(mask: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sizes = "--steps 2 --batch 4 --unseen 20 --d-model 8 --heads 2 --d-ff 8 --layers 1";
    let out = folder.path().join("run");
    let arguments =
        format!("copy --backend {} {sizes} --mask {mask} --out {}", backend(), out.display());
    run(Args::parse_from(arguments.split_whitespace()), &mut Vec::new()).unwrap();
    folder
}

fn check(folder: &TempDir, arguments: &[&str], stdout: Stdio) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    command.current_dir(folder).arg("run").args(["--backend", backend()]).args(arguments);
    ended(command.stdout(stdout))
}

/// Its exit code, and what it wrote to standard output and to standard error.
fn ended(command: &mut Command) -> (i32, String, String) {
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_run_with_the_mask_is_causal_and_one_without_it_is_not() {
    for (mask, code, word) in [("look-ahead", 0, "causal: no leak found"), ("none", 3, "leak")] {
        let folder = kept_run(mask);
        let files = ["--svg", "influence.svg", "--json", "report.json", "--length", "6"];
        let (ended, said, error) = check(&folder, &files, Stdio::piped());
        assert_eq!(ended, code, "{said}{error}");
        assert!(said.contains(word), "{said}");
        assert!(said.contains("From tokens") && said.contains("From embeddings"), "{said}");
        let svg = fs::read_to_string(folder.path().join("influence.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let report = fs::read_to_string(folder.path().join("report.json")).unwrap();
        assert!(report.starts_with('{') && report.ends_with('}'));
    }
}

#[test]
fn bad_input_is_told_before_the_checks() {
    let folder = kept_run("look-ahead");
    fs::create_dir(folder.path().join("place")).unwrap();
    for (arguments, words) in [
        (&["--svg", "nowhere/influence.svg"], ["nowhere/influence.svg", "No such file"]),
        (&["--json", "place"], ["place", "directory"]),
        (&["--json", "run/model.bpk/x"], ["run/model.bpk/x", "Not a directory"]),
        (&["--length", "1"], ["--length", "1"]),
        (&["--backend", "cuda"], ["--backend", "cuda"]),
    ] {
        let (code, said, error) = check(&folder, arguments, Stdio::piped());
        assert_eq!((code, said.as_str()), (2, ""), "{error}");
        for word in words {
            assert!(error.contains(word), "{word:?} is not in {error:?}");
        }
    }
    fs::remove_file(folder.path().join("run/model.bpk")).unwrap();
    let (code, _, error) = check(&folder, &[], Stdio::piped());
    assert_eq!(code, 2);
    assert!(error.contains("model.bpk"), "{error}");
}

#[test]
fn an_option_that_is_given_twice_takes_the_last() {
    let folder = kept_run("look-ahead");
    let (_, four, _) = check(&folder, &["--length", "4"], Stdio::piped());
    let twice = ["--length", "9", "--backend", "cuda", "--length", "4"];
    assert_eq!(check(&folder, &twice, Stdio::piped()).0, 2); // no value may be wrong, taken or not
    let twice = ["--length", "9", "--backend", backend(), "--length", "4"];
    let (code, said, error) = check(&folder, &twice, Stdio::piped());
    assert_eq!((code, said), (0, four), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_files_are_written_and_the_exit_code_tells_the_rest_where_nobody_reads() {
    let folder = kept_run("none");
    let full = || File::options().write(true).open("/dev/full").unwrap().into();
    let closed = || std::io::pipe().unwrap().1.into(); // its reader is gone
    let there = |name: &str| folder.path().join(name).exists();
    let (code, _, error) = check(&folder, &["--length", "4", "--svg", "closed.svg"], closed());
    assert_eq!(code, 3, "{error}");
    assert!(!error.contains("panicked") && !error.contains("error"), "{error}");
    let (code, _, error) = check(&folder, &["--length", "4", "--svg", "full.svg"], full());
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("standard output: No space left"), "{error}");
    assert!(there("closed.svg") && there("full.svg"));
    // A device is no file to be replaced.
    let (code, said, _) = check(&folder, &["--length", "4", "--json", "/dev/stdout"], full());
    assert_eq!((code, said.as_str()), (4, ""));
    assert!(!fs::symlink_metadata("/dev/full").unwrap().is_file());
}

#[test]
fn burn_nns_decoder_is_judged_as_it_is() {
    let program = env!("CARGO_BIN_EXE_check_burn_nn");
    let run = |arguments: &[&str]| {
        ended(
            Command::new(program)
                .args(arguments)
                .stdout(Stdio::piped())
                .current_dir(Path::new("/")),
        )
    };
    let (code, said, error) = run(&["--backend", "wgpu", "--backend", backend()]);
    assert_eq!(code, 0, "{said}{error}");
    for title in ["with its look-ahead mask", "with the mask forgotten", "with left padding"] {
        assert!(said.contains(title), "{said}");
    }
    assert_eq!(run(&["--backend", "cuda"]).0, 2);
}

#[test]
fn the_device_is_verified() {
    let run = |arguments: &[&str], stdout: Stdio| {
        ended(Command::new(env!("CARGO_BIN_EXE_verify")).args(arguments).stdout(stdout))
    };
    let (code, said, error) = run(&["--device", backend()], Stdio::piped());
    assert_eq!(code, 0, "{said}{error}");
    for kernel in ["fused", "reference", "backend"] {
        assert!(said.lines().any(|line| line.starts_with(kernel)), "{said}");
    }
    assert!(said.lines().last().is_some_and(|line| line.starts_with("all ")), "{said}");
    assert_eq!(run(&["--backend", "cuda"], Stdio::piped()).0, 2);
}
