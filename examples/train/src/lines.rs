//! Progress in lines, where there is no terminal for burn-train's dashboard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use shared::say;

/// A line at least this often, and one for each validation.
const EVERY: Duration = Duration::from_secs(10);

/// Writes a line to standard error now and then.
pub struct Lines {
    /// Steps in an epoch, and items.
    steps: usize,
    epochs: usize,
    epoch: usize,
    items: usize,
    validates: bool,
    names: HashMap<MetricId, String>,
    training: HashMap<String, f64>,
    validation: HashMap<String, f64>,
    begun: Instant,
    said: Instant,
}

impl Lines {
    pub fn new(steps_in_an_epoch: usize) -> Self {
        Self {
            steps: steps_in_an_epoch,
            epochs: 0,
            epoch: 1,
            items: 1,
            validates: false,
            names: HashMap::new(),
            training: HashMap::new(),
            validation: HashMap::new(),
            begun: Instant::now(),
            said: Instant::now(),
        }
    }

    /// Name and value of what is measured.
    fn value(&self, state: &MetricState) -> Option<(String, f64)> {
        let MetricState::Numeric(entry, number) = state else { return None };
        let name = self.names.get(&entry.metric_id)?.clone();
        let number = match NumericEntry::deserialize(&entry.serialized_entry.serialized) {
            Ok(number) => number,
            Err(_) => number.clone()?,
        };
        Some((name, number.current()))
    }

    fn seconds(&self) -> String {
        format!("{:.1} s", self.begun.elapsed().as_secs_f64())
    }
}

impl MetricsRendererTraining for Lines {
    fn update_train(&mut self, state: MetricState) {
        let value = self.value(&state);
        self.training.extend(value);
    }

    fn update_valid(&mut self, state: MetricState) {
        let value = self.value(&state);
        self.validation.extend(value);
    }
}

impl TrainingProgressLogger for Lines {
    fn start(&mut self, epochs: usize, first: usize, _: Option<usize>, _: Option<&str>) {
        (self.epochs, self.epoch) = (epochs, first);
        (self.begun, self.said) = (Instant::now(), Instant::now());
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch = epoch + 1;
    }

    fn start_split(&mut self, split: &str, items: usize) {
        self.validates = split != "train";
        self.items = items.max(1);
    }

    fn update_split(&mut self, items: usize) {
        if self.validates || self.said.elapsed() < EVERY {
            return;
        }
        self.said = Instant::now();
        let step = (self.epoch - 1) * self.steps + self.steps * items / self.items;
        let loss = self.training.get("Loss").copied().unwrap_or(f64::NAN);
        say(format_args!(
            "step {step} of {}: loss {loss:.4}, {}",
            self.epochs * self.steps,
            self.seconds()
        ));
    }

    fn end_split(&mut self) {
        if !self.validates {
            return;
        }
        self.said = Instant::now();
        let of = |values: &HashMap<String, f64>, name: &str| {
            values.get(name).copied().unwrap_or(f64::NAN)
        };
        say(format_args!(
            "step {} of {}: validation loss {:.4} ({:.4} bits a byte), training loss {:.4}, loss on \
             noise {:.3}, leaks {}, {}",
            self.epoch * self.steps,
            self.epochs * self.steps,
            of(&self.validation, "Loss"),
            of(&self.validation, "Bits per byte"),
            of(&self.training, "Loss"),
            of(&self.validation, "Noise loss"),
            of(&self.validation, "Leaks"),
            self.seconds()
        ));
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _: String) {}
}

impl MetricsRenderer for Lines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name.to_string());
    }
}

// Nothing is evaluated in a training.
impl MetricsRendererEvaluation for Lines {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl EvaluationProgressLogger for Lines {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}
