//! The parts of the training, one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::data::dataset::Dataset;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn::train::TrainStep;
use burn_decoder::mask::Grid;
use burn_decoder::optim::without_decay;
use shared::Backend;
use train::args::Settings;
use train::model::NextToken;
use train::optimizer::{optimizer, schedule};
use train::rows::{RowBatcher, TrainingRows, draw};
use train::start::Start;
use train::text::{Stream, Texts};
use train::tokenizer;

use crate::{backend, folder, parse, train};

fn device() -> Device {
    let backend = if backend() == "flex" { Backend::Flex } else { Backend::Ndarray };
    backend.device("train").unwrap()
}

fn settings(more: &str) -> Settings {
    let more = format!("{} {more}", crate::TINY);
    parse("text".as_ref(), "run".as_ref(), &more).settings
}

/// Tokens 1, 2, 3, ... with the separator 0 at some places.
fn stream(length: usize, separators: &[usize]) -> Stream {
    let token = |at: usize| if separators.contains(&at) { 0 } else { 1 + at as u32 };
    Stream { tokens: (0..length).map(token).collect(), bytes: vec![1; length], separator: 0 }
}

#[test]
fn documents_in_a_row_are_blind_to_each_other_and_count_anew() {
    use burn::data::dataloader::batcher::Batcher;

    // One row is possible: all of it.
    let rows = TrainingRows::new(Arc::new(stream(17, &[0, 5, 13])), &settings(""));
    let batch = RowBatcher.batch(vec![rows.get(0).unwrap(), rows.get(1).unwrap()], &device());
    assert_eq!(batch.read.dims(), [2, 16]);
    assert_eq!(batch.bytes, 32);
    let read: Vec<i64> = batch.read.to_data().iter::<i64>().collect();
    let said: Vec<i64> = batch.said.to_data().iter::<i64>().collect();
    assert_eq!(read[..7], [0, 2, 3, 4, 5, 0, 7]);
    assert_eq!(said[..7], [2, 3, 4, 5, 0, 7, 8]); // the end of a document is said too
    let known = batch.rows();
    let mask = known.mask.unwrap().lower(&Grid::square(2, 16)).unwrap();
    for (query, key, visible) in [(4, 0, true), (5, 4, false), (12, 5, true), (13, 12, false)] {
        assert_eq!(mask.is_visible(1, 0, query, key), visible, "{query} {key}");
    }
    let ids = known.positions.ids(2, 0, 16).unwrap();
    assert_eq!(ids.as_slice()[..16], [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2]);
}

#[test]
fn devices_share_the_rows_of_each_step() {
    let stream = Arc::new(stream(5000, &[0]));
    let more = "--batch 12 --steps 6 --validate-every 3 --warm-up 1";
    let one = settings(more);
    let two = settings(&format!("{more} --devices flex,ndarray --accumulate 2"));
    let [one, two] = [&one, &two].map(|settings| TrainingRows::new(stream.clone(), settings));
    assert_eq!((one.len(), two.len()), (72, 72));
    let row = |rows: &TrainingRows, index| format!("{:?}", rows.get(index).unwrap());
    for epoch in 0..2 {
        for step in 0..3 {
            let begin = epoch * 36 + step * 12;
            let expected: BTreeSet<String> =
                (begin..begin + 12).map(|index| row(&one, index)).collect();
            // Each device reads six rows of the step, from its half of the epoch.
            let halves = [0, 18].map(|device| epoch * 36 + device + step * 6);
            let got: BTreeSet<String> = halves
                .into_iter()
                .flat_map(|begin| begin..begin + 6)
                .map(|index| row(&two, index))
                .collect();
            assert_eq!(got, expected, "epoch {epoch}, step {step}");
            assert!(got.len() > 6);
        }
    }
}

#[test]
fn windows_are_drawn_evenly() {
    let mut counts = [0_usize; 7];
    for place in 0..7000 {
        counts[draw(1337, place, 7) as usize] += 1;
    }
    // Standard deviation 29.
    assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    assert_ne!(draw(1, 5, 1 << 40), draw(2, 5, 1 << 40));
}

#[test]
fn tokens_tell_how_many_bytes_they_stand_for() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a", "b"].map(|name| folder.path().join(name));
    std::fs::write(&first, "naïve cafés<|endoftext|>éé").unwrap();
    std::fs::write(&second, "façade").unwrap();
    let texts = Texts::read(&[first, second]).unwrap();
    for more in ["", "--tokens bpe --vocab 260"] {
        let tokenizer = tokenizer::make(&settings(more), &texts).unwrap();
        let stream = texts.encode(&tokenizer).unwrap();
        let separators = stream.tokens.iter().filter(|token| **token == stream.separator).count();
        assert_eq!(separators, 3, "{more}");
        assert_eq!(stream.tokens[0], stream.separator);
        let bytes: u32 = stream.bytes.iter().sum();
        assert_eq!(bytes as usize, "naïve caféséé".len() + "façade".len(), "{more}");
        let text = tokenizer.decode(&stream.tokens, true).unwrap();
        assert_eq!(text, "naïve caféséé".to_string() + "façade", "{more}");
    }
}

/// A model by the settings of the smallest run.
fn model() -> (Settings, NextToken) {
    let (folder, text) = folder();
    let out = folder.path().join("run");
    train(&text, &out, crate::TINY).unwrap();
    let settings = settings("");
    let start = Start::new(&out, &settings, &device()).unwrap();
    let model = NextToken::new(start.trainee(&settings), 1, 2.0);
    (settings, model)
}

