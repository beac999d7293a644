//! Bits for each byte of text: a loss that does not depend on the tokenizer.
//!
//! ```text
//! bits per byte = Σ -log₂ p(token) / bytes of the text that the tokens stand for
//! ```
//!
//! Fewer, longer tokens have a higher loss each; per byte, models with different vocabularies can be
//! compared. (Gao et al. 2020, "The Pile", section 3.1.)

use std::sync::Arc;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry, format_float,
};

/// The loss on a text: what a [`BitsPerByteMetric`] asks an output for.
#[derive(Clone, Debug)]
pub struct TextLoss {
    /// The mean of `-ln p(token)`, in nats, `[1]`.
    pub loss: Tensor<1>,
    /// How many tokens it is the mean of.
    pub tokens: usize,
    /// How many bytes of text these tokens stand for.
    pub bytes: usize,
}

/// The loss in bits for each byte of text, over all batches of an epoch together.
#[derive(Clone, Debug, Default)]
pub struct BitsPerByteMetric {
    all: Sums,
    last: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    nats: f64,
    bytes: usize,
}

impl Sums {
    fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

impl BitsPerByteMetric {
    /// The metric.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn shown(&self, entry: NumericEntry) -> SerializedEntry {
        let [all, last] = [self.all, self.last].map(|sums| format_float(sums.bits_per_byte(), 4));
        SerializedEntry::new(format!("epoch {all} - batch {last}"), entry.serialize())
    }
}

impl Metric for BitsPerByteMetric {
    type Input = TextLoss;

    fn update(
        &mut self,
        text: &TextLoss,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let loss = text.loss.clone().mean().try_into_scalar::<f64>()?;
        self.last = Sums { nats: loss * text.tokens as f64, bytes: text.bytes };
        self.all.nats += self.last.nats;
        self.all.bytes += self.last.bytes;
        let entry = NumericEntry::Aggregated {
            aggregated_value: self.last.bits_per_byte(),
            count: self.last.bytes,
        };
        Ok(self.shown(entry))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.shown(self.final_value()))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn name(&self) -> MetricName {
        Arc::new("Bits per byte".into())
    }

    fn description(&self) -> Option<String> {
        Some("Loss in bits for each byte of text, whatever the tokenizer".into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: false }.into()
    }
}

impl Numeric for BitsPerByteMetric {
    fn value(&self) -> Option<NumericEntry> {
        let Sums { bytes, .. } = self.last;
        let aggregated_value = self.last.bits_per_byte();
        Some(NumericEntry::Aggregated { aggregated_value, count: bytes })
    }

    fn running_value(&self) -> Option<NumericEntry> {
        let Sums { bytes, .. } = self.all;
        let aggregated_value = self.all.bits_per_byte();
        Some(NumericEntry::Aggregated { aggregated_value, count: bytes })
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.all.bits_per_byte())
    }
}
