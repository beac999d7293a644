//! Killed at any moment and started again, a run ends as one that was not, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{assert_says, backend, folder};

/// With dropout, so that random numbers matter, and all that burn-train keeps in memory.
const SETTINGS: &str = "--layers 1 --heads 2 --d-model 32 --context 16 --batch 8 --steps 240 \
                        --validate-every 20 --warm-up 30 --valid-rows 8 --sample 4 --dropout 0.2 \
                        --accumulate 2 --patience 9 --learning-rate 0.01";

/// All that the run measured and learned.
fn learned(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![run.join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !["Noise_loss.log", "Learning_Rate.log"]
                .iter()
                .any(|name| path.ends_with(name))
            {
                // Each process draws noise of its own. And of a step in several passes burn-train
                // logs the rate of the step before until the last, which a new process has not seen.
                let name = path.strip_prefix(run).unwrap().display().to_string();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    for name in ["model.safetensors", "outcome.json"] {
        files.insert(name.into(), fs::read(run.join(name)).unwrap());
    }
    files
}

#[track_caller]
fn assert_same(got: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(expected));
    for (name, bytes) in expected {
        assert!(got[name] == *bytes, "{name} differs");
    }
}

fn start(text: &Path, out: &Path) -> Child {
    start_with(SETTINGS, text, out)
}

/// In a process of its own: Burn's random numbers are one stream for all that trains in a process.
fn start_with(settings: &str, text: &Path, out: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_train"))
        .arg(text)
        .arg("--out")
        .arg(out)
        .args(["--backend", backend()])
        .args(settings.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_random_moments_it_ends_the_same() {
    let (folder, text) = folder();
    let whole = folder.path().join("whole");
    assert_eq!(start(&text, &whole).wait_with_output().unwrap().status.code(), Some(0));
    let expected = learned(&whole);

    // Some milliseconds behind the begin of an epoch: while it trains, validates, saves, or, where an
    // earlier process has come further, while it starts. How far it comes is for the machine to say.
    let out = folder.path().join("killed");
    let mut kills = 0;
    for (epoch, milliseconds) in [(1, 0), (1, 90), (2, 7), (3, 31), (4, 2), (6, 55), (7, 17)] {
        let mut child = start(&text, &out);
        let begun = out.join(format!("logs/train/epoch-{epoch}"));
        while !begun.is_dir() && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(milliseconds));
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill(); // SIGKILL
        let _ = child.wait_with_output().unwrap();
    }

    let last = start(&text, &out).wait_with_output().unwrap();
    let said = String::from_utf8(last.stderr).unwrap();
    assert_eq!(last.status.code(), Some(0), "{said}");
    assert!(kills >= 1, "no run was killed");
    assert_same(&learned(&out), &expected);
}

#[test]
fn a_checkpoint_that_is_cut_short_is_refused_and_the_one_before_is_taken() {
    let (folder, text) = folder();
    let run = folder.path().join("run");
    let settings = SETTINGS.replace("--steps 240", "--steps 80");
    let again = || {
        let output = start_with(&settings, &text, &run).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        learned(&run)
    };
    let expected = again();
    let undo = || {
        for name in ["outcome.json", "model.safetensors", "page.html"] {
            fs::remove_file(run.join(name)).unwrap();
        }
    };
    let file = |name: &str| run.join("checkpoints").join(name);

    // As if it had been killed behind the last checkpoint: nothing is left but to conclude.
    undo();
    assert_same(&again(), &expected);

    for damage in ["optimizer-4.bpk", "model-4.bpk", "schedule-4.bpk", "4.json"] {
        undo();
        let bytes = fs::read(file(damage)).unwrap();
        fs::write(file(damage), &bytes[..bytes.len() / 2]).unwrap();
        assert_same(&again(), &expected);
    }

    // A changed bit is as bad as a missing one.
    undo();
    let mut bytes = fs::read(file("model-4.bpk")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file("model-4.bpk"), bytes).unwrap();
    let refused = std::cell::RefCell::new(Vec::new());
    let all = train::checkpoints::Checkpoints::open(&run.join("checkpoints"), false).unwrap();
    let taken = all.newest(|why| refused.borrow_mut().push(why));
    assert_eq!(taken, Some(3));
    assert_says(&refused.borrow()[0], &["checkpoint 4 is refused", "model-4.bpk", "CRC-32"]);

    // Without any it begins anew.
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    assert_same(&again(), &expected);
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let (folder, text) = folder();
    let out = folder.path().join("run");
    let mut first = start(&text, &out);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !out.join("logs").is_dir() && Instant::now() < deadline {
        sleep(Duration::from_millis(2));
    }
    let second = start(&text, &out).wait_with_output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    let first_code = first.try_wait().unwrap();
    let _ = first.kill();
    let _ = first.wait();
    if first_code.is_none() {
        assert_eq!(second.status.code(), Some(2), "{said}");
        assert_says(&said, &["another process trains here"]);
    }
}
