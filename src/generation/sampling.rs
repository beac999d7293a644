//! From scores to a token: what is done to the logits of one row, and the draw.
//!
//! In this order, each step only if asked for:
//!
//! 1. repetition penalty `r`: for every token of the row so far, prompt included, a logit `x > 0`
//!    becomes `x / r` and another `x r` (Keskar et al. 2019, CTRL, section 4.1);
//! 2. without a temperature, the likeliest token is taken, the one with the smallest id among
//!    equals; otherwise
//! 3. temperature `t`: logits become `x / t`;
//! 4. top-k: only the `k` likeliest tokens stay (Fan et al. 2018, section 5.2);
//! 5. top-p: only the likeliest tokens stay that are needed to reach a probability of `p` together
//!    (Holtzman et al. 2019, section 3.1);
//! 6. min-p: only tokens stay that are at least `p` times as likely as the likeliest (Nguyen et al.
//!    2024, section 3);
//! 7. one token is drawn by the probabilities of those that are left.
//!
//! This is the order of Hugging Face's `generate`; [hooks](super::hooks) come before all of it. All
//! of it happens on the host, in f64, with a random generator (ChaCha with 8 rounds) that gives the
//! same numbers on every machine: the same logits and the same seed give the same token on every
//! backend. (The likeliest token alone, where no hook and no log-probability wants to see the logits,
//! a GPU finds itself, and one number a row is read: by the same rule.) Each row draws from a stream of its own, named by its number among the prompts.

use burn::config::Config;
use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;

use crate::{Error, Result};

/// How the next token is chosen. See the module for the order of the steps.
#[derive(Config, Debug, PartialEq)]
pub struct SamplingConfig {
    /// Divides the logits before the draw; without it the likeliest token is taken.
    pub temperature: Option<f64>,
    /// Draws from this many likeliest tokens only.
    pub top_k: Option<usize>,
    /// Draws from the likeliest tokens only that have this probability together.
    pub top_p: Option<f64>,
    /// Draws from tokens only that are at least this many times as likely as the likeliest.
    pub min_p: Option<f64>,
    /// Makes tokens less likely that the row holds already, if above 1.
    #[config(default = 1.0)]
    pub repetition_penalty: f64,
    /// Seed of the draws. Row `i` of a batch draws from stream `i` of the generator: the same prompt
    /// draws other tokens as another row.
    #[config(default = 0)]
    pub seed: u64,
}

impl SamplingConfig {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self::new()
    }

    /// Draws by the model's own probabilities, at this temperature.
    pub fn at_temperature(temperature: f64) -> Self {
        Self::new().with_temperature(Some(temperature))
    }

    /// An error for a value that makes no sense, or that would be ignored.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, expected: &str, got: String| {
            Err(Error::Config { field, expected: expected.into(), got })
        };
        if let Some(t) = self.temperature.filter(|t| !(t.is_finite() && *t > 0.0)) {
            let expected = "a finite number above 0; leave it out for the likeliest token always";
            return refuse("SamplingConfig::temperature", expected, t.to_string());
        }
        if self.top_k == Some(0) {
            return refuse("SamplingConfig::top_k", "at least 1", "0".into());
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return refuse("SamplingConfig::top_p", "a probability in (0, 1]", p.to_string());
        }
        if let Some(p) = self.min_p.filter(|p| !(0.0..=1.0).contains(p)) {
            return refuse("SamplingConfig::min_p", "a share in [0, 1]", p.to_string());
        }
        // Logits are f32: with such a penalty, no product or quotient leaves the range of f64.
        if !(1e-38..=1e38).contains(&self.repetition_penalty) {
            let (expected, got) =
                ("a number in [1e-38, 1e38]", self.repetition_penalty.to_string());
            return refuse("SamplingConfig::repetition_penalty", expected, got);
        }
        let narrowed = [
            (self.top_k.is_some(), "SamplingConfig::top_k"),
            (self.top_p.is_some(), "SamplingConfig::top_p"),
            (self.min_p.is_some(), "SamplingConfig::min_p"),
        ];
        match narrowed.into_iter().find(|(given, _)| *given && self.temperature.is_none()) {
            Some((_, field)) => refuse(
                field,
                "a temperature beside it (1.0 leaves the probabilities as they are)",
                "none, and the likeliest token is never cut off".into(),
            ),
            None => Ok(()),
        }
    }

    /// Whether the likeliest token is taken, whatever came before.
    pub(crate) fn is_greedy(&self) -> bool {
        self.temperature.is_none() && self.repetition_penalty == 1.0
    }

    /// The random generator of a row.
    pub(crate) fn rng(&self, row: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(row as u64);
        rng
    }

    /// Chooses the next token of a row.
    ///
    /// `logits`: one for each token of the vocabulary, below +inf and not all -inf; `so_far`: the
    /// tokens of the row.
    pub(crate) fn choose(&self, logits: &[f32], so_far: &[u32], rng: &mut ChaCha8Rng) -> usize {
        if self.is_greedy() {
            return likeliest(logits);
        }
        let mut logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
        if self.repetition_penalty != 1.0 {
            penalise(&mut logits, so_far, self.repetition_penalty);
        }
        let Some(temperature) = self.temperature else { return likeliest(&logits) };
        let candidates = self.candidates(&logits, temperature);
        let weights = candidates.iter().map(|(_, weight)| weight);
        let draw = WeightedIndex::new(weights).expect("the likeliest token weighs 1");
        candidates[draw.sample(rng)].0
    }

    /// The tokens that may be drawn, with their weights: `exp((x - max) / temperature)`.
    fn candidates(&self, logits: &[f64], temperature: f64) -> Vec<(usize, f64)> {
        let max = logits[likeliest(logits)];
        let weight = |&x: &f64| ((x - max) / temperature).exp();
        let mut left: Vec<(usize, f64)> = logits.iter().map(weight).enumerate().collect();
        if self.top_k.is_none() && self.top_p.is_none() {
            // No order needed; min-p alone is a threshold, since the likeliest token weighs 1.
            left.retain(|&(_, weight)| weight >= self.min_p.unwrap_or(0.0));
            return left;
        }
        // Likeliest first; by id among equals, so that the cut is the same everywhere.
        let order = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if let Some(k) = self.top_k.filter(|&k| k < left.len()) {
            left.select_nth_unstable_by(k, order);
            left.truncate(k);
        }
        left.sort_unstable_by(order);
        // A share of 1 leaves all, also those that rounding has no room for in the sum.
        if let Some(p) = self.top_p.filter(|&p| p < 1.0) {
            let total: f64 = left.iter().map(|(_, weight)| weight).sum();
            let mut sum = 0.0;
            let needed = left.iter().position(|(_, weight)| {
                sum += weight;
                sum >= p * total
            });
            left.truncate(needed.map_or(left.len(), |last| last + 1));
        }
        left.retain(|&(_, weight)| weight >= self.min_p.unwrap_or(0.0));
        left
    }
}

