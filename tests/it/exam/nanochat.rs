//! The three of a public report: <https://github.com/karpathy/nanochat/issues/844>, where a leak took
//! the validation loss down to 0.0018 bits per byte. Rebuilt from its description, with smaller
//! blocks; none of its code.

#[cfg(feature = "flex")]
use burn::tensor::{Tensor, TensorData};
use burn_decoder::causality::Diagnosis;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// Queries, keys and values carry the mean of a complete block.
fn block_summaries(setup: &Setup, delay: usize) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let means = setup.block_means(delay);
    Subject::embedded(move |x| {
        let parts = layer.parts(&x).map(|part| part.clone() + mix(&means, &part));
        layer.over(x, parts, &mask)
    })
}

/// The means of complete chunks run through a recurrence, whose state every position of a chunk gets.
fn chunk_states(setup: &Setup, delay: usize) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let complete = setup.length / BLOCK * BLOCK;
    // The state of a chunk is the sum of its own mean and of the decayed ones before it.
    let states = setup.mixing(|to, from| {
        let age = (to / BLOCK).checked_sub(from / BLOCK + delay);
        match age {
            Some(age) if from < complete && (delay > 0 || to < complete) => {
                0.7f32.powi(age as i32) / BLOCK as f32
            }
            _ => 0.0,
        }
    });
    let into = setup.square(41);
    Subject::embedded(move |x| {
        let x = x.clone() + mix(&states, &project(&x, &into));
        layer.forward(x, &mask)
    })
}

/// Queries and keys are filtered: the sequence, padded to twice its length, has its spectrum multiplied
/// by a response, and is cut again. A response that is free of constraints has taps at negative lags,
/// which stand behind the padding.
fn spectral_filter(setup: &Setup, one_sided: bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let padded = 2 * setup.length;
    let taps = filter_taps(setup, padded, one_sided);
    let filter = setup.mixing(|to, from| taps[(to + padded - from) % padded]);
    Subject::embedded(move |x| {
        let [queries, keys, values] = layer.parts(&x);
        let parts = [mix(&filter, &queries), mix(&filter, &keys), values];
        layer.over(x, parts, &mask)
    })
}

/// The impulse response of a random complex response over the bins of a real transform of `padded`
/// points: tap `lag`, and behind the middle the negative lags.
fn filter_taps(setup: &Setup, padded: usize, one_sided: bool) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(setup.seed * 1009 + 44);
    let mut draw = || rng.random_range(-1.0..1.0f64);
    let bins: Vec<(f64, f64)> = (0..=padded / 2).map(|_| (draw(), draw())).collect();
    let tap = |lag: usize| {
        let angle = |bin: usize| std::f64::consts::TAU * (bin * lag) as f64 / padded as f64;
        let sum: f64 = bins
            .iter()
            .enumerate()
            .map(|(bin, (real, imaginary))| {
                // Each bin but the first and the last stands for its mirror image too.
                let times = if bin == 0 || 2 * bin == padded { 1.0 } else { 2.0 };
                times * (real * angle(bin).cos() - imaginary * angle(bin).sin())
            })
            .sum();
        (sum / (padded as f64).sqrt()) as f32
    };
    (0..padded).map(|lag| if one_sided && lag >= padded / 2 { 0.0 } else { tap(lag) }).collect()
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    vec![
        Form::new(
            "nanochat 844: block summaries of queries, keys and values",
            |_| First::Cell(0, 1),
            |_| BlockSummary { keys: BLOCK },
            |s| block_summaries(s, 0),
        ),
        Form::new(
            "nanochat 844: recurrent chunk summaries",
            |_| First::Cell(0, 1),
            |_| BlockSummary { keys: BLOCK },
            |s| chunk_states(s, 0),
        ),
        Form::new(
            "nanochat 844: free spectral filter of queries and keys",
            // The values are not filtered, and of a single key the softmax is 1.
            |_| First::Cell(1, 2),
            |_| QueriesOrKeysMixed,
            |s| spectral_filter(s, false),
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("block summaries of the block before", |s| block_summaries(s, 1)),
        ("recurrent states of the chunks before", |s| chunk_states(s, 1)),
        ("a one-sided spectral filter", |s| spectral_filter(s, true)),
    ]
}

/// The filter, by its taps, is what a transform of the padded sequence gives.
#[cfg(feature = "flex")]
#[test]
fn the_filter_is_that_of_the_transform() {
    let setup = super::setup(3, &burn::tensor::Device::flex());
    let (n, padded) = (setup.length, 2 * setup.length);
    let taps = filter_taps(&setup, padded, false);
    let x: Vec<f64> =
        (0..padded).map(|i| if i < n { (i as f64 * 0.7).sin() } else { 0.0 }).collect();
    // Transform both in full, multiply, transform back.
    let transform = |values: &[(f64, f64)], sign: f64| -> Vec<(f64, f64)> {
        (0..padded)
            .map(|bin| {
                values.iter().enumerate().fold((0.0, 0.0), |(re, im), (i, (a, b))| {
                    let angle = sign * std::f64::consts::TAU * (bin * i) as f64 / padded as f64;
                    let (s, c) = angle.sin_cos();
                    (re + a * c - b * s, im + a * s + b * c)
                })
            })
            .collect()
    };
    let real = |values: &[f64]| values.iter().map(|&x| (x, 0.0)).collect::<Vec<_>>();
    let taps64: Vec<f64> = taps.iter().map(|&tap| f64::from(tap)).collect();
    let product: Vec<(f64, f64)> = transform(&real(&x), -1.0)
        .into_iter()
        .zip(transform(&real(&taps64), -1.0))
        .map(|((a, b), (c, d))| (a * c - b * d, a * d + b * c))
        .collect();
    let filtered = transform(&product, 1.0);
    let filter = setup.mixing(|to, from| taps[(to + padded - from) % padded]);
    let input: Vec<f32> = x[..n].iter().map(|&x| x as f32).collect();
    let input = Tensor::<3>::from_data(TensorData::new(input, [1, n, 1]), &setup.device);
    let got: Vec<f32> = mix(&filter, &input).into_data().try_to_vec().unwrap();
    for (i, got) in got.into_iter().enumerate() {
        let expected = filtered[i].0 / padded as f64;
        assert!((f64::from(got) - expected).abs() < 1e-5, "{i}: {got}, expected {expected}");
    }
}