/// Each parameter with its path and values.
#[derive(Default)]
struct Values(Vec<String>, Vec<(String, Vec<f32>)>);

impl ModuleVisitor for Values {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().iter::<f32>().collect();
        self.1.push((self.0.join("."), values));
    }
}

fn values(model: &NextToken) -> Vec<(String, Vec<f32>)> {
    let mut values = Values::default();
    model.visit(&mut values);
    values.1
}

/// A gradient of one value everywhere.
struct Gradients(GradientsParams, f32);

impl ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().inner();
        self.0.register(param.id, value.zeros_like() + self.1);
    }
}

fn gradients(model: &NextToken, value: f32) -> GradientsParams {
    let mut gradients = Gradients(GradientsParams::new(), value);
    model.visit(&mut gradients);
    gradients.0
}

#[test]
fn matrices_decay_and_nothing_else() {
    let (settings, model) = model();
    let before = values(&model);
    let mut optimizer = optimizer(&settings, &device());
    let gradients = gradients(&model, 0.0);
    let after = values(&model.optimize(&mut optimizer, 0.5.into(), gradients));
    for ((path, before), (_, after)) in before.iter().zip(&after) {
        // Biases are 0 at the start: only their path says that they are left alone.
        let decays = ["attention.", "feed_forward."].iter().any(|part| path.contains(part))
            && path.ends_with("weight");
        let factor = if decays { 1.0 - 0.5 * settings.weight_decay as f32 } else { 1.0 };
        for (before, after) in before.iter().zip(after) {
            assert!((after - before * factor).abs() <= 1e-7, "{path}: {before} {after}");
        }
    }
}

/// A checkpoint of before this example took the one-pass AdamW.
#[test]
fn a_checkpoint_by_burns_optimizer_is_gone_on_with_bit_for_bit() {
    let (settings, model) = model();
    let burns = |decay: f64| {
        AdamWConfig::new()
            .with_beta_2(settings.beta_2 as f32)
            .with_epsilon(1e-8)
            .with_weight_decay(decay as f32)
            .build()
    };
    let mut before = ModuleOptimizer::from(burns(settings.weight_decay)).with_group(
        without_decay(&model),
        burns(0.0),
        None,
    );
    let step = |model: NextToken, optimizer: &mut ModuleOptimizer, gradient: f32| {
        let gradients = gradients(&model, gradient);
        model.optimize(optimizer, 0.01.into(), gradients)
    };
    let model = step(model, &mut before, 3e-3);
    let model = step(model, &mut before, -1e-3);
    let record = before.into_bytes().unwrap();
    let mut now = optimizer(&settings, &device()).from_bytes(record).unwrap();
    let expected = values(&step(model.clone(), &mut before, 2e-3));
    assert_eq!(values(&step(model.clone(), &mut now, 2e-3)), expected);
    let mut anew = optimizer(&settings, &device());
    assert_ne!(values(&step(model, &mut anew, 2e-3)), expected, "the moments matter");
}

#[test]
fn all_gradients_are_cut_together() {
    let (_, model) = model();
    let parameters = model.num_params() as f32;
    let step = |value: f32| {
        let before = values(&model);
        let gradients = gradients(&model, value);
        let mut optimizer = SgdConfig::new().init();
        let after = values(&model.clone().optimize(&mut optimizer, 1.0.into(), gradients));
        let moves = before.into_iter().zip(after).flat_map(|((_, before), (_, after))| {
            before.into_iter().zip(after).map(|(before, after)| before - after)
        });
        moves.collect::<Vec<f32>>()
    };
    // Cut to a norm of 2.
    let expected = 2.0 / parameters.sqrt();
    assert!(step(3.0).iter().all(|moved| (moved - expected).abs() < 1e-6));
    // Below it, left alone.
    let small = 0.5 / parameters.sqrt();
    assert!(step(small).iter().all(|moved| (moved - small).abs() < 1e-6));
}

#[test]
fn a_new_model_starts_as_gpt_2_does() {
    let (_, model) = model();
    for (path, values) in values(&model) {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32;
        let expected = match path.as_str() {
            path if path.ends_with("bias") || path.ends_with("beta") => (0.0, 0.0),
            path if path.ends_with("gamma") => (1.0, 0.0),
            path if path.contains("attention.output") || path.contains("down") => {
                (0.0, 0.02 / 2.0_f32.sqrt())
            }
            _ => (0.0, 0.02),
        };
        assert!((mean - expected.0).abs() < 3e-3, "{path}: mean {mean}");
        assert!((square.sqrt() - expected.1).abs() < 2e-3, "{path}: deviation {}", square.sqrt());
    }
}

#[test]
fn the_learning_rate_warms_up_and_falls() {
    let settings = settings(
        "--steps 40 --validate-every 4 --warm-up 4 --learning-rate 0.5 --final-learning-rate 0.1",
    );
    let mut schedule = schedule(&settings).unwrap();
    let rates: Vec<f64> = (0..41).map(|_| schedule.step().base()).collect();
    for (step, expected) in [(0, 0.1), (1, 0.2), (3, 0.4), (4, 0.5), (22, 0.3), (40, 0.1)] {
        assert!((rates[step] - expected).abs() < 1e-9, "step {step}: {}", rates[step]);
    }
}
