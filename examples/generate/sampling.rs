//! How tokens are chosen: as the command line says, else as `generation_config.json` says, else the
//! likeliest always.
//!
//! As in transformers, `do_sample` of the file says whether its temperature is used, and its top_k,
//! top_p and min_p count whenever tokens are drawn. Unlike there, a file without top_k means no
//! top-k, not 50.

use std::path::Path;

use burn_decoder::generation::SamplingConfig;
use serde_json::{Map, Value};

use crate::args::{Args, number};
use crate::failure::Failure;
use crate::files;

const FILE: &str = "generation_config.json";

/// The settings of a run, and which of them the file said.
pub struct Sampling {
    /// How tokens are chosen.
    pub config: SamplingConfig,
    /// What is taken from the file, in words.
    pub from_file: Vec<String>,
    /// What the file says and this program does not do.
    pub not_taken: Vec<String>,
}

/// Settings of transformers that change what is written, and the value at which they do not.
const OTHERS: [(&str, f64); 17] = [
    ("bad_words_ids", 0.0),
    ("begin_suppress_tokens", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("exponential_decay_length_penalty", 0.0),
    ("forced_bos_token_id", -1.0),
    ("forced_eos_token_id", -1.0),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("num_beams", 1.0),
    ("sequence_bias", 0.0),
    ("suppress_tokens", 0.0),
    ("typical_p", 1.0),
];

impl Sampling {
    /// Reads the file of the model's folder, if there is one.
    pub fn read(args: &Args) -> Result<Self, Failure> {
        let path = args.model.join(FILE);
        let values = files::object(&path)?;
        let not_taken = not_taken(&values);
        let mut file = File { path: &path, values, used: Vec::new() };
        let penalty = match args.repetition_penalty {
            Some(penalty) => penalty,
            None => file.number("repetition_penalty", 1.0, number::penalty)?.unwrap_or(1.0),
        };
        let config = SamplingConfig::new().with_repetition_penalty(penalty).with_seed(args.seed);
        let temperature = match args.temperature {
            Some(temperature) => temperature,
            None if file.flag("do_sample")? => {
                let temperature = file.number("temperature", f64::NAN, number::temperature)?;
                if temperature.is_none() {
                    file.used.push("do_sample".into());
                }
                temperature.unwrap_or(1.0)
            }
            None => 0.0,
        };
        if temperature == 0.0 {
            Self::check_greedy(args)?;
            return Ok(Self { config, from_file: file.used, not_taken });
        }
        // The numbers behind the names mean: off.
        let top_k = match args.top_k {
            Some(top_k) => Some(top_k),
            None => file.number("top_k", 0.0, number::count)?.map(|top_k| top_k as usize),
        };
        let top_p = match args.top_p {
            Some(top_p) => Some(top_p),
            None => file.number("top_p", 1.0, number::top_p)?,
        };
        let min_p = match args.min_p {
            Some(min_p) => Some(min_p),
            None => file.number("min_p", 0.0, number::min_p)?,
        };
        let config = config
            .with_temperature(Some(temperature))
            .with_top_k(top_k.filter(|&top_k| top_k > 0))
            .with_top_p(top_p.filter(|&top_p| top_p < 1.0))
            .with_min_p(min_p.filter(|&min_p| min_p > 0.0));
        Ok(Self { config, from_file: file.used, not_taken })
    }

    /// An error for a cut that nobody would see: the likeliest token is never cut off. With
    /// `--temperature 0` the user said so.
    fn check_greedy(args: &Args) -> Result<(), Failure> {
        let cuts = [
            ("--top-k", args.top_k.filter(|&top_k| top_k > 0).map(|top_k| top_k.to_string())),
            ("--top-p", args.top_p.filter(|&top_p| top_p < 1.0).map(|top_p| top_p.to_string())),
            ("--min-p", args.min_p.filter(|&min_p| min_p > 0.0).map(|min_p| min_p.to_string())),
        ];
        let cut = cuts.into_iter().find_map(|(name, value)| Some((name, value?)));
        match cut {
            Some((name, value)) if args.temperature.is_none() => Err(format!(
                "{name} {value}: expected --temperature beside it (1 leaves the probabilities as \
                 they are), got none, and {FILE} does not say do_sample: the likeliest token is \
                 never cut off"
            )
            .into()),
            _ => Ok(()),
        }
    }
}

/// What the file says of [`OTHERS`].
fn not_taken(values: &Map<String, Value>) -> Vec<String> {
    let says = |&(name, off): &(&str, f64)| {
        let value = values.get(name)?;
        let nothing = match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            other => other.as_f64() == Some(off),
        };
        (!nothing).then(|| format!("{name} {value}"))
    };
    OTHERS.iter().filter_map(says).collect()
}

/// `generation_config.json`, and what was taken from it.
struct File<'a> {
    path: &'a Path,
    values: Map<String, Value>,
    used: Vec<String>,
}

