//! Rotary frequencies, and the ways to stretch them to a context longer than the trained one.
//!
//! For the pair of channels `i` of `dim` rotated ones the plain frequency is `f = base^(-2i / dim)`,
//! in radians a token. A `factor` of 4 is for four times the trained context.
//!
//! | scaling | frequency | source |
//! |---|---|---|
//! | linear | `f / factor` | Chen et al. 2023, "Position interpolation", section 3.2 |
//! | NTK | `f`, with `base · factor^(dim / (dim - 2))` as base | bloc97 2023; Peng et al. 2023, section 3.1 |
//! | YaRN | from `f` for fast pairs to `f / factor` for slow ones, along a line | Peng et al. 2023, section 3.2 |
//! | Llama 3 | from `f` for short waves to `f / factor` for long ones, along another | Llama team 2024, section 3.2; Meta's `llama-models` |

use std::f64::consts::PI;

use burn::config::Config;

use crate::error::fits_f32;
use crate::{Error, Result};

/// How the frequencies of a [`RotaryConfig`](super::RotaryConfig) are stretched. See the formulas in
/// the user's guide, [`guide`](crate::guide).
#[derive(Config, Debug, Copy, PartialEq)]
pub enum RotaryScaling {
    /// All frequencies divided by the factor.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// A larger base, so that fast pairs hardly change and the slowest is divided by the factor.
    Ntk {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Fast pairs stay, slow pairs are divided by the factor, those between lie on a line; and
    /// rotated vectors grow a little, which makes attention sharper.
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Length of the context that was trained for.
        original_context: usize,
        /// Turns within that context from which on a pair is fast: 32 in the paper.
        beta_fast: f64,
        /// Turns within that context up to which a pair is slow: 1 in the paper.
        beta_slow: f64,
        /// What rotated vectors are multiplied by; `0.1 ln(factor) + 1` if not given.
        attention_factor: Option<f64>,
        /// Whether the ends of the line are rounded outwards to whole pairs.
        truncate: bool,
    },
    /// By wavelength: short waves stay, long ones are divided by the factor, those between lie on
    /// a line in turns.
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Turns within the trained context up to which a wave is long: 1 in Llama 3.1.
        low_freq_factor: f64,
        /// Turns within the trained context from which on a wave is short: 4 in Llama 3.1.
        high_freq_factor: f64,
        /// Length of the context that was trained for.
        original_context: usize,
    },
}

/// The frequencies of all pairs, in radians a token.
pub(super) fn frequencies(base: f64, dim: usize, scaling: Option<RotaryScaling>) -> Vec<f64> {
    let plain =
        |base: f64| (0..dim / 2).map(move |pair| base.powf(-2.0 * pair as f64 / dim as f64));
    let Some(scaling) = scaling else { return plain(base).collect() };
    match scaling {
        RotaryScaling::Linear { factor } => plain(base).map(|f| f / factor).collect(),
        RotaryScaling::Ntk { factor } => {
            // With one pair there is nothing between the fastest and the slowest.
            let power = if dim > 2 { dim as f64 / (dim - 2) as f64 } else { 1.0 };
            plain(base * factor.powf(power)).collect()
        }
        RotaryScaling::Yarn {
            factor, original_context, beta_fast, beta_slow, truncate, ..
        } => {
            // The pair that makes so many turns within the trained context.
            let pair_of = |turns: f64| {
                let wave = original_context as f64 / (2.0 * PI * turns);
                dim as f64 * wave.ln() / (2.0 * base.ln())
            };
            let (mut first, mut last) = (pair_of(beta_fast), pair_of(beta_slow));
            if truncate {
                (first, last) = (first.floor(), last.ceil());
            }
            let (first, mut last) = (first.max(0.0), last.min((dim - 1) as f64));
            if first == last {
                last += 0.001; // as in the paper's code: a step, not a division by zero
            }
            let slow = |pair: usize| ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            let blend = |(pair, f)| f / factor * slow(pair) + f * (1.0 - slow(pair));
            plain(base).enumerate().map(blend).collect()
        }
        RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let scaled = |f: f64| {
                let turns = original_context as f64 * f / (2.0 * PI);
                let short = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let short = short.clamp(0.0, 1.0);
                short * f + (1.0 - short) * f / factor
            };
            plain(base).map(scaled).collect()
        }
    }
}

impl RotaryScaling {
    /// What rotated vectors are multiplied by.
    pub(super) fn amplitude(&self) -> f64 {
        match *self {
            Self::Yarn { factor, attention_factor, .. } => {
                attention_factor.unwrap_or(0.1 * factor.ln() + 1.0)
            }
            _ => 1.0,
        }
    }

