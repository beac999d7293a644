//! The same exam by older ways: how many of the forms each of them catches, and whom it accuses.
//!
//! `cargo test --release --test it -- --ignored --nocapture exam::older_ways` prints the table of the
//! guide.

use burn::tensor::{Device, Tensor, TensorData};
use burn_decoder::causality::LossAlarm;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::parts::{Setup, embed};
use super::{Model, Right, Subject, leaking, right, setup};

/// Finds a leak, or not.
type OldWay = fn(&Subject, &Setup) -> bool;

/// Suffixes behind prefixes of several lengths are changed, and the outputs of the prefixes must not
/// change: eight forward passes of one row, as proposed for nanochat's evaluation.
fn suffixes(subject: &Subject, setup: &Setup) -> bool {
    let n = setup.length;
    let mut prefixes = vec![1, 3, 7, 15, 31, n / 2, n - 1];
    prefixes.retain(|&prefix| prefix < n);
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut draw =
        |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(0.0..1.0)).collect() };
    let numbers = numbers(subject, setup);
    let base = draw(n * numbers);
    let before = outputs(subject, setup, &base);
    let width = before.len() / n;
    prefixes.into_iter().any(|prefix| {
        let mut changed = base.clone();
        changed[prefix * numbers..].copy_from_slice(&draw((n - prefix) * numbers));
        outputs(subject, setup, &changed)[..prefix * width] != before[..prefix * width]
    })
}

/// Numbers of a position: one for a token.
fn numbers(subject: &Subject, setup: &Setup) -> usize {
    if matches!(subject.model, Model::Embedded(_)) { setup.width } else { 1 }
}

/// The outputs of one row, made of numbers between 0 and 1.
fn outputs(subject: &Subject, setup: &Setup, values: &[f32]) -> Vec<f32> {
    let ids = |vocabulary: usize| {
        let ids = values.iter().map(|x| (x * vocabulary as f32) as i64).collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(ids, [1, setup.length]), &setup.device)
    };
    let host = |data: TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    match &subject.model {
        Model::Embedded(forward) => {
            let values = values.iter().map(|x| 3.4 * x - 1.7).collect::<Vec<_>>();
            let shape = [1, setup.length, setup.width];
            host(
                forward(Tensor::from_data(TensorData::new(values, shape), &setup.device))
                    .into_data(),
            )
        }
        Model::Tokens { vocabulary, forward } => host(forward(ids(*vocabulary)).into_data()),
        Model::Losses { vocabulary, losses } => {
            // That of the first token is none.
            let losses = host(losses(ids(*vocabulary)).into_data());
            [vec![0.0], losses].concat()
        }
    }
}

/// The derivative of each output of the first row by what is hidden from it must be zero.
fn gradients(subject: &Subject, setup: &Setup) -> bool {
    let Model::Embedded(forward) = &subject.model else { return false };
    let Setup { width, length, batch, .. } = *setup;
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut draw =
        |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.7..1.7)).collect() };
    let values = TensorData::new(draw(batch * length * width), [batch, length, width]);
    (0..length).any(|query| {
        let x = Tensor::<3>::from_data(values.clone(), &setup.device).autodiff().require_grad();
        let output = forward(x.clone()).narrow(0, 0, 1).narrow(1, query, 1);
        let shape = output.dims();
        let weights = Tensor::from_data(TensorData::new(draw(shape[2]), shape), &setup.device);
        let Some(gradient) = x.grad(&(output * weights).sum().backward()) else { return false };
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        gradient.iter().enumerate().any(|(i, &x)| i / width > query && x != 0.0)
    })
}

