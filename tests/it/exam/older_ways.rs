//! The same exam by older ways: how many of the forms each of them catches, and whom it accuses.
//!
//! `cargo test --release --test it -- --ignored --nocapture exam::older_ways` prints the table of the
//! guide.

#[cfg(feature = "flex")]
use burn::tensor::Device;
use burn::tensor::{Int, Tensor, TensorData};
use burn_decoder::causality::LossAlarm;
use burn_decoder::mask::{Grid, Mask};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::parts::{Setup, embed};
use super::{Embedded, Model, Right, Subject, leaking, right, setup};

/// Finds a leak, or not; `None` where the way can't be applied.
type OldWay = fn(&Subject, &Setup) -> Option<bool>;

/// Suffixes behind prefixes of several lengths are changed in every row, and the outputs of the prefixes
/// must not change: eight forward passes, as proposed for nanochat's evaluation. It is about
/// look-ahead and knows no other promise.
fn suffixes(subject: &Subject, setup: &Setup) -> Option<bool> {
    let (n, numbers) = (setup.length, numbers(subject, setup));
    let mut prefixes = vec![1, 3, 7, 15, 31, n / 2, n - 1];
    prefixes.retain(|&prefix| prefix < n);
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut draw = || -> Vec<f32> {
        (0..setup.batch * n * numbers).map(|_| rng.random_range(0.0..1.0)).collect()
    };
    // Where the first output has seen nothing, one more than the prefix must stay.
    let ahead = usize::from(subject.own_hidden);
    let mut leaks = |forward: &dyn Fn(&[f32]) -> Vec<f32>| {
        let base = draw();
        let before = forward(&base);
        prefixes.iter().any(|&prefix| {
            let mut changed = draw();
            for (row, kept) in changed.chunks_mut(n * numbers).zip(base.chunks(n * numbers)) {
                row[..prefix * numbers].copy_from_slice(&kept[..prefix * numbers]);
            }
            let after = forward(&changed);
            let row = before.len() / setup.batch;
            let stay = (prefix + ahead) * (row / n);
            before.chunks(row).zip(after.chunks(row)).any(|(old, new)| old[..stay] != new[..stay])
        })
    };
    let is_look_ahead = subject.promise.is_none();
    is_look_ahead.then(|| paths(subject, setup).iter().any(|forward| leaks(forward)))
}

/// Numbers of a position: one for a token.
fn numbers(subject: &Subject, setup: &Setup) -> usize {
    if matches!(subject.model, Model::Embedded(_)) { setup.width } else { 1 }
}

/// From numbers between 0 and 1 to outputs, row by row.
type Path<'a> = Box<dyn Fn(&[f32]) -> Vec<f32> + 'a>;

/// Each path that the model has.
fn paths<'a>(subject: &'a Subject, setup: &'a Setup) -> Vec<Path<'a>> {
    let Setup { batch, length, width, .. } = *setup;
    let ids = move |values: &[f32], vocabulary: usize| {
        let ids = values.iter().map(|x| (x * vocabulary as f32) as i64).collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(ids, [batch, length]), &setup.device)
    };
    let host = |data: TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    let boxed = |forward| -> Path<'a> { forward };
    match &subject.model {
        Model::Embedded(forward) => std::iter::once(forward)
            .chain(&subject.cached)
            .map(|forward| {
                boxed(Box::new(move |values| {
                    let values = values.iter().map(|x| 3.4 * x - 1.7).collect::<Vec<_>>();
                    let data = TensorData::new(values, [batch, length, width]);
                    host(forward(Tensor::from_data(data, &setup.device)).into_data())
                }))
            })
            .collect(),
        Model::Tokens { vocabulary, forward } => {
            vec![boxed(Box::new(move |values| host(forward(ids(values, *vocabulary)).into_data())))]
        }
        // The first token has no loss.
        Model::Losses { vocabulary, losses } => vec![boxed(Box::new(move |values| {
            let losses = host(losses(ids(values, *vocabulary)).into_data());
            losses.chunks(length - 1).flat_map(|row| [&[0.0], row].concat()).collect()
        }))],
    }
}

