//! Each metric on models that leak and on models that do not.

use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::tensor::{Device, ExecutionError, Int, Tensor};
use burn::train::logger::{EvaluationProgressLogger, InMemoryMetricLogger, TrainingProgressLogger};
use burn::train::metric::{Adaptor, ItemLazy, Metric, MetricMetadata, Numeric};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{
    InferenceStep, Interrupter, Learner, SupervisedTraining, TrainOutput, TrainStep,
};

use super::*;
use crate::causality::LossAlarm;

const SYMBOLS: usize = 7;

fn device() -> Device {
    crate::kernels::cpus().remove(0)
}

fn metadata() -> MetricMetadata {
    let progress = burn::data::dataloader::Progress::new(1, 1, None);
    MetricMetadata { progress, iteration: Some(1), lr: None }
}

/// Says the next token with certainty `weight`, having seen it: one-hot vectors, shifted.
fn clairvoyant(tokens: Tensor<2, Int>, weight: f64) -> Tensor<3> {
    let [_, length] = tokens.dims();
    let one_hot = tokens.one_hot::<3>(SYMBOLS).float();
    Tensor::cat(vec![one_hot.clone().narrow(1, 1, length - 1), one_hot.narrow(1, 0, 1)], 1) * weight
}

fn blind(tokens: Tensor<2, Int>) -> Tensor<3> {
    tokens.one_hot::<3>(SYMBOLS).float() * 0.3
}

/// Counts the tokens so far.
fn hindsight(tokens: Tensor<2, Int>) -> Tensor<3> {
    blind(tokens).cumsum(1)
}

#[test]
fn noise_stops_what_sees_the_future_and_nothing_else() {
    let see = |forward: fn(Tensor<2, Int>) -> Tensor<3>| {
        let interrupter = Interrupter::new();
        let mut metric = NoiseAlarmMetric::new(0..SYMBOLS as u32, 31, &interrupter).unwrap();
        for _ in 0..5 {
            for _ in 0..3 {
                metric.update(&ForwardPass::new(&device(), forward), &metadata()).unwrap();
            }
            metric.compute().unwrap();
            metric.clear();
        }
        (interrupter.should_stop(), metric.found().reason())
    };
    assert_eq!(see(blind), (false, None));
    let (stopped, reason) = see(|tokens| clairvoyant(tokens, 3.0));
    assert!(stopped);
    let reason = reason.unwrap();
    assert!(reason.contains("expected at least 1.9459"), "{reason}"); // ln 7
}

