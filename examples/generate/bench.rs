//! How fast a model reads and writes, measured as llama-bench does: a prompt of 512 tokens (pp512), and
//! 128 tokens one after the other from an empty cache (tg128).

use std::time::Instant;

use burn_decoder::decoder::LanguageModel;
use burn_decoder::generation::{Generation, GenerationConfig, Threads};
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::Failure;
use crate::output::{Output, tell};

/// A test's name, and its runs in tokens a second.
struct Test {
    name: String,
    speeds: Vec<f64>,
}

/// Measures both, and prints a table, or JSON if the arguments say so.
pub fn run(model: &LanguageModel, args: &Args, out: &mut Output) -> Result<(), Failure> {
    let (prompt, new, depth) = (args.bench_prompt, args.bench_new, args.bench_depth);
    let written = match depth {
        0 => format!("tg{new}"),
        _ => format!("tg{new} @ d{depth}"),
    };
    let tests = [
        Test::run(format!("pp{prompt}"), args.repetitions, || read(model, args))?,
        Test::run(written, args.repetitions, || write(model, args))?,
    ];
    if args.json {
        let tests: Vec<Value> = tests.iter().map(Test::json).collect();
        let report = json!({
            "model": args.model.display().to_string(),
            "backend": format!("{:?}", args.backend).to_lowercase(),
            "precision": format!("{:?}", args.precision()),
            "cache_precision": format!("{:?}", args.cache_precision),
            "in_memory": args.in_memory,
            "tests": tests,
        });
        return out.print(format_args!("{report:#}\n"));
    }
    out.print(format_args!("| test | tokens/s |\n|---|---|\n"))?;
    for test in &tests {
        let (mean, deviation) = test.mean();
        out.print(format_args!("| {} | {mean:.2} ± {deviation:.2} |\n", test.name))?;
    }
    Ok(())
}

/// Tokens that are all different, as far as there are so many: which ones does not matter.
fn prompt(model: &LanguageModel, length: usize) -> Vec<u32> {
    (0..length).map(|at| (at * 7919 % model.vocab_size()) as u32).collect()
}

/// Tokens a second of a prompt, up to its scores.
fn read(model: &LanguageModel, args: &Args) -> Result<f64, Failure> {
    let begin = Instant::now();
    for token in generation(model, args, args.bench_prompt, 1)? {
        token?;
    }
    Ok(args.bench_prompt as f64 / begin.elapsed().as_secs_f64())
}

/// Tokens a second of those that stand behind the depth and one token more.
fn write(model: &LanguageModel, args: &Args) -> Result<f64, Failure> {
    let mut begin = Instant::now();
    let tokens = generation(model, args, args.bench_depth + 1, args.bench_new + 1)?;
    for (index, token) in tokens.enumerate() {
        token?;
        if index == 0 {
            begin = Instant::now();
        }
    }
    Ok(args.bench_new as f64 / begin.elapsed().as_secs_f64())
}

/// `new` tokens behind so many.
fn generation<'a>(
    model: &'a LanguageModel,
    args: &Args,
    length: usize,
    new: usize,
) -> Result<Generation<'a>, Failure> {
    let config = GenerationConfig::new(new)
        .with_cache(Some(args.cache(length + new)))
        .with_threads(Threads::Spinning(7));
    Ok(Generation::new(model, &[prompt(model, length)], &config)?)
}

impl Test {
    /// Runs `run` once to warm up, then so many times.
    fn run(
        name: String,
        repetitions: usize,
        run: impl Fn() -> Result<f64, Failure>,
    ) -> Result<Self, Failure> {
        tell(format_args!("{name}, {repetitions} times"));
        run()?;
        let speeds = (0..repetitions).map(|_| run()).collect::<Result<_, _>>()?;
        Ok(Self { name, speeds })
    }

    /// The mean and the standard deviation.
    fn mean(&self) -> (f64, f64) {
        let count = self.speeds.len() as f64;
        let mean = self.speeds.iter().sum::<f64>() / count;
        let squares: f64 = self.speeds.iter().map(|speed| (speed - mean).powi(2)).sum();
        (mean, (squares / (count - 1.0).max(1.0)).sqrt())
    }

    fn json(&self) -> Value {
        let (mean, deviation) = self.mean();
        json!({
            "test": self.name, "tokens_per_second": mean, "deviation": deviation,
            "samples": self.speeds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf_tokenizer::tests::file;
    use crate::tests::generate;

    #[test]
    fn speeds_are_averaged() {
        let test = Test { name: "x".into(), speeds: vec![1.0, 2.0, 6.0] };
        assert_eq!(test.mean(), (3.0, 7f64.sqrt()));
        assert_eq!(Test { speeds: vec![4.0], ..test }.mean(), (4.0, 0.0));
    }

    #[test]
    fn both_are_measured() {
        let file = file("llama_tied");
        let (_, table) = generate(&file, &["--bench", "--repetitions", "1"]).unwrap();
        assert!(table.contains("| pp512 | ") && table.contains("| tg128 | "), "{table}");
        let sizes = ["--bench-prompt", "7", "--bench-new", "5", "--bench-depth", "3"];
        let options = [&["--bench", "--repetitions", "2", "--json"], &sizes[..]].concat();
        let (_, report) = generate(&file, &options).unwrap();
        let report: Value = serde_json::from_str(&report).unwrap();
        for (test, name) in report["tests"].as_array().unwrap().iter().zip(["pp7", "tg5 @ d3"]) {
            assert_eq!(test["test"], name);
            assert_eq!(test["samples"].as_array().unwrap().len(), 2);
            assert!(test["tokens_per_second"].as_f64().unwrap() > 0.0);
        }
    }
}
