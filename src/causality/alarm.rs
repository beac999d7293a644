//! An alarm for training: stop when the loss is lower than a causal model can make it.
//!
//! # The statistics
//!
//! Let the tokens `x_1, x_2, ...` of the unpredictable part be drawn independently and uniformly
//! from `V` symbols, and let a causal model give `x_t` the probability `q_t(x_t)`, having seen only
//! what came before. Then, whatever the model does,
//!
//! ```text
//! E[ V * q_t(x_t) | the past ] = sum over v of (1/V) * V * q_t(v) = 1,
//! ```
//!
//! so the product `E_n = (V q_1(x_1)) (V q_2(x_2)) ...` is a nonnegative martingale of mean 1. Its
//! logarithm is what a training loop measures anyway: `ln E_n = sum of (ln V - loss)`. Ville's
//! inequality bounds its whole path: `P(E_n >= 1/alpha for any n) <= alpha`. A model that sees the
//! token it predicts has `loss < ln V` and lets `E_n` grow without bound. So the alarm may look
//! after every batch, for as long as training lasts, and a causal model is accused with
//! probability at most `alpha` over the entire run. No variance is estimated and no window chosen.
//!
//! **A leak that starts late.** An untrained model has a loss above `ln V`, so `E_n` has sunk by the
//! time that a leak is learnt. The alarm therefore bets on every starting point at once: with
//! `E_(s..n)` the product from observation `s` on,
//!
//! ```text
//! M_n = sum over s <= n of E_(s..n) / (s (s + 1)),     ln S_n = ln(S_(n-1) + 1/(n (n + 1))) + (ln V - loss_n) tokens_n.
//! ```
//!
//! The weights sum to 1, so `M_n`, plus the weight of the bets that have not started, is again a
//! nonnegative martingale of mean 1, and the bound holds unchanged. A leak from observation `s` on
//! is reported once it has gained `ln(1/alpha) + ln(s (s + 1))` nats: with `alpha` = 1e-6 and
//! `s` = 1000, 28 nats in all, which a batch of a few hundred leaking tokens gives at once.
//!
//! **Sources that are not uniform.** With the true probabilities `p_t(x_t)` at hand,
//! `q_t(x_t) / p_t(x_t)` takes the place of `V q_t(x_t)` ([`LossAlarm::observe_excess`]): exact
//! again. With the entropy `h` alone ([`LossAlarm::entropy`]) the surprise `-ln p(x)` of a token
//! scatters around `h`, and the alarm must not take luck for a leak. Let the surprises lie in an
//! interval of width `w`. For `0 < r < 1`, Hölder's inequality and Hoeffding's lemma give
//!
//! ```text
//! E[ exp(r (h - loss)) ] <= E[q/p]^r * E[ exp(r/(1-r) (h + ln p)) ]^(1-r) <= exp(r^2 w^2 / (8 (1 - r))),
//! ```
//!
//! so `exp(r (h - loss) - r^2 w^2 / (8 (1 - r)))` may stand for a factor of the product. The alarm
//! bets on several `r` at once, with equal weights, and the bound holds as before. (Ville 1939,
//! "Étude critique de la notion de collectif"; Shafer and Vovk 2019, "Game-Theoretic Foundations
//! for Probability and Finance", for bets on many starting points and rates.)
//!
//! # What must hold
//!
//! - The loss is the mean of `-ln q(token)` in nats over the unpredictable tokens alone, without
//!   label smoothing, and from the forward pass *before* the weights are updated with that batch.
//! - The tokens are fresh in every batch. A model that has seen the same tokens in an earlier epoch
//!   may know them by heart, and beats the floor without any leak.
//! - Losses are rounded numbers; the floor is lowered by 1e-5 nats a token, more than the rounding
//!   of a mean of `f32` values, so that rounding can't add up to an alarm.

use crate::{Error, Result};

/// Nats per token that the floor is lowered by, against rounding.
const ROUNDING: f64 = 1e-5;

/// Rates of the bets where only the entropy is known.
const RATES: [f64; 6] = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625];

/// Watches a training loss that no causal model can push below a known floor. See the
/// [module](self) for the statistics.
///
/// ```
/// use burn_decoder::causality::LossAlarm;
///
/// let mut alarm = LossAlarm::uniform(10)?; // ten symbols, drawn at random: the floor is ln 10
/// alarm.observe(2.4, 512)?; // (mean loss, tokens) of each batch
/// assert!(alarm.observe(2.1, 512).is_err()); // 0.2 nats a token better than any causal model
/// # Ok::<(), burn_decoder::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LossAlarm {
    floor: f64,
    false_alarms: f64,
    observations: u64,
    bets: Vec<Bet>,
    suspect: SuspectStretch,
}

/// One rate `r`, with its price for luck, and the logarithm of its mixture over starting points.
#[derive(Clone, Debug)]
struct Bet {
    rate: f64,
    price: f64,
    log_wealth: f64,
}

/// The stretch of training that speaks most against the model: what the message is about.
#[derive(Clone, Copy, Debug, Default)]
struct SuspectStretch {
    since: u64,
    tokens: u64,
    gain: f64,
}

