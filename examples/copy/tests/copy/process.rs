//! The program itself: how it ends when nobody reads what it says.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::{TINY, backend};

/// Runs the program and keeps the run in the folder.
fn copy(stdout: Stdio, stderr: Stdio, out: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_copy"))
        .args(["--backend", backend()])
        .args(TINY.split_whitespace())
        .arg("--out")
        .arg(out)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    drop(child.stdout.take()); // closed, if it was a pipe
    child.wait_with_output().unwrap()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn the_run_is_kept_and_told_by_the_exit_code_alone_where_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    for (name, stdout, stderr, code) in [
        ("closed", Stdio::piped(), Stdio::piped(), 1),
        ("full", full(), Stdio::piped(), 4),
        ("silent", Stdio::null(), full(), 1),
    ] {
        let ended = copy(stdout, stderr, &out(name));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{name}: {said}");
        assert_eq!(said.contains("standard output: No space left"), code == 4, "{name}: {said}");
        assert!(!said.contains("panicked") && !said.contains("Broken pipe"), "{name}: {said}");
        assert!(fs::exists(out(name).join("model.bpk")).unwrap(), "{name}");
    }
}
