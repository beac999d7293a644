//! Rotary positions that are stretched: by keys, or by a factor for each frequency.

use std::f64::consts::PI;

use serde_json::{Value as Json, json};

use super::architecture::Reading;
use super::names::ROPE_FACTORS;
use super::value::Value;
use crate::{Error, Result};

/// What Llama 3.1 and its successors have: turns within a context that is short of that length.
const LLAMA_3: (f64, f64, usize) = (1.0, 4.0, 8192);

/// How close the factors must come that were found: the file has them in f32.
const TOLERANCE: f64 = 1e-5;

/// `rope_scaling`, as `config.json` would have it.
pub fn scaling(reading: &Reading) -> Result<Option<Json>> {
    let keys = reading.keys;
    let key = |rest: &str| reading.key(&format!("rope.scaling.{rest}"));
    // A record of how a model was made.
    keys.get(&key("finetuned"));
    let kind = match keys.find_text(&key("type"))? {
        None | Some("none") => None,
        Some(kind @ ("linear" | "yarn")) => Some(kind),
        Some(_) => return keys.refuse(&key("type"), "one of none, linear, yarn"),
    };
    // The older name of the factor of linear scaling.
    let old = keys.find_number(&reading.key("rope.scale_linear"))?.filter(|factor| *factor != 1.0);
    let factor = keys.find_number(&key("factor"))?.filter(|factor| *factor != 0.0).or(old);
    let context = keys.find_size(&key("original_context_length"))?;
    if let Some(factors) = &reading.rope_factors {
        if kind.is_some() || old.is_some() {
            return keys.refuse(&key("type"), format!("none beside {ROPE_FACTORS}"));
        }
        return from_factors(reading, factors, context);
    }
    let one = |value: Value| matches!(value, Value::Float(1.0));
    Ok(match (kind, factor) {
        (None, None) => None,
        (None, Some(factor)) if old.is_some() => Some(linear(factor)),
        (None, Some(_)) => return keys.refuse(&key("type"), "linear or yarn beside a factor"),
        (Some("linear"), _) => {
            let Some(factor) = factor else { return keys.refuse(&key("factor"), "a number") };
            Some(linear(factor))
        }
        (Some(_), _) => {
            let Some(factor) = factor else { return keys.refuse(&key("factor"), "a number") };
            let mut block = json!({ "rope_type": "yarn", "factor": factor });
            // Multiply what yarn multiplies already.
            for name in ["attn_factor", "yarn_attn_factor", "yarn_ext_factor"] {
                keys.require(&key(name), "1", one)?;
            }
            for (name, theirs) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")]
            {
                if let Some(number) = keys.find_number(&key(name))? {
                    block[theirs] = number.into();
                }
            }
            if let Some(context) = context {
                block["original_max_position_embeddings"] = context.into();
            }
            Some(block)
        }
    })
}

fn linear(factor: f64) -> Json {
    json!({ "rope_type": "linear", "factor": factor })
}

/// The scaling of Llama 3 whose frequencies are divided by these factors.
fn from_factors(
    reading: &Reading,
    factors: &[f32],
    context: Option<usize>,
) -> Result<Option<Json>> {
    let base = reading.keys.find_number(&reading.key("rope.freq_base"))?.unwrap_or(10_000.0);
    let pairs = reading.head_dim / 2;
    let refuse = |expected: String, got: String| {
        Err(Error::File { path: reading.keys.path().into(), expected, got })
    };
    if factors.len() != pairs {
        let expected = format!("{pairs} factors in {ROPE_FACTORS}, one for each pair of a head");
        return refuse(expected, factors.len().to_string());
    }
    if factors.iter().all(|factor| *factor == 1.0) {
        return Ok(None);
    }
    match llama_3(factors, base, context) {
        Some((factor, low, high, context)) => Ok(Some(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": context,
        }))),
        None => refuse(
            format!("factors in {ROPE_FACTORS} that Llama 3's formula gives"),
            "others".into(),
        ),
    }
}

