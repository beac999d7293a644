//! Logits on the host, to be compared place by place.

use burn::tensor::Tensor;

/// Logits on the host, `[batch, queries, vocab]`.
pub struct Logits {
    values: Vec<f32>,
    queries: usize,
    vocab: usize,
}

impl Logits {
    pub fn of(logits: Tensor<3>) -> Self {
        let [_, queries, vocab] = logits.dims();
        Self { values: logits.into_data().iter::<f32>().collect(), queries, vocab }
    }

    pub fn at(&self, row: usize, query: usize) -> &[f32] {
        let start = (row * self.queries + query) * self.vocab;
        &self.values[start..start + self.vocab]
    }

    pub fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |largest: f64, &value| largest.max(f64::from(value.abs())))
    }
}

/// The largest difference between two outputs; NaN if one of them has a NaN.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    let mut largest = 0.0;
    for (a, b) in a.iter().zip(b) {
        let difference = f64::from(a - b).abs();
        if difference.is_nan() {
            return difference;
        }
        largest = difference.max(largest);
    }
    largest
}
