//! The causality checker as a metric: who sees whom, in every validation.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::TensorReadError;
use burn::train::Interrupter;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::{ForwardPass, Found};
use crate::causality::{CausalityCheck, Report, Verdict};

/// Runs a [`CausalityCheck`] on the model, once in each validation, and counts the pairs of a query
/// and a key that it must not see and does. See the [room](super) for how it is added.
///
/// Its value is no number where nothing can be proven, as for a model whose outputs are not finite;
/// [`report`](Self::report) says why.
#[derive(Clone)]
pub struct CausalityMetric {
    vocabulary: usize,
    length: usize,
    interrupter: Option<Interrupter>,
    found: Found,
    report: Arc<Mutex<Option<Report>>>,
    /// Whether this validation's model was looked at.
    seen: Option<f64>,
    state: NumericMetricState,
}

impl CausalityMetric {
    /// Checks rows of `length` random tokens below `vocabulary`, at least 2. It costs about as many
    /// passes of 8 rows as there are tokens in one ([`CausalityCheck::cost`]), so 16 tokens, which show
    /// a missing mask as well as 1000 do, are a good choice.
    #[must_use]
    pub fn new(vocabulary: usize, length: usize) -> Self {
        Self {
            vocabulary,
            length,
            interrupter: None,
            found: Found::default(),
            report: Arc::default(),
            seen: None,
            state: NumericMetricState::new(),
        }
    }

    /// Stops the training at the first leak.
    #[must_use]
    pub fn stopping(mut self, interrupter: &Interrupter) -> Self {
        self.interrupter = Some(interrupter.clone());
        self
    }

    /// Tells, also after the training, whether a leak stopped it.
    pub fn found(&self) -> Found {
        self.found.clone()
    }

    /// What the last check saw; none before the first, or if the model is not one from tokens to
    /// logits.
    pub fn report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, pass: &ForwardPass) -> f64 {
        let run = |tokens| pass.run(tokens);
        let check = CausalityCheck::tokens(self.vocabulary, self.length, pass.device(), run);
        let report = match check.run() {
            Ok(report) => report,
            Err(error) => {
                if let Some(interrupter) = &self.interrupter {
                    self.found.stop(interrupter, error);
                }
                return f64::NAN;
            }
        };
        let value = match report.verdict() {
            Verdict::Causal => 0.0,
            Verdict::Leak => leaking_pairs(&report) as f64,
            Verdict::NotProven(_) => f64::NAN,
        };
        if let (Some(leak), Some(interrupter)) = (report.leaks().next(), &self.interrupter) {
            self.found.stop(
                interrupter,
                format_args!(
                    "changing key {} moves query {}: {}",
                    leak.key, leak.query, leak.diagnosis
                ),
            );
        }
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        value
    }
}

/// How many keys move a query that they are hidden from.
fn leaking_pairs(report: &Report) -> usize {
    let influences = report.paths.iter().flat_map(|path| &path.influence);
    let leaking = |moved: &[bool], promised: &[bool]| {
        moved.iter().zip(promised).filter(|(moved, promised)| **moved && !**promised).count()
    };
    influences.map(|seen| leaking(&seen.moved, &seen.promised)).sum()
}

impl Metric for CausalityMetric {
    type Input = ForwardPass;

    fn update(
        &mut self,
        pass: &ForwardPass,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let leaks = match self.seen {
            Some(leaks) => leaks,
            None => *self.seen.insert(self.look(pass)),
        };
        self.state.update(leaks, 1);
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(0)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(0)))
    }

    fn clear(&mut self) {
        self.seen = None;
        self.state.reset();
    }

    fn name(&self) -> MetricName {
        Arc::new("Leaks".into())
    }

    fn description(&self) -> Option<String> {
        Some("Pairs of a query and a later key that moves it: 0 in a causal model".into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: false }.into()
    }
}

impl Numeric for CausalityMetric {
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
