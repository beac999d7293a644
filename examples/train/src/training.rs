//! The training: burn-train's `SupervisedTraining`, with everything that it is given.

use std::io::{IsTerminal, stdout};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::Dataset;
use burn::tensor::Device;
use burn::train::checkpoint::{
    ComposedCheckpointingStrategy, KeepLastNCheckpoints, MetricCheckpointingStrategy,
};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{LearningRateMetric, LossMetric};
use burn::train::renderer::MetricsRenderer;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::{
    ExecutionStrategy, Interrupter, Learner, MetricEarlyStoppingStrategy, MultiDeviceOptim,
    StoppingCondition, SupervisedTraining,
};
use burn_decoder::causality::Report;
use burn_decoder::training::{BitsPerByteMetric, CausalityMetric, NoiseAlarmMetric};
use shared::say;
use tokenizers::Tokenizer;

use super::args::Settings;
use super::checkpoints::Checkpoints;
use super::epochs::Epochs;
use super::failure::Failure;
use super::history::History;
use super::lines::Lines;
use super::model::NextToken;
use super::optimizer;
use super::resumed::{ResumedCheckpointing, ResumedStopping};
use super::rows::{RowBatcher, TextBatch, TrainingRows, ValidationRows, mix};
use super::run_folder::RunFolder;
use super::samples::SampleMetric;
use super::text::Stream;

/// Tokens in a row of the causality check: a missing mask shows in few as well as in many.
pub const CHECKED: usize = 16;

/// How many of the commonest tokens the noise is drawn from.
const NOISE: usize = 32;

/// How a training ended.
pub enum Ended {
    /// At its last step, or early since nothing got better.
    Done,
    /// By the alarm: why, and who saw whom.
    Leak(String, Option<Report>),
}

/// What is trained, and on what.
pub struct Training<'a> {
    pub settings: &'a Settings,
    pub folder: &'a RunFolder,
    pub checkpoints: &'a Arc<Checkpoints>,
    pub tokenizer: Arc<Tokenizer>,
    pub training: Arc<Stream>,
    pub validation: Arc<Stream>,
    pub devices: Vec<Device>,
    /// Lines instead of the dashboard.
    pub plain: bool,
}

