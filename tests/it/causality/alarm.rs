//! The training alarm: how often it accuses a causal model, and how soon it sees a leak.

use burn_decoder::Error;
use burn_decoder::causality::LossAlarm;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Loss in nats of one token drawn from `source`, predicted by `model`.
fn loss_of(source: &[f64], model: &[f64], rng: &mut StdRng) -> f64 {
    let mut left: f64 = rng.random();
    let token = source.iter().position(|p| {
        left -= p;
        left < 0.0
    });
    -model[token.unwrap_or(source.len() - 1)].ln()
}

fn distribution(size: usize, rng: &mut StdRng) -> Vec<f64> {
    let weights: Vec<f64> = (0..size).map(|_| rng.random_range(0.2..1.0)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

fn entropy(p: &[f64]) -> f64 {
    -p.iter().map(|p| p * p.ln()).sum::<f64>()
}

fn alarm_for(p: &[f64], spread: f64) -> LossAlarm {
    LossAlarm::entropy(entropy(p), spread).unwrap().with_false_alarms(0.1).unwrap()
}

/// How many of `runs` trainings of a model that predicts `model` sound the alarm within 400 batches
/// of 8 tokens.
fn alarms(
    runs: u64,
    alarm: impl Fn(&[f64]) -> LossAlarm,
    source: impl Fn(&mut StdRng) -> Vec<f64>,
    model: impl Fn(&[f64], &mut StdRng) -> Vec<f64>,
) -> u64 {
    let sounds = |seed: &u64| {
        let mut rng = StdRng::seed_from_u64(*seed);
        let source = source(&mut rng);
        let mut alarm = alarm(&source);
        (0..400).any(|_| {
            let model = model(&source, &mut rng);
            let loss: f64 = (0..8).map(|_| loss_of(&source, &model, &mut rng)).sum();
            alarm.observe(loss / 8.0, 8).is_err()
        })
    };
    (0..runs).filter(sounds).count() as u64
}

/// Promised: at most 10 % of causal models, however lucky. Of 400 runs then at most 40 on average,
/// and more than 60 with probability below 1e-3.
#[test]
fn causal_models_are_seldom_accused() {
    let uniform = |_: &mut StdRng| vec![0.2; 5];
    let careful = |_: &[f64]| LossAlarm::uniform(5).unwrap().with_false_alarms(0.1).unwrap();
    // A model that guesses differently each time bets against the source, and loses.
    let guessing = alarms(400, careful, uniform, |_, rng| distribution(5, rng));
    assert!(guessing <= 60, "{guessing} of 400");
    // Hardest on the alarm: a model that knows the source as well as can be, of which only the
    // entropy was told.
    let skewed = |rng: &mut StdRng| distribution(5, rng);
    let by_entropy = |p: &[f64]| alarm_for(p, 5f64.ln());
    let knowing = alarms(400, by_entropy, skewed, |source, _| source.to_vec());
    assert!(knowing <= 60, "{knowing} of 400");
    // The bound is no formality: a test that took the entropy for a floor would accuse most.
    let naive = |p: &[f64]| alarm_for(p, 0.0);
    let accused = alarms(400, naive, skewed, |source, _| source.to_vec());
    assert!(accused > 100, "{accused} of 400");
}

#[test]
fn the_floor_itself_is_never_below_the_floor() {
    let mut alarm = LossAlarm::uniform(10).unwrap();
    for _ in 0..10_000 {
        // Rounded as a training loop would have it.
        alarm.observe(f64::from(10f32.ln()), 4096).expect("ln V can be reached");
    }
    assert!(alarm.chance() > 0.1);
}

/// The promise: a leak from observation `s` on is seen once it has gained
/// `ln(1/alpha) + ln(s (s + 1))` nats, whatever was lost before.
#[test]
fn a_late_leak_is_caught_when_promised() {
    let (before, gain, tokens) = (3000u64, 0.05, 64);
    let mut alarm = LossAlarm::uniform(10).unwrap();
    for _ in 1..before {
        alarm.observe(10f64.ln() + 0.3, tokens).expect("worse than the floor");
    }
    let needed = 1e6f64.ln() + (before as f64).ln() + (before as f64 + 1.0).ln();
    let promised = (needed / ((gain - 1e-5) * tokens as f64)).ceil() as u64;
    let caught = (1..=promised)
        .find_map(|step| alarm.observe(10f64.ln() - gain, tokens).err().map(|error| (step, error)));
    let (step, error) = caught.expect("caught within the promised number of steps");
    assert!(step > promised / 2, "so soon, at {step} of {promised}, would be by chance");
    let Error::BelowFloor { loss, floor, tokens: seen, since, chance } = error else {
        panic!("another error: {error}");
    };
    assert!((loss - (10f64.ln() - gain)).abs() < 1e-9);
    assert_eq!(floor, 10f64.ln());
    assert_eq!((since, seen), (before, step * tokens as u64));
    assert!(chance <= 1e-6);
}

#[test]
fn the_message_says_what_to_do() {
    let error = LossAlarm::uniform(10).unwrap().observe(1.0, 100).unwrap_err().to_string();
    assert!(error.contains("100 tokens (since observation 1) is 1.0000 nats"), "{error}");
    assert!(error.contains("at least 2.3026") && error.contains("CausalityCheck"), "{error}");
}

#[test]
fn a_leak_shows_under_a_known_entropy_too() {
    let mut rng = StdRng::seed_from_u64(1);
    let source = distribution(10, &mut rng);
    let mut alarm = LossAlarm::entropy(entropy(&source), 5f64.ln()).unwrap();
    let caught = (0..200).find(|_| {
        // Half of the tokens are seen.
        let losses = (0..64).map(|_| loss_of(&source, &source, &mut rng));
        let loss: f64 =
            losses.enumerate().map(|(i, loss)| if i % 2 == 0 { loss } else { 0.0 }).sum();
        alarm.observe(loss / 64.0, 64).is_err()
    });
    assert!(caught.is_some());
}

/// With the probabilities of a source that is not uniform at hand, nothing is lost to luck: a model
/// that knows the source is not accused, and one that sees some of the tokens is.
#[test]
fn a_known_source_has_no_price() {
    let mut rng = StdRng::seed_from_u64(2);
    let source = distribution(10, &mut rng);
    let mut excess = |seen: usize| {
        let mut of = |i: usize| {
            let surprise = loss_of(&source, &source, &mut rng);
            // ln q - ln p: 0 for one who knows the source, all of the surprise for one who peeks.
            if i < seen { surprise } else { 0.0 }
        };
        (0..100).map(&mut of).sum::<f64>() / 100.0
    };
    let mut alarm = LossAlarm::uniform(10).unwrap();
    for _ in 0..1000 {
        alarm.observe_excess(excess(0), 100).expect("the truth is not below the truth");
    }
    let caught = (1..=10).find(|_| alarm.observe_excess(excess(3), 100).is_err());
    assert!(caught.is_some_and(|steps| steps > 1), "{caught:?}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for vocabulary in [0, 1] {
        let error = LossAlarm::uniform(vocabulary).unwrap_err().to_string();
        assert!(error.contains("vocabulary") && error.contains(&vocabulary.to_string()), "{error}");
    }
    for probability in [0.0, 1.0, 2.0, -1.0, f64::NAN] {
        let alarm = LossAlarm::uniform(10).unwrap().with_false_alarms(probability);
        assert!(alarm.unwrap_err().to_string().contains("false_alarms"), "{probability}");
    }
    for entropy in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = LossAlarm::entropy(entropy, 0.0).unwrap_err().to_string();
        assert!(error.contains("entropy: entropy"), "{error}");
    }
    for spread in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
        let error = LossAlarm::entropy(1.0, spread).unwrap_err().to_string();
        assert!(error.contains("entropy: spread"), "{error}");
    }
}

#[test]
fn a_loss_that_is_no_number_says_nothing() {
    let mut alarm = LossAlarm::uniform(10).unwrap();
    alarm.observe(f64::NAN, 10).unwrap();
    alarm.observe(f64::NEG_INFINITY, 10).unwrap();
    alarm.observe(-1e9, 0).unwrap();
    assert_eq!(alarm.chance(), 1.0);
}