/// The index of the largest number; the first of equals.
fn likeliest<T: PartialOrd>(logits: &[T]) -> usize {
    /// Numbers of which it is seen at once whether there is a larger one among them.
    const STRETCH: usize = 64;
    let mut best = 0;
    for (number, stretch) in logits.chunks(STRETCH).enumerate() {
        if stretch.iter().fold(false, |any, x| any | (*x > logits[best])) {
            for (i, x) in stretch.iter().enumerate() {
                if *x > logits[best] {
                    best = number * STRETCH + i;
                }
            }
        }
    }
    best
}

fn penalise(logits: &mut [f64], so_far: &[u32], penalty: f64) {
    let mut tokens: Vec<usize> = so_far.iter().map(|&token| token as usize).collect();
    // A token that came twice is penalised once.
    tokens.sort_unstable();
    tokens.dedup();
    for token in tokens {
        let x = &mut logits[token];
        *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
    }
}

/// `log softmax(logits)[token]`, in f64.
pub(crate) fn log_probability(logits: &[f32], token: usize) -> f64 {
    f64::from(logits[token]) - log_sum_exp(logits)
}

/// `log Σ exp(logits)`, in f64, of logits that are below +inf and not all -inf.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn tokens(config: &SamplingConfig, logits: &[f32]) -> Vec<usize> {
        let logits: Vec<f64> = logits.iter().copied().map(f64::from).collect();
        let mut left: Vec<_> = config
            .candidates(&logits, config.temperature.unwrap())
            .into_iter()
            .map(|(token, _)| token)
            .collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut rng = SamplingConfig::greedy().rng(0);
        assert_eq!(SamplingConfig::greedy().choose(&LOGITS, &[], &mut rng), 1);
    }

    #[test]
    fn the_likeliest_of_many_is_the_first_of_the_largest() {
        let logits: Vec<f32> = (0..1000).map(|i| (i * 37 % 191) as f32).collect();
        for length in [1, 63, 64, 65, 128, 777, 1000] {
            let logits = &logits[..length];
            let largest = logits.iter().copied().fold(0.0, f32::max);
            assert_eq!(Some(likeliest(logits)), logits.iter().position(|&x| x == largest));
        }
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn cuts_leave_what_they_say() {
        let base = SamplingConfig::at_temperature(1.0);
        assert_eq!(tokens(&base, &LOGITS), [0, 1, 2, 3, 4]);
        assert_eq!(tokens(&base.clone().with_top_k(Some(1)), &LOGITS), [1]);
        assert_eq!(tokens(&base.clone().with_top_k(Some(3)), &LOGITS), [1, 2, 3]);
        assert_eq!(tokens(&base.clone().with_top_k(Some(99)), &LOGITS), [0, 1, 2, 3, 4]);
        // Probabilities by hand: 0.054, 0.399, 0.147, 0.399, 0.007 (rounded).
        assert_eq!(tokens(&base.clone().with_top_p(Some(0.39)), &LOGITS), [1]);
        assert_eq!(tokens(&base.clone().with_top_p(Some(0.41)), &LOGITS), [1, 3]);
        assert_eq!(tokens(&base.clone().with_top_p(Some(0.9)), &LOGITS), [1, 2, 3]);
        assert_eq!(tokens(&base.clone().with_top_p(Some(1.0)), &LOGITS), [0, 1, 2, 3, 4]);
        // exp(-1) = 0.37 of the likeliest, exp(-2) = 0.14, exp(-4) = 0.02.
        assert_eq!(tokens(&base.clone().with_min_p(Some(0.36)), &LOGITS), [1, 2, 3]);
        assert_eq!(tokens(&base.clone().with_min_p(Some(1.0)), &LOGITS), [1, 3]);
        let both = base.with_top_k(Some(2)).with_min_p(Some(0.1));
        assert_eq!(tokens(&both, &LOGITS), [1, 3]);
    }

    #[test]
    fn penalty_divides_above_zero_and_multiplies_below() {
        let mut penalised = LOGITS.map(f64::from);
        penalise(&mut penalised, &[1, 4, 1], 2.0);
        assert_eq!(penalised, [1.0, 1.5, 2.0, 3.0, -2.0]);
    }

    /// Whatever passes the check is computed with as it is: at both ends of what is allowed, for
    /// logits at both ends of what there is.
    #[test]
    fn no_setting_breaks_a_number() {
        let logits = [0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, f32::NEG_INFINITY];
        for penalty in [1e-38, 1e38] {
            for (temperature, expected) in [(f64::MIN_POSITIVE, 1), (f64::MAX, 0)] {
                let config = SamplingConfig::at_temperature(temperature)
                    .with_repetition_penalty(penalty)
                    .with_top_p(Some(f64::MIN_POSITIVE));
                config.check().unwrap();
                let mut rng = config.rng(0);
                for so_far in [vec![], vec![0, 1, 2, 3, 4]] {
                    // The hottest makes all equal that may come, of which the first is taken.
                    assert_eq!(config.choose(&logits, &so_far, &mut rng), expected);
                    let greedy = SamplingConfig::greedy().with_repetition_penalty(penalty);
                    assert_eq!(greedy.choose(&logits, &so_far, &mut rng), 1);
                }
            }
        }
        for penalty in [1e300, 1e-300, f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert!(SamplingConfig::greedy().with_repetition_penalty(penalty).check().is_err());
        }
    }

    #[test]
    fn a_top_p_of_one_is_off() {
        // Beside the first, all others are lost in the sum's rounding.
        let logits = [0.0, -40.0, -41.0];
        let all = SamplingConfig::at_temperature(1.0).with_top_p(Some(1.0));
        assert_eq!(tokens(&all, &logits), [0, 1, 2]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let config = SamplingConfig::at_temperature(2.0).with_seed(7);
        let mut rng = config.rng(3);
        let draws = 20_000;
        let mut counts = [0usize; 5];
        for _ in 0..draws {
            counts[config.choose(&LOGITS, &[], &mut rng)] += 1;
        }
        let total: f64 = LOGITS.iter().map(|x| f64::from(x / 2.0).exp()).sum();
        for (count, x) in counts.into_iter().zip(LOGITS) {
            let p = f64::from(x / 2.0).exp() / total;
            // Five standard deviations of a binomial share.
            let tolerance = 5.0 * (p * (1.0 - p) / draws as f64).sqrt();
            assert!((count as f64 / draws as f64 - p).abs() < tolerance, "{counts:?}");
        }
    }

    #[test]
    fn rows_draw_from_streams_of_their_own() {
        let config = SamplingConfig::at_temperature(1.0);
        let draws = |row| {
            let mut rng = config.rng(row);
            [(); 4].map(|()| rng.random::<u64>())
        };
        assert_eq!(draws(0), draws(0));
        assert_ne!(draws(0), draws(1));
        // The generator is portable: these are the numbers of every machine.
        assert_eq!(draws(0)[0], 13_080_132_717_333_068_652);
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let sum: f64 = (0..5).map(|token| log_probability(&LOGITS, token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!(log_probability(&[1e4, -1e4], 1).is_finite());
    }
}