/// A readout is trained, over the outputs as they are, to predict the next of random tokens; a loss
/// below what any causal model can reach is a leak.
fn loss_floor(subject: &Subject, setup: &Setup) -> bool {
    const IDS: usize = 7;
    const BATCHES: usize = 300;
    let Setup { length, batch, device, .. } = setup;
    let mut alarm = LossAlarm::uniform(IDS).unwrap();
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let table = setup.matrix(200, [IDS, setup.width]) * 2.0;
    let mut readout: Vec<f64> = Vec::new();
    for _ in 0..BATCHES {
        let ids: Vec<i64> = (0..batch * length).map(|_| rng.random_range(0..IDS as i64)).collect();
        let tokens = Tensor::from_data(TensorData::new(ids.clone(), [*batch, *length]), device);
        let outputs = match &subject.model {
            Model::Embedded(forward) => forward(embed(&table, tokens)),
            Model::Tokens { forward, .. } => forward(tokens),
            Model::Losses { losses, .. } => {
                // Here nothing is trained: the losses are as they are.
                let losses: Vec<f32> = losses(tokens).into_data().iter().collect();
                let mean = losses.iter().sum::<f32>() / losses.len() as f32;
                if alarm.observe(f64::from(mean), losses.len()).is_err() {
                    return true;
                }
                continue;
            }
        };
        let width = outputs.dims()[2];
        let outputs: Vec<f32> = outputs.into_data().iter().collect();
        readout.resize((width + 1) * IDS, 0.0);
        let ahead = usize::from(!subject.own_hidden);
        let mut gradient = vec![0.0; readout.len()];
        let (mut sum, mut count) = (0.0, 0);
        for row in 0..*batch {
            for position in 0..length - ahead {
                let at = row * length + position;
                let features = outputs[at * width..(at + 1) * width].iter().map(|&x| f64::from(x));
                let features: Vec<f64> = features.chain([1.0]).collect();
                let score = |id: usize| -> f64 {
                    features.iter().enumerate().map(|(i, x)| x * readout[i * IDS + id]).sum()
                };
                let scores: Vec<f64> = (0..IDS).map(score).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|x| (x - most).exp()).sum();
                let target = ids[at + ahead] as usize;
                sum += total.ln() + most - scores[target];
                count += 1;
                for id in 0..IDS {
                    let error =
                        (scores[id] - most).exp() / total - f64::from(u8::from(id == target));
                    features
                        .iter()
                        .enumerate()
                        .for_each(|(i, x)| gradient[i * IDS + id] += x * error);
                }
            }
        }
        if alarm.observe(sum / count as f64, count).is_err() {
            return true;
        }
        readout.iter_mut().zip(gradient).for_each(|(x, slope)| *x -= 0.3 * slope / count as f64);
    }
    false
}

fn checker(subject: &Subject, setup: &Setup) -> bool {
    subject.check(setup).leaks().next().is_some()
}

const WAYS: [(&str, OldWay); 4] = [
    ("suffixes, 8 passes", suffixes),
    ("gradients", gradients),
    ("loss floor", loss_floor),
    ("this checker", checker),
];

#[cfg(feature = "flex")]
#[test]
#[ignore = "a report"]
fn table() {
    let device = Device::flex();
    let seeds = [20, 20, 3, 20];
    println!("| form | {} |", WAYS.map(|(name, _)| name).join(" | "));
    let mut caught = [[0; 2]; 4];
    for form in leaking() {
        let cells = [0, 1, 2, 3].map(|way| {
            let is_caught = |seed: &u64| {
                let setup = setup(*seed, &device);
                WAYS[way].1(&(form.build)(&setup), &setup)
            };
            let times = (0..seeds[way]).filter(is_caught).count() as u64;
            caught[way][0] += usize::from(times == seeds[way]);
            caught[way][1] += usize::from(times > 0);
            format!("{times}/{}", seeds[way])
        });
        println!("| {} | {} |", form.name, cells.join(" | "));
    }
    let mut accused = [0; 4];
    for Right { name, build } in right() {
        for (way, (_, look)) in WAYS.iter().enumerate() {
            let setup = setup(0, &device);
            if look(&build(&setup), &setup) {
                accused[way] += 1;
                println!("accused by {}: {name}", WAYS[way].0);
            }
        }
    }
    let (leaking, right) = (leaking().len(), right().len());
    for (way, (name, _)) in WAYS.iter().enumerate() {
        let [always, once] = caught[way];
        println!(
            "{name}: {always} of {leaking} on every seed, {once} on some; {} of {right} accused",
            accused[way]
        );
    }
}

/// The ways are not broken: each catches what it is made for, and not what it can't see.
#[cfg(feature = "flex")]
#[test]
fn each_sees_what_it_can() {
    let setup = setup(0, &Device::flex());
    for (name, sees) in [
        ("no mask", [true, true, true]),
        ("batch norm in training", [true, true, false]),
        ("learned positions from the right", [false, false, false]),
        ("a cache that is read to its end", [false, false, false]),
    ] {
        let form = leaking().into_iter().find(|form| form.name == name).unwrap();
        let subject = (form.build)(&setup);
        let seen = [suffixes, gradients, loss_floor].map(|way: OldWay| way(&subject, &setup));
        assert_eq!(seen, sees, "{name}");
    }
}