    /// An error for numbers that make no sense.
    pub(super) fn check(&self) -> Result<()> {
        let (Self::Linear { factor }
        | Self::Ntk { factor }
        | Self::Yarn { factor, .. }
        | Self::Llama3 { factor, .. }) = *self;
        if !(factor.is_finite() && factor >= 1.0) {
            return refuse("factor", "a number of at least 1", factor);
        }
        match *self {
            Self::Yarn { original_context, beta_fast, beta_slow, attention_factor, .. } => {
                check_context(original_context)?;
                if !(beta_slow > 0.0 && beta_fast > beta_slow && beta_fast.is_finite()) {
                    let expected = "beta_fast above beta_slow, and both above 0";
                    return refuse("beta_fast", expected, format!("{beta_fast} and {beta_slow}"));
                }
                match attention_factor {
                    Some(got) if !(fits_f32(got) && got > 0.0) => {
                        refuse("attention_factor", "a number above 0", got)
                    }
                    _ => Ok(()),
                }
            }
            Self::Llama3 {
                low_freq_factor: low, high_freq_factor: high, original_context, ..
            } => {
                check_context(original_context)?;
                if !(low > 0.0 && high > low && high.is_finite()) {
                    let expected = "high_freq_factor above low_freq_factor, and both above 0";
                    return refuse("high_freq_factor", expected, format!("{high} and {low}"));
                }
                Ok(())
            }
            Self::Linear { .. } | Self::Ntk { .. } => Ok(()),
        }
    }
}

fn check_context(original_context: usize) -> Result<()> {
    if original_context == 0 {
        return refuse("original_context", "at least 1", 0);
    }
    Ok(())
}

fn refuse<T>(what: &str, expected: &str, got: impl ToString) -> Result<T> {
    Err(Error::Config {
        field: "RotaryScaling",
        expected: format!("{what}: {expected}"),
        got: got.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: f64 = 10_000.0;
    const DIM: usize = 128;

    fn scaled(scaling: RotaryScaling) -> Vec<f64> {
        frequencies(BASE, DIM, Some(scaling))
    }

    /// By powers of logarithms, to 1e-14 of each.
    fn assert_close(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 1e-14, "{got}, expected {expected}");
    }

    #[test]
    fn plain_frequencies_are_a_geometric_sequence() {
        let plain = frequencies(BASE, DIM, None);
        assert_eq!((plain.len(), plain[0]), (64, 1.0));
        assert_close(plain[32], 0.01);
        for pair in plain.windows(2) {
            assert_close(pair[1] / pair[0], BASE.powf(-1.0 / 64.0));
        }
    }

    #[test]
    fn linear_and_ntk_divide_the_slowest_by_the_factor() {
        let plain = frequencies(BASE, DIM, None);
        let linear = scaled(RotaryScaling::Linear { factor: 4.0 });
        linear.iter().zip(&plain).for_each(|(got, plain)| assert_close(*got, plain / 4.0));
        let ntk = scaled(RotaryScaling::Ntk { factor: 4.0 });
        assert_eq!(ntk[0], 1.0);
        assert_close(ntk[63], plain[63] / 4.0);
        assert!(ntk.iter().zip(&plain).skip(1).all(|(got, plain)| got < plain));
    }

    #[test]
    fn llama3_leaves_short_waves_and_divides_long_ones() {
        let plain = frequencies(BASE, DIM, None);
        let got = scaled(RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        });
        let mut between = 0;
        for (got, f) in got.iter().zip(&plain) {
            let turns = 8192.0 * f / (2.0 * PI);
            match turns {
                4.0.. => assert_eq!(got, f),
                ..1.0 => assert_close(*got, f / 8.0),
                _ => {
                    assert!(f / 8.0 < *got && got < f);
                    between += 1;
                }
            }
        }
        assert!(between > 0);
    }

    #[test]
    fn yarn_goes_from_fast_to_slow_along_a_line() {
        let plain = frequencies(BASE, DIM, None);
        let yarn = |truncate, attention_factor| RotaryScaling::Yarn {
            factor: 4.0,
            original_context: 2048,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor,
            truncate,
        };
        // Where a pair makes 32 turns and 1 turn within 2048 tokens.
        let [first, last] =
            [32.0, 1.0].map(|turns| 64.0 * (2048.0 / (2.0 * PI * turns)).ln() / BASE.ln());
        let got = scaled(yarn(false, None));
        for (pair, (got, f)) in got.iter().zip(&plain).enumerate() {
            let slow = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            assert_close(*got, f * (1.0 - 0.75 * slow));
        }
        assert_ne!(scaled(yarn(true, None)), got);
        assert_close(yarn(true, None).amplitude(), 0.1 * 4f64.ln() + 1.0);
        assert_eq!(yarn(true, Some(1.5)).amplitude(), 1.5);
    }
}