/// The derivative of each output of the first row by what is hidden from it must be zero. There is none
/// by a token.
fn gradients(subject: &Subject, setup: &Setup) -> Option<bool> {
    let Model::Embedded(forward) = &subject.model else { return None };
    let Setup { width, length, batch, .. } = *setup;
    let mut rng = StdRng::seed_from_u64(setup.seed);
    let mut draw =
        |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.7..1.7)).collect() };
    let promise = subject.promise.clone().unwrap_or_else(Mask::look_ahead);
    let hidden = promise.hidden_tensor(&Grid::square(batch, length), &setup.device);
    let hidden = hidden.expect("the promise fits").narrow(0, 0, 1).narrow(1, 0, 1);
    let hidden: Vec<bool> = hidden.into_data().iter().collect();
    let is_hidden = |query: usize, place: usize| {
        let (row, key) = (place / length, place % length);
        row > 0 || hidden[query * length + key] || subject.own_hidden && key == query
    };
    let mut leaks = |forward: &Embedded, query: usize| {
        let values = TensorData::new(draw(batch * length * width), [batch, length, width]);
        let x = Tensor::<3>::from_data(values, &setup.device).autodiff().require_grad();
        let output = forward(x.clone()).narrow(0, 0, 1).narrow(1, query, 1);
        let shape = output.dims();
        let weights = Tensor::from_data(TensorData::new(draw(shape[2]), shape), &setup.device);
        let Some(gradient) = x.grad(&(output * weights).sum().backward()) else { return false };
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        gradient.iter().enumerate().any(|(i, &x)| is_hidden(query, i / width) && x != 0.0)
    };
    let mut paths = std::iter::once(forward).chain(&subject.cached);
    Some(paths.any(|forward| (0..length).any(|query| leaks(forward, query))))
}

/// A readout is trained, over the outputs as they are, to predict the next of random tokens; a loss
/// below what any causal model can reach is a leak. Losses are taken as they are. What may be seen of
/// the past it does not know.
fn loss_floor(subject: &Subject, setup: &Setup) -> Option<bool> {
    if subject.promise.is_some() {
        return None;
    }
    let table = setup.matrix(200, [IDS, setup.width]) * 2.0;
    let ahead = usize::from(!subject.own_hidden);
    Some(match &subject.model {
        Model::Embedded(forward) => std::iter::once(forward)
            .chain(&subject.cached)
            .any(|forward| can_be_read(setup, ahead, |tokens| forward(embed(&table, tokens)))),
        Model::Tokens { forward, .. } => can_be_read(setup, ahead, forward),
        Model::Losses { losses, .. } => falls_below(setup, |_, tokens| {
            let losses: Vec<f32> = losses(tokens).into_data().iter().collect();
            (losses.iter().sum::<f32>() as f64 / losses.len() as f64, losses.len())
        }),
    })
}

const IDS: usize = 7;

/// Whether the loss `(mean, tokens)` of random tokens, which are given as numbers and as a tensor,
/// falls below what is possible.
fn falls_below(
    setup: &Setup,
    mut loss: impl FnMut(&[i64], Tensor<2, Int>) -> (f64, usize),
) -> bool {
    const BATCHES: usize = 300;
    let Setup { length, batch, device, .. } = setup;
    let mut alarm = LossAlarm::uniform(IDS).unwrap();
    let mut rng = StdRng::seed_from_u64(setup.seed);
    (0..BATCHES).any(|_| {
        let ids: Vec<i64> = (0..batch * length).map(|_| rng.random_range(0..IDS as i64)).collect();
        let tokens = Tensor::from_data(TensorData::new(ids.clone(), [*batch, *length]), device);
        let (mean, count) = loss(&ids, tokens);
        alarm.observe(mean, count).is_err()
    })
}