impl Training<'_> {
    /// Trains from the last checkpoint on, until the end or until something stops it.
    pub fn run(&self, model: NextToken) -> Result<Ended, Failure> {
        let Self { settings, folder, checkpoints, devices, .. } = self;
        let done = checkpoints.newest(say).unwrap_or(0);
        checkpoints.forget_after(done)?;
        folder.forget_logs_after(done)?;
        if done > 0 {
            say(format_args!(
                "going on from checkpoint {done}, step {} of {}",
                done * settings.validate_every,
                settings.steps
            ));
        }
        if History::read(&folder.logs(), settings).has_lost_patience(settings.patience) {
            return Ok(Ended::Done); // It was killed between its last step and its page.
        }
        let vocabulary = model.language.vocab_size();
        let epochs = settings.epochs();
        let interrupter = Interrupter::new();

        let noise = self.training.common_tokens(NOISE);
        let noise = NoiseAlarmMetric::new(noise, settings.context.min(64), &interrupter)?
            .with_seed(mix(settings.seed ^ done as u64));
        let check = CausalityMetric::new(vocabulary, settings.context.min(CHECKED));
        let (found, seen) = (noise.found(), check.clone());

        let keep = ComposedCheckpointingStrategy::builder()
            .add(KeepLastNCheckpoints::new(2))
            .add(MetricCheckpointingStrategy::new(
                &LossMetric::new(),
                Aggregate::Mean,
                Direction::Lowest,
                Split::Valid,
            ))
            .build();
        let (models, optimizers, schedules) = checkpoints.checkpointers();
        let (training_rows, validation_rows) = self.loaders(done);
        let mut training =
            SupervisedTraining::<NextToken>::new(folder.logs(), training_rows, validation_rows)
                .with_application_logger(None)
                .with_interrupter(interrupter.clone())
                .with_training_strategy(self.strategy().into())
                .with_custom_checkpointers(models, optimizers, schedules)
                .with_checkpointing_strategy(ResumedCheckpointing::new(keep))
                .renderer(self.renderer(&interrupter, done))
                .num_epochs(epochs)
                .metric_train_numeric(LossMetric::new())
                .metric_valid_numeric(LossMetric::new())
                .metric_valid_numeric(BitsPerByteMetric::new())
                .metric_valid_numeric(noise)
                .metric_valid_numeric(check)
                .metric_train_numeric(LearningRateMetric::new());
        if settings.sample > 0 {
            let separator = self.training.separator;
            training = training.metric_valid(SampleMetric::new(
                self.tokenizer.clone(),
                separator,
                settings,
            ));
        }
        if settings.accumulate > 1 {
            training = training.grads_accumulation(settings.accumulate);
        }
        if settings.recompute {
            training = training.gradient_checkpointing();
        }
        let mut stopped_early = None;
        if let Some(n_epochs) = settings.patience {
            let (stopping, stopped) = ResumedStopping::new(MetricEarlyStoppingStrategy::new(
                &LossMetric::new(),
                Aggregate::Mean,
                Direction::Lowest,
                Split::Valid,
                StoppingCondition::NoImprovementSince { n_epochs },
            ));
            training = training.early_stopping(stopping);
            stopped_early = Some(stopped);
        }
        if done > 0 {
            training = training.checkpoint(done);
        }

        let optimizer = optimizer::optimizer(settings, &devices[0]);
        let schedule = optimizer::schedule(settings)?;
        let result = training.launch(Learner::new(model, optimizer, schedule));

        if let Some(why) = found.reason() {
            return Ok(Ended::Leak(why, seen.report()));
        }
        if let Some(error) = &result.error {
            return Err(Failure::Run(error.to_string()));
        }
        let done = checkpoints.newest(say).unwrap_or(0);
        let stopped_early = stopped_early.is_some_and(|stopped| stopped.load(Ordering::Relaxed));
        if done < epochs && !stopped_early {
            return Err(Failure::Run(format!(
                "interrupted behind checkpoint {done}, step {}; the same command goes on from there",
                done * settings.validate_every
            )));
        }
        Ok(Ended::Done)
    }

    /// The rows of the epochs that are left, and those of a validation.
    #[allow(clippy::type_complexity)]
    fn loaders(
        &self,
        done: usize,
    ) -> (Arc<dyn DataLoader<TextBatch>>, Arc<dyn DataLoader<TextBatch>>) {
        let Self { settings, devices, .. } = self;
        let loader = |rows: usize| {
            DataLoaderBuilder::new(RowBatcher).batch_size(rows).set_device(devices[0].clone())
        };
        let training = TrainingRows::new(self.training.clone(), settings);
        let training = loader(settings.rows_in_a_pass()).build(training);
        let training = Epochs::new(&training, settings.epochs(), done, settings.seed, &devices[0]);
        let validation = ValidationRows::new(self.validation.clone(), settings);
        // All batches of one size: burn-train takes the mean of their losses.
        let rows = validation.len();
        let batch = (1..=rows.min(32)).rev().find(|batch| rows.is_multiple_of(*batch)).unwrap_or(1);
        (Arc::new(training), loader(batch).build(validation))
    }

    /// Where the steps run.
    fn strategy(&self) -> ExecutionStrategy {
        match self.devices.as_slice() {
            [device] => ExecutionStrategy::single(device.clone()),
            devices => {
                ExecutionStrategy::multi(devices.to_vec(), MultiDeviceOptim::OptimMainDevice)
            }
        }
    }

    /// burn-train's dashboard on a terminal, lines elsewhere.
    fn renderer(&self, interrupter: &Interrupter, done: usize) -> Box<dyn MetricsRenderer> {
        if stdout().is_terminal() && !self.plain {
            let checkpoint = (done > 0).then_some(done);
            return Box::new(TuiMetricsRendererWrapper::new(interrupter.clone(), checkpoint));
        }
        Box::new(Lines::new(self.settings.validate_every))
    }
}
