//! The loss alarm as a metric, for tokens that nothing can predict and that the training has anyway.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorReadError};
use burn::train::Interrupter;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::Found;
use crate::causality::LossAlarm;

/// The loss of tokens that can't be predicted: what a [`LossAlarmMetric`] asks an output for.
#[derive(Clone, Debug)]
pub struct UnpredictableLoss {
    /// The mean of `-ln p(token)`, in nats, `[1]`: from the pass before the weights were updated with
    /// these tokens.
    pub loss: Tensor<1>,
    /// How many tokens it is the mean of.
    pub tokens: usize,
}

/// A [`LossAlarm`] that watches a part of the training's own data, and stops the training when its
/// loss falls below what a causal model can reach.
///
/// ```no_run
/// # use burn::train::{LearnerModel, SupervisedTraining, TrainStep};
/// # use burn::train::metric::Adaptor;
/// use burn_decoder::causality::LossAlarm;
/// use burn_decoder::training::{LossAlarmMetric, UnpredictableLoss};
///
/// # fn add<M: LearnerModel>(training: SupervisedTraining<M>) -> burn_decoder::Result<()>
/// # where <M as TrainStep>::Output: Adaptor<UnpredictableLoss> {
/// let alarm = LossAlarmMetric::new(LossAlarm::uniform(32)?, &training.interrupter());
/// let training = training.metric_train_numeric(alarm);
/// # let _ = training;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LossAlarmMetric {
    watch: AlarmWatch,
    state: NumericMetricState,
}

impl LossAlarmMetric {
    /// Watches by `alarm`; stops by `interrupter`.
    #[must_use]
    pub fn new(alarm: LossAlarm, interrupter: &Interrupter) -> Self {
        Self { watch: AlarmWatch::new(alarm, interrupter), state: NumericMetricState::new() }
    }

    /// Tells, also after the training, whether the alarm stopped it.
    pub fn found(&self) -> Found {
        self.watch.found.clone()
    }
}

/// An alarm with what it stops. Clones share it.
#[derive(Clone)]
pub(super) struct AlarmWatch {
    alarm: Arc<Mutex<LossAlarm>>,
    interrupter: Interrupter,
    pub found: Found,
}

impl AlarmWatch {
    pub fn new(alarm: LossAlarm, interrupter: &Interrupter) -> Self {
        Self {
            alarm: Arc::new(Mutex::new(alarm)),
            interrupter: interrupter.clone(),
            found: Found::default(),
        }
    }

    pub fn observe(&self, loss: f64, tokens: usize) {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(below) = alarm.observe(loss, tokens) {
            self.found.stop(&self.interrupter, below);
        }
    }
}

impl Metric for LossAlarmMetric {
    type Input = UnpredictableLoss;

    fn update(
        &mut self,
        item: &UnpredictableLoss,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let loss = item.loss.clone().mean().try_into_scalar::<f64>()?;
        self.watch.observe(loss, item.tokens);
        self.state.update(loss, item.tokens);
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(4)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(4)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        Arc::new("Unpredictable loss".into())
    }

    fn description(&self) -> Option<String> {
        Some(
            "Loss of tokens that no causal model can predict; lower than its floor is a leak"
                .into(),
        )
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: Some("nats".into()), higher_is_better: false }.into()
    }
}

impl Numeric for LossAlarmMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}
