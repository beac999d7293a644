//! The most memory that a piece of work holds, measured in a process of its own.

use std::process::Command;

/// Set in the process that is measured, to what it computes.
const CASE: &str = "BURN_DECODER_TEST_MEASURED";

/// What the work held at most, in bytes, and what it gave.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    pub bytes: usize,
    pub numbers: Vec<f64>,
}

/// What this process is to compute, if it is one that is measured.
pub fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Begins to measure: everything that the process holds counts from here on.
pub fn begin() {
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
}

/// Ends it, and tells the process that asked.
pub fn end(numbers: impl FnOnce() -> Vec<f64>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let bytes = line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10;
    let measured = Measured { bytes, numbers: numbers() };
    println!("MEASURED {}", serde_json::to_string(&measured).unwrap());
}

/// Runs `test` (its full name) in a process of its own, which sees `case`.
pub fn measure(test: &str, case: &str) -> Measured {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(CASE, case)
        // What glibc keeps for each thread differs from run to run by more than what is looked for.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    let line = output.lines().find_map(|line| line.split_once("MEASURED "));
    let (_, measured) = line.unwrap_or_else(|| panic!("nothing measured: {output}{errors}"));
    serde_json::from_str(measured).unwrap()
}

/// The largest difference of two lists, and the largest number of the second.
pub fn difference(got: &[f64], expected: &[f64]) -> [f64; 2] {
    assert_eq!(got.len(), expected.len());
    let largest =
        |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, |m, x| f64::max(m, x.abs()));
    [
        largest(&mut got.iter().zip(expected).map(|(a, b)| a - b)),
        largest(&mut expected.iter().copied()),
    ]
}
