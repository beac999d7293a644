//! The training loop: AdamW on fresh strings, a learning rate that warms up and then decays, and an
//! alarm that stops it if the model predicts what can't be predicted.

use std::time::Instant;

use burn::lr_scheduler::LrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_decoder::optim::AdamWConfig;
use serde::Serialize;

use super::args::Settings;
use super::batch::{Batch, Half};
use super::failure::Failure;
use super::loss::{Losses, token_losses};
use super::model::CopyModel;
use super::progress::Progress;
use super::task::Task;

/// Steps between two looks at the loss. A look waits until the device has done all its work.
const LOOK_EVERY: usize = 10;

/// What one look saw: on strings that were fresh then.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub step: usize,
    /// What training makes small: both halves, weighted.
    pub loss: f64,
    /// Mean loss of the first half, in nats per token.
    pub first: f64,
    /// Mean loss of the copied half, in nats per token.
    pub copied: f64,
    /// Share of the batch's strings whose copied half is guessed without a mistake.
    pub exact: f64,
    pub learning_rate: f64,
    pub seconds: f64,
}

/// A model, and what was seen while it was trained.
pub struct Trained {
    pub model: CopyModel,
    pub looks: Vec<Look>,
    /// Why training ended before its time.
    pub stopped: Option<Stop>,
}

/// The alarm of a training.
#[derive(Clone, Debug, Serialize)]
pub struct Stop {
    pub step: usize,
    pub why: String,
}

/// A model that was trained before.
impl From<CopyModel> for Trained {
    fn from(model: CopyModel) -> Self {
        Self { model, looks: Vec::new(), stopped: None }
    }
}

/// Trains the model, until the end or until the alarm goes off.
pub fn train(
    mut model: CopyModel,
    settings: &Settings,
    task: &mut Task,
    device: &Device,
) -> Result<Trained, Failure> {
    let mut optimizer =
        AdamWConfig::new().with_beta_2(0.98).with_epsilon(1e-9).with_weight_decay(0.01).init();
    let mut schedule = schedule(settings)?;
    let mut looks = Vec::new();
    let mut progress = Progress::new(settings.steps, task.is_noise().then(|| task.floor()));
    // A text can be guessed; only the proof, on noise, tells whether it was.
    let mut alarm = task.is_noise().then(|| task.alarm());
    let mut stopped = None;
    let started = Instant::now();

    for step in 1..=settings.steps {
        let samples = task.training_batch(settings.batch)?;
        let batch = Batch::new(&samples, task, device);
        let logits = model.logits(&batch.input, &batch.memory)?;
        let losses = Losses::of(token_losses(logits.clone(), batch.targets.clone()), &batch);

        let gradients = GradientsParams::from_grads(losses.total().backward(), &model);
        let learning_rate = schedule.step();
        let rate = learning_rate.base();
        model = optimizer.step(learning_rate, model, gradients);

        if step % LOOK_EVERY == 0 || step == 1 || step == settings.steps {
            let look = Look {
                step,
                loss: losses.total().into_scalar::<f64>(),
                first: losses.first.into_scalar::<f64>(),
                copied: losses.copied.into_scalar::<f64>(),
                exact: exact_share(logits, &batch),
                learning_rate: rate,
                seconds: started.elapsed().as_secs_f64(),
            };
            if !(look.first.is_finite() && look.copied.is_finite()) {
                return Err(Failure::Run(format!(
                    "training diverged: the loss of step {step} is not a finite number; lower \
                     --learning-rate, now {}",
                    settings.learning_rate
                )));
            }
            progress.show(&look);
            let tokens = batch.count(Half::First);
            let known = task.known_beforehand(&samples) / tokens as f64;
            let alarmed = alarm.as_mut().map(|alarm| alarm.observe(look.first + known, tokens));
            looks.push(look);
            if let Some(Err(why)) = alarmed {
                stopped = Some(Stop { step, why: why.to_string() });
                break;
            }
        }
    }
    progress.finish();
    Ok(Trained { model: model.valid(), looks, stopped })
}

/// Up to the highest learning rate within the first fifteenth of the steps, then along a cosine
/// to 0.
fn schedule(settings: &Settings) -> Result<ModuleLrScheduler, Failure> {
    let highest = settings.learning_rate;
    let warm_up = (settings.steps / 15).max(1);
    let decay = (settings.steps - warm_up).max(1);
    let lowest = highest / warm_up as f64;
    SequentialLrSchedulerConfig::new(
        vec![
            LrSchedulerConfig::Linear(LinearLrSchedulerConfig::new(lowest, highest, warm_up)),
            LrSchedulerConfig::Cosine(CosineAnnealingLrSchedulerConfig::new(highest, decay)),
        ],
        vec![warm_up],
    )
    .init()
    .map_err(|error| Failure::Input(format!("--learning-rate: {error}")))
}

/// Share of the rows whose copied half is guessed without a mistake.
///
/// The model reads the right tokens here, not its own guesses. Without a mistake that is the same
/// thing, so this is the share of strings that greedy generation would copy exactly.
fn exact_share(logits: Tensor<3>, batch: &Batch) -> f64 {
    let [rows, queries] = batch.targets.dims();
    let wrong = logits.argmax(2).squeeze_dim::<2>(2).not_equal(batch.targets.clone()).into_data();
    let wrong: Vec<bool> = wrong.iter::<bool>().collect();
    let exact = wrong.chunks(queries).zip(&batch.halves).filter(|(wrong, halves)| {
        !wrong.iter().zip(*halves).any(|(&wrong, &half)| wrong && half == Some(Half::Copied))
    });
    exact.count() as f64 / rows as f64
}