impl File<'_> {
    /// A number, which is as good as not there if it is `off`. `check` gives what else it must be.
    fn number(
        &mut self,
        name: &str,
        off: f64,
        check: fn(f64) -> Result<f64, String>,
    ) -> Result<Option<f64>, Failure> {
        let value = match self.values.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let refuse = |expected: String| format!("{}: {name}: {expected}", self.path.display());
        let number = value.as_f64();
        let number = number.ok_or_else(|| refuse(format!("expected a number, got {value}")))?;
        let number = check(number).map_err(refuse)?;
        if number == off {
            return Ok(None);
        }
        self.used.push(format!("{name} {number}"));
        Ok(Some(number))
    }

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => {
                let path = self.path.display();
                Err(format!("{path}: {name}: expected true or false, got {other}").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::tests::parse;

    /// The settings that a folder with this file and these options give, or why not.
    fn read(file: Value, options: &[&str]) -> Result<Sampling, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), file.to_string()).unwrap();
        let options: Vec<&str> = ["--prompt", "w1"].iter().chain(options).copied().collect();
        Sampling::read(&parse(folder.path(), &options).unwrap()).map_err(|error| error.to_string())
    }

    fn config(file: Value, options: &[&str]) -> SamplingConfig {
        read(file, options).unwrap().config
    }

    #[test]
    fn the_file_says_what_no_option_says() {
        let file = json!({ "do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95,
            "min_p": 0.01, "repetition_penalty": 1.05 });
        let by_the_file = SamplingConfig::at_temperature(0.6)
            .with_top_k(Some(20))
            .with_top_p(Some(0.95))
            .with_min_p(Some(0.01))
            .with_repetition_penalty(1.05);
        let read = read(file.clone(), &[]).unwrap();
        assert_eq!(read.config, by_the_file);
        let told = "repetition_penalty 1.05, temperature 0.6, top_k 20, top_p 0.95, min_p 0.01";
        assert_eq!(read.from_file.join(", "), told);
        let options = ["--temperature", "2", "--top-k", "3", "--top-p", "0.5", "--min-p", "0.25"];
        let options = [&options[..], &["--repetition-penalty", "1"]].concat();
        let by_options = SamplingConfig::at_temperature(2.0)
            .with_top_k(Some(3))
            .with_top_p(Some(0.5))
            .with_min_p(Some(0.25));
        let read = self::read(file, &options).unwrap();
        assert_eq!(read.config, by_options);
        assert!(read.from_file.is_empty());
    }

    #[test]
    fn nothing_is_drawn_unless_the_file_or_an_option_says_so() {
        let greedy = SamplingConfig::greedy();
        let cuts = json!({ "temperature": 0.6, "top_k": 20, "top_p": 0.95 });
        assert_eq!(config(json!({}), &[]), greedy);
        assert_eq!(config(cuts.clone(), &[]), greedy);
        assert_eq!(config(json!({ "do_sample": false, "temperature": 0.6 }), &[]), greedy);
        assert_eq!(config(json!({ "do_sample": null, "temperature": null }), &[]), greedy);
        assert_eq!(config(json!({ "do_sample": true }), &[]), SamplingConfig::at_temperature(1.0));
        assert_eq!(read(json!({ "do_sample": true }), &[]).unwrap().from_file, ["do_sample"]);
        let drawn = SamplingConfig::at_temperature(0.5).with_top_k(Some(20)).with_top_p(Some(0.95));
        assert_eq!(config(cuts, &["--temperature", "0.5"]), drawn);
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let file = json!({ "do_sample": true, "temperature": 0.6, "top_k": 20 });
        let greedy = SamplingConfig::greedy();
        assert_eq!(config(file.clone(), &["--temperature", "0"]), greedy);
        assert_eq!(config(file, &["--temperature", "0", "--top-k", "3"]), greedy);
        assert_eq!(config(json!({ "do_sample": true, "temperature": 0.0 }), &[]), greedy);
    }

    #[test]
    fn numbers_that_cut_nothing_mean_off() {
        let file = json!({ "do_sample": true, "top_k": 20, "top_p": 0.95, "min_p": 0.1 });
        let off = ["--top-k", "0", "--top-p", "1", "--min-p", "0"];
        assert_eq!(config(file, &off), SamplingConfig::at_temperature(1.0));
        assert_eq!(config(json!({}), &off), SamplingConfig::greedy());
        let file = json!({ "do_sample": true, "top_k": 0, "top_p": 1.0, "min_p": null });
        assert_eq!(config(file, &[]), SamplingConfig::at_temperature(1.0));
    }

    #[test]
    fn the_last_of_an_option_counts() {
        let options = ["--temperature", "2", "--top-k", "3", "--top-k", "4", "--temperature", "1"];
        let last = SamplingConfig::at_temperature(1.0).with_top_k(Some(4));
        assert_eq!(config(json!({}), &options), last);
    }

    #[test]
    fn a_cut_that_nobody_would_see_is_refused() {
        for option in ["--top-k", "--top-p", "--min-p"] {
            let value = if option == "--top-k" { "3" } else { "0.5" };
            let refused = read(json!({}), &[option, value]).err().unwrap();
            assert!(refused.contains(option) && refused.contains("--temperature"), "{refused}");
        }
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_by_its_field() {
        for (field, value) in [
            ("temperature", json!("hot")),
            ("temperature", json!(-1)),
            ("top_k", json!(-1)),
            ("top_k", json!(1.5)),
            ("top_p", json!(0)),
            ("top_p", json!(1.5)),
            ("min_p", json!(2)),
            ("repetition_penalty", json!(1e300)),
            ("repetition_penalty", json!(0)),
            ("do_sample", json!("yes")),
        ] {
            let mut file = json!({ "do_sample": true });
            file[field] = value;
            let refused = read(file, &[]).err().unwrap();
            for word in [FILE, field, "expected", "got"] {
                assert!(refused.contains(word), "{word} is missing in {refused}");
            }
        }
        let refused = read(json!([]), &[]).err().unwrap();
        assert!(refused.contains(FILE) && refused.contains("JSON object"), "{refused}");
    }

    #[test]
    fn what_is_not_taken_is_told() {
        let file = json!({ "num_beams": 4, "no_repeat_ngram_size": 0, "typical_p": 1.0,
            "suppress_tokens": [1], "bad_words_ids": [], "min_length": null });
        let told = ["num_beams 4", "suppress_tokens [1]"];
        assert_eq!(read(file, &[]).unwrap().not_taken, told);
    }
}