/// Whether a linear readout of the outputs learns the token that comes `ahead`.
fn can_be_read(setup: &Setup, ahead: usize, forward: impl Fn(Tensor<2, Int>) -> Tensor<3>) -> bool {
    let Setup { length, batch, .. } = *setup;
    let mut readout: Vec<f64> = Vec::new();
    falls_below(setup, |ids, tokens| {
        let outputs = forward(tokens);
        let width = outputs.dims()[2];
        let outputs: Vec<f32> = outputs.into_data().iter().collect();
        readout.resize((width + 1) * IDS, 0.0);
        let mut gradient = vec![0.0; readout.len()];
        let (mut sum, mut count) = (0.0, 0);
        for row in 0..batch {
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
        readout.iter_mut().zip(gradient).for_each(|(x, slope)| *x -= 0.3 * slope / count as f64);
        (sum / count as f64, count)
    })
}

fn checker(subject: &Subject, setup: &Setup) -> Option<bool> {
    Some(subject.check(setup).leaks().next().is_some())
}

/// Each way, and the seeds that it is tried with.
const WAYS: [(&str, OldWay, u64); 4] = [
    ("suffixes, 8 passes", suffixes, 20),
    ("gradients", gradients, 20),
    ("loss floor", loss_floor, 3),
    ("this checker", checker, 20),
];

/// How many forms a way caught with every seed, with some, and to how many it can't be applied.
#[derive(Clone, Copy, Default)]
struct Count {
    always: usize,
    sometimes: usize,
    not_applicable: usize,
    accused: usize,
}

#[cfg(feature = "flex")]
#[test]
#[ignore = "a report"]
fn table() {
    let device = Device::flex();
    println!("| form | {} |", WAYS.map(|(name, ..)| name).join(" | "));
    let mut counts = [Count::default(); WAYS.len()];
    for form in leaking() {
        let cells = WAYS.iter().zip(&mut counts).map(|((_, look, seeds), count)| {
            let looks = (0..*seeds).map(|seed| {
                let setup = setup(seed, &device);
                look(&(form.build)(&setup), &setup)
            });
            let Some(found) = looks.collect::<Option<Vec<bool>>>() else {
                count.not_applicable += 1;
                return "not applicable".to_string();
            };
            let times = found.iter().filter(|found| **found).count();
            count.always += usize::from(times == found.len());
            count.sometimes += usize::from(times > 0);
            format!("{times}/{seeds}")
        });
        println!("| {} | {} |", form.name, cells.collect::<Vec<_>>().join(" | "));
    }
    for Right { name, build } in right() {
        for ((way, look, _), count) in WAYS.iter().zip(&mut counts) {
            let setup = setup(0, &device);
            if look(&build(&setup), &setup) == Some(true) {
                count.accused += 1;
                println!("accused by {way}: {name}");
            }
        }
    }
    let (leaking, right) = (leaking().len(), right().len());
    for ((way, ..), Count { always, sometimes, not_applicable, accused }) in WAYS.iter().zip(counts)
    {
        println!(
            "{way}: of {leaking} {always} on every seed, {sometimes} on some, {not_applicable} not \
             applicable; of {right} right ones {accused} accused"
        );
    }
}

/// The ways are not broken: each catches what it is made for, and not what it can't see.
#[cfg(feature = "flex")]
#[test]
fn each_sees_what_it_can() {
    let setup = setup(0, &Device::flex());
    for (name, sees) in [
        ("no mask", [Some(true), Some(true), Some(true)]),
        ("batch norm in training", [Some(true), Some(true), Some(false)]),
        ("learned positions from the right", [Some(false); 3]),
        ("a cache that is read to its end", [Some(true); 3]),
        ("window one too wide", [None, Some(true), None]),
        ("labels not shifted", [Some(false), None, Some(false)]),
    ] {
        let form = leaking().into_iter().find(|form| form.name == name).unwrap();
        let subject = (form.build)(&setup);
        let seen = [suffixes, gradients, loss_floor].map(|way: OldWay| way(&subject, &setup));
        assert_eq!(seen, sees, "{name}");
    }
}