impl LossAlarm {
    /// For tokens drawn uniformly from `vocabulary` symbols: the floor is `ln vocabulary`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for fewer than two symbols: what comes is known then, and no loss is too low.
    pub fn uniform(vocabulary: usize) -> Result<Self> {
        if vocabulary < 2 {
            return refuse("LossAlarm::uniform: vocabulary", "at least 2 symbols", vocabulary);
        }
        Ok(Self::new((vocabulary as f64).ln(), [(1.0, 0.0)]))
    }

    /// For tokens drawn independently from one distribution of `entropy` nats, whose surprises
    /// `-ln p` differ by at most `spread` nats between its most and its least likely token.
    ///
    /// `spread` 0 is the uniform distribution. The wider it is, the more tokens a leak needs to
    /// show; [`LossAlarm::observe_excess`] has no such price.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an entropy that is not above 0, a spread that is negative, or one of
    /// them that is not finite.
    pub fn entropy(entropy: f64, spread: f64) -> Result<Self> {
        if !(entropy.is_finite() && entropy > 0.0) {
            return refuse("LossAlarm::entropy: entropy", "a finite number above 0", entropy);
        }
        let prices = RATES.map(|r| (r, r * r * spread * spread / (8.0 * (1.0 - r))));
        if !(spread >= 0.0 && prices.iter().all(|(_, price)| price.is_finite())) {
            return refuse("LossAlarm::entropy: spread", "a finite number of at least 0", spread);
        }
        Ok(match spread {
            0.0 => Self::new(entropy, [(1.0, 0.0)]),
            _ => Self::new(entropy, prices),
        })
    }

    fn new(floor: f64, bets: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let bets: Vec<Bet> = bets
            .into_iter()
            .map(|(rate, price)| Bet { rate, price, log_wealth: f64::NEG_INFINITY })
            .collect();
        Self {
            floor,
            false_alarms: 1e-6,
            observations: 0,
            bets,
            suspect: SuspectStretch::default(),
        }
    }

    /// The probability of ever stopping a causal model, over the whole training. Default 1e-6.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] unless it lies between 0, at which the alarm would never go off, and 1, at
    /// which it always would.
    pub fn with_false_alarms(mut self, probability: f64) -> Result<Self> {
        if !(probability > 0.0 && probability < 1.0) {
            let expected = "a probability between 0 and 1, neither of them";
            return refuse("LossAlarm::false_alarms", expected, probability);
        }
        self.false_alarms = probability;
        Ok(self)
    }

    /// The lowest mean loss that a causal model can reach, in nats per token.
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// How sure the alarm is by now: a bound on the probability that a causal model would look like
    /// this at any time in its training.
    pub fn chance(&self) -> f64 {
        (-self.log_wealth()).exp().min(1.0)
    }

    /// Takes the mean loss of one batch, in nats, over `tokens` tokens that can't be predicted.
    ///
    /// A loss that is not finite says nothing about leaks and is passed over, as is one over no
    /// tokens.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`] if no causal model does this well, but for chance.
    pub fn observe(&mut self, mean_loss: f64, tokens: usize) -> Result<()> {
        self.observe_excess(self.floor - mean_loss, tokens)
    }

    /// The same for a source whose probabilities are known token by token: `excess` is the mean of
    /// `ln q(token) - ln p(token)`, model against truth, over the batch.
    ///
    /// For an alarm made by [`LossAlarm::uniform`]; it then holds for any source.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFloor`] as for [`LossAlarm::observe`].
    pub fn observe_excess(&mut self, excess: f64, tokens: usize) -> Result<()> {
        if !excess.is_finite() || tokens == 0 {
            return Ok(());
        }
        self.observations += 1;
        let n = self.observations as f64;
        let start = -(n.ln() + (n + 1.0).ln()) - (self.bets.len() as f64).ln();
        for bet in &mut self.bets {
            let gain = bet.rate * (excess - ROUNDING) - bet.price;
            bet.log_wealth = log_sum(bet.log_wealth, start) + gain * tokens as f64;
        }
        self.suspect.observe(self.observations, excess, tokens);

        if self.log_wealth() < -self.false_alarms.ln() {
            return Ok(());
        }
        let SuspectStretch { since, tokens, gain } = self.suspect;
        Err(Error::BelowFloor {
            loss: self.floor - gain / tokens as f64,
            floor: self.floor,
            tokens,
            since,
            chance: self.chance(),
        })
    }

    fn log_wealth(&self) -> f64 {
        self.bets.iter().map(|bet| bet.log_wealth).fold(f64::NEG_INFINITY, log_sum)
    }
}

impl SuspectStretch {
    fn observe(&mut self, observation: u64, excess: f64, tokens: usize) {
        if self.gain <= 0.0 {
            *self = Self { since: observation, tokens: 0, gain: 0.0 };
        }
        self.tokens += tokens as u64;
        self.gain += excess * tokens as f64;
    }
}

fn refuse<T>(field: &'static str, expected: &str, got: impl ToString) -> Result<T> {
    Err(Error::Config { field, expected: expected.into(), got: got.to_string() })
}

/// `ln(e^a + e^b)`
fn log_sum(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}
