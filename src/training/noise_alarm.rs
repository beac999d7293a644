//! The loss alarm for trainings on real text, where no floor is known: it draws its own noise.
//!
//! Text can be predicted, so its loss has no floor that one could know. Random tokens can't be: a
//! causal model's mean loss on tokens that are drawn evenly from `V` symbols is at least `ln V`,
//! however it was trained. A model that sees the future has learned to read the token that it is to
//! predict, and does so on noise as well, unless its text is so regular that the words ahead tell it
//! more than the very next token does. [`CausalityMetric`](super::CausalityMetric) sees that, too.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData, TensorReadError};
use burn::train::Interrupter;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::loss_alarm::AlarmWatch;
use super::{ForwardPass, Found};
use crate::causality::LossAlarm;
use crate::error::check_nonzero;
use crate::{Error, Result};

/// Rows of noise in each look.
const ROWS: usize = 8;

/// Measures the loss on fresh random tokens, once in each validation, and stops the training when
/// that is lower than any causal model can reach. See the [room](super) for how it is added.
#[derive(Clone)]
pub struct NoiseAlarmMetric {
    watch: AlarmWatch,
    symbols: Arc<[i64]>,
    length: usize,
    seed: u64,
    /// Looks so far: each has a stream of random numbers of its own.
    looks: u64,
    /// What this validation saw.
    seen: Option<f64>,
    state: NumericMetricState,
}

impl NoiseAlarmMetric {
    /// Draws noise of `length` tokens a row evenly from `symbols`: the vocabulary, or the tokens that
    /// are common in the training text, which show a leak sooner. Stops by `interrupter`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for fewer than two symbols, a symbol that comes twice, or a length of 0.
    pub fn new(
        symbols: impl IntoIterator<Item = u32>,
        length: usize,
        interrupter: &Interrupter,
    ) -> Result<Self> {
        let symbols: Vec<i64> = symbols.into_iter().map(i64::from).collect();
        check_nonzero("NoiseAlarmMetric::length", length)?;
        let mut sorted = symbols.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Config {
                field: "NoiseAlarmMetric::symbols",
                expected: "different tokens".into(),
                got: format!("{} twice", twice[0]),
            });
        }
        Ok(Self {
            watch: AlarmWatch::new(LossAlarm::uniform(symbols.len())?, interrupter),
            symbols: symbols.into(),
            length,
            seed: 0,
            looks: 0,
            seen: None,
            state: NumericMetricState::new(),
        })
    }

    /// Draws other noise.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Tells, also after the training, whether the alarm stopped it.
    pub fn found(&self) -> Found {
        self.watch.found.clone()
    }

    /// The mean loss of the model on noise that it has never seen, in nats.
    fn look(&mut self, pass: &ForwardPass) -> Result<f64, TensorReadError> {
        let shape = [ROWS, self.length + 1];
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.looks);
        self.looks += 1;
        let draw = |_| self.symbols[rng.random_range(0..self.symbols.len())];
        let noise: Vec<i64> = (0..shape[0] * shape[1]).map(draw).collect();
        let noise = Tensor::<2, Int>::from_data(TensorData::new(noise, shape), pass.device());
        let read = noise.clone().narrow(1, 0, self.length);
        let said = noise.narrow(1, 1, self.length).unsqueeze_dim::<3>(2); // [rows, length, 1]
        let losses = log_softmax(pass.run(read), 2).gather(2, said);
        Ok(-losses.mean().try_into_scalar::<f64>()?)
    }
}

impl Metric for NoiseAlarmMetric {
    type Input = ForwardPass;

    fn update(
        &mut self,
        pass: &ForwardPass,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let loss = match self.seen {
            Some(loss) => loss,
            None => {
                let loss = self.look(pass)?;
                self.watch.observe(loss, ROWS * self.length);
                self.seen = Some(loss);
                loss
            }
        };
        self.state.update(loss, 1);
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(4)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(4)))
    }

    fn clear(&mut self) {
        self.seen = None;
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        Arc::new("Noise loss".into())
    }

    fn description(&self) -> Option<String> {
        let floor = (self.symbols.len() as f64).ln();
        Some(format!(
            "Loss on fresh random tokens; a causal model can't come below {floor:.4} nats"
        ))
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: Some("nats".into()), higher_is_better: true }.into()
    }
}

impl Numeric for NoiseAlarmMetric {
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