/// The factor, the turns of long and short waves and the context from which Llama 3's formula makes
/// `factors`.
///
/// The formula divides by `1 / (s + (1 - s) / factor)`, with `s` a line in turns, cut off at 0 and 1.
/// A line has two numbers, and two of the factors between the ends tell them; where fewer are between,
/// more lines than one make the same factors.
fn llama_3(factors: &[f32], base: f64, context: Option<usize>) -> Option<(f64, f64, f64, usize)> {
    let factor = factors.iter().copied().fold(0.0f32, f32::max);
    let (low, high, trained) = LLAMA_3;
    let context = context.unwrap_or(trained);
    let dim = 2 * factors.len();
    let turns =
        |pair: usize| context as f64 * base.powf(-2.0 * pair as f64 / dim as f64) / (2.0 * PI);
    let factor = super::value::as_meant(factor);
    let share =
        |pair: usize| (1.0 / f64::from(factors[pair]) - 1.0 / factor) / (1.0 - 1.0 / factor);
    let is_long = |pair: &usize| (f64::from(factors[*pair]) - factor).abs() <= 1e-6;
    let is_between = |pair: &usize| factors[*pair] > 1.0 && !is_long(pair);
    let is_short = |pair: &usize| factors[*pair] == 1.0;
    // Waves grow from pair to pair. The points of the line that are farthest apart tell it best.
    let mut pairs = 0..factors.len();
    let (first, last) = (pairs.clone().find(is_between), pairs.clone().rev().find(is_between));
    let between = [first, last].into_iter().flatten().map(|pair| (turns(pair), share(pair)));
    let short = pairs.clone().rev().find(is_short).map(|pair| (turns(pair), 1.0));
    let long = pairs.find(is_long).map(|pair| (turns(pair), 0.0));
    let points: Vec<(f64, f64)> = between.chain(short).chain(long).collect();
    let mut lines = vec![(low, high)];
    for (index, a) in points.iter().enumerate() {
        for b in &points[index + 1..] {
            let slope = (a.1 - b.1) / (a.0 - b.0);
            let low = a.0 - a.1 / slope;
            lines.push((low, low + 1.0 / slope));
        }
    }
    lines.into_iter().flat_map(|(low, high)| [(rounded(low), rounded(high)), (low, high)]).find_map(
        |(low, high)| {
            let makes = |pair: usize| {
                let share = ((turns(pair) - low) / (high - low)).clamp(0.0, 1.0);
                let made = 1.0 / (share + (1.0 - share) / factor);
                (made / f64::from(factors[pair]) - 1.0).abs() <= TOLERANCE
            };
            let fits = low > 0.0 && high > low && (0..factors.len()).all(makes);
            fits.then_some((factor, low, high, context))
        },
    )
}

/// To so many places that what was rounded to f32 is as it was meant.
fn rounded(turns: f64) -> f64 {
    (turns * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of Llama 3's formula, in f32.
    fn factors(
        pairs: usize,
        base: f64,
        (low, high, context): (f64, f64, usize),
        factor: f64,
    ) -> Vec<f32> {
        let made = |pair: usize| {
            let f = base.powf(-(pair as f64) / pairs as f64);
            let turns = context as f64 * f / (2.0 * PI);
            let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / (share + (1.0 - share) / factor)) as f32
        };
        (0..pairs).map(made).collect()
    }

    #[test]
    fn published_factors_are_recognised() {
        for (pairs, factor) in [(64, 8.0), (32, 32.0), (64, 32.0)] {
            let found = llama_3(&factors(pairs, 500_000.0, LLAMA_3, factor), 500_000.0, None);
            assert_eq!(found, Some((factor, 1.0, 4.0, 8192)));
        }
    }

    /// Other numbers make the same factors.
    #[test]
    fn other_factors_are_solved_for() {
        for numbers in [(1.0, 2.5, 64), (0.3, 7.0, 500), (1.5, 1.6, 4096), (2.0, 2.1, 100)] {
            let (pairs, base, factor) = (16, 1000.0, 5.0);
            let given = factors(pairs, base, numbers, factor);
            let (found, low, high, context) = llama_3(&given, base, None).unwrap();
            let again = factors(pairs, base, (low, high, context), found);
            for (again, given) in again.iter().zip(&given) {
                assert!((again / given - 1.0).abs() < 1e-5, "{numbers:?}: {again} for {given}");
            }
            // Told the context, the turns are those that were meant, where the factors tell them.
            if given.iter().filter(|f| **f > 1.0 && **f < 5.0).count() > 1 {
                let (_, low, high, _) = llama_3(&given, base, Some(numbers.2)).unwrap();
                assert_eq!((low, high), (numbers.0, numbers.1));
            }
        }
        for wrong in
            [vec![1.0, 2.0, 1.0, 3.0], vec![f32::NAN; 4], vec![1.0, f32::INFINITY], vec![0.0; 3]]
        {
            assert_eq!(llama_3(&wrong, 1e4, None), None);
        }
    }
}