#[test]
fn noise_needs_symbols() {
    let interrupter = Interrupter::new();
    for (symbols, expected) in
        [(vec![], "at least 2"), (vec![3], "at least 2"), (vec![3, 4, 3], "3 twice")]
    {
        let error = NoiseAlarmMetric::new(symbols, 8, &interrupter).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(NoiseAlarmMetric::new(0..5, 0, &interrupter).is_err());
}

#[test]
fn the_alarm_stops_at_a_loss_below_the_floor() {
    let interrupter = Interrupter::new();
    let alarm = LossAlarm::uniform(SYMBOLS).unwrap();
    let mut metric = LossAlarmMetric::new(alarm, &interrupter);
    let loss =
        |loss: f32| UnpredictableLoss { loss: Tensor::from_floats([loss], &device()), tokens: 500 };
    metric.update(&loss(2.0), &metadata()).unwrap();
    assert!(!interrupter.should_stop());
    metric.update(&loss(1.8), &metadata()).unwrap();
    assert!(interrupter.should_stop());
    assert!(metric.found().reason().unwrap().contains("nats"));
    assert!((metric.final_value().current() - 1.9).abs() < 1e-6);
}

#[test]
fn leaks_are_counted_and_stop_if_asked_to() {
    let pass = |weight| ForwardPass::new(&device(), move |tokens| clairvoyant(tokens, weight));
    let mut metric = CausalityMetric::new(SYMBOLS, 11);
    metric.update(&pass(1.0), &metadata()).unwrap();
    // Each query but the last sees the next key; the last sees the first, which it may.
    assert_eq!(metric.final_value().current(), 10.0);
    assert_eq!(metric.found().reason(), None);
    assert!(!metric.report().unwrap().is_causal());

    let interrupter = Interrupter::new();
    let mut metric = CausalityMetric::new(SYMBOLS, 11).stopping(&interrupter);
    metric.update(&ForwardPass::new(&device(), hindsight), &metadata()).unwrap();
    assert_eq!(metric.final_value().current(), 0.0);
    assert!(!interrupter.should_stop());
    // Until the validation ends, its model is looked at once.
    metric.update(&pass(1.0), &metadata()).unwrap();
    assert!(!interrupter.should_stop());
    metric.clear();
    metric.update(&pass(1.0), &metadata()).unwrap();
    assert!(interrupter.should_stop());
    let reason = metric.found().reason().unwrap();
    assert!(reason.contains("moves query"), "{reason}");
}

#[test]
fn a_model_of_no_numbers_is_not_called_causal() {
    let mut metric = CausalityMetric::new(SYMBOLS, 11);
    let nan = ForwardPass::new(&device(), |tokens| blind(tokens) * f32::NAN);
    metric.update(&nan, &metadata()).unwrap();
    assert!(metric.final_value().current().is_nan());
}

#[test]
fn bits_are_counted_for_each_byte() {
    let text = |loss: f32, tokens, bytes| TextLoss {
        loss: Tensor::from_floats([loss], &device()),
        tokens,
        bytes,
    };
    let mut metric = BitsPerByteMetric::new();
    metric.update(&text(2.0, 3, 11), &metadata()).unwrap();
    metric.update(&text(5.0, 7, 13), &metadata()).unwrap();
    let expected = (2.0 * 3.0 + 5.0 * 7.0) / 2.0_f64.ln() / 24.0;
    assert!((metric.final_value().current() - expected).abs() < 1e-6);
    let last = 5.0 * 7.0 / 2.0_f64.ln() / 13.0;
    assert!((metric.value().unwrap().current() - last).abs() < 1e-6);
    metric.clear();
    metric.update(&text(1.0, 1, 1), &metadata()).unwrap();
    assert!((metric.final_value().current() - 1.0 / 2.0_f64.ln()).abs() < 1e-6);
}

/// A model for burn-train that has nothing to do with this crate: it sees the future, more and more.
#[derive(Module, Debug)]
struct Clairvoyant {
    weight: Param<Tensor<1>>,
}

struct Seen {
    pass: Option<ForwardPass>,
}

impl ItemLazy for Seen {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<ForwardPass> for Seen {
    fn adapt(&self) -> ForwardPass {
        self.pass.clone().expect("asked for in validation")
    }
}

impl TrainStep for Clairvoyant {
    type Input = ();
    type Output = Seen;

    fn step(&self, (): ()) -> TrainOutput<Seen> {
        let loss = -self.weight.val().sum();
        TrainOutput::new(self, loss.backward(), Seen { pass: None })
    }
}

impl InferenceStep for Clairvoyant {
    type Input = ();
    type Output = Seen;

    fn step(&self, (): ()) -> Seen {
        let weight = self.weight.val().into_scalar::<f64>();
        let pass = move |tokens| clairvoyant(tokens, weight);
        Seen { pass: Some(ForwardPass::new(&self.weight.device(), pass)) }
    }
}

struct Nothing;

impl Batcher<(), ()> for Nothing {
    fn batch(&self, _: Vec<()>, _: &Device) {}
}

/// Writes nothing.
struct Silent;

impl MetricsRendererTraining for Silent {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
}

impl MetricsRendererEvaluation for Silent {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl TrainingProgressLogger for Silent {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
    fn update_epoch(&mut self, _: usize) {}
    fn start_split(&mut self, _: &str, _: usize) {}
    fn update_split(&mut self, _: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _: String) {}
}

impl EvaluationProgressLogger for Silent {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRenderer for Silent {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: burn::train::metric::MetricDefinition) {}
}

#[test]
fn one_line_watches_any_learner() {
    let folder = tempfile::tempdir().unwrap();
    let device = device();
    let loader = || {
        DataLoaderBuilder::new(Nothing)
            .batch_size(1)
            .set_device(device.clone())
            .build(InMemDataset::new(vec![(); 4]))
    };
    let model = Clairvoyant { weight: Param::from_tensor(Tensor::zeros([1], &device)) }.train();
    let training = SupervisedTraining::new(folder.path(), loader(), loader())
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::new())
        .renderer(Box::new(Silent))
        .with_training_strategy(burn::train::ExecutionStrategy::single(device.clone()).into())
        .num_epochs(9);
    let interrupter = training.interrupter();

    let alarm = NoiseAlarmMetric::new(0..SYMBOLS as u32, 31, &interrupter).unwrap();
    let check = CausalityMetric::new(SYMBOLS, 11);
    let (found, seen) = (alarm.found(), check.clone());
    let training = training.metric_valid_numeric(alarm).metric_valid_numeric(check);

    let optimizer = burn::optim::SgdConfig::new().init();
    let result = training.launch(Learner::new(model, optimizer, 0.125));
    // The weight grows by a half in each epoch, and the alarm takes it for chance no longer.
    let weight = result.model.weight.val().into_scalar::<f64>();
    assert!(weight < 2.0, "stopped at a weight of {weight}");
    assert!(result.interrupted.unwrap().reason.unwrap().contains("expected at least 1.9459"));
    assert!(found.reason().is_some());
    assert!(!seen.report().unwrap().is_causal());
}
