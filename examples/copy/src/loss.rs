//! The loss, one half apart from the other.
//!
//! For a target token `v` after the past `x`, the loss is `-ln p(v | x)`. If `v` is drawn evenly
//! from V symbols, whatever the past, its mean is at least ln V for every model `p` that has only
//! seen the past (Gibbs' inequality). That is the floor under the first half.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use super::batch::{Batch, Half};
use super::failure::Failure;
use super::model::CopyModel;

/// How much the first half weighs beside the copied one in training.
///
/// There is nothing to learn in it, so it adds noise to the gradient, and less of it learns faster.
/// It still counts, so that a model that can see the future learns to use it: then the leak shows.
const FIRST_HALF_WEIGHT: f64 = 0.2;

/// The mean loss of each half, `[1]`.
pub struct Losses {
    pub first: Tensor<1>,
    pub copied: Tensor<1>,
}

impl Losses {
    pub fn of(token_losses: Tensor<2>, batch: &Batch) -> Self {
        let mean = |half| (token_losses.clone() * batch.mean_over(half)).sum();
        Self { first: mean(Half::First), copied: mean(Half::Copied) }
    }

    /// What training makes small.
    pub fn total(&self) -> Tensor<1> {
        self.first.clone() * FIRST_HALF_WEIGHT + self.copied.clone()
    }
}

/// The loss of every target, padding and SEP included, `[batch, queries]`.
pub fn token_losses(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    let targets = targets.unsqueeze_dim::<3>(2); // [batch, queries, 1]
    -log_softmax(logits, 2).gather(2, targets).squeeze_dim::<2>(2)
}

/// A mean and how sure it is.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Estimate {
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    pub tokens: usize,
}

impl Estimate {
    pub fn of(values: &[f64]) -> Self {
        let tokens = values.len();
        let mean = values.iter().sum::<f64>() / tokens as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let variance = squares / (tokens.max(2) - 1) as f64;
        Self { mean, standard_error: (variance / tokens as f64).sqrt(), tokens }
    }
}

/// The loss of one half, measured without training, over all the batches.
pub fn measure(model: &CopyModel, batches: &[Batch], half: Half) -> Result<Estimate, Failure> {
    let mut values = Vec::new();
    for batch in batches {
        let logits = model.logits(&batch.input, &batch.memory)?;
        let losses = token_losses(logits, batch.targets.clone()).into_data();
        let halves = batch.halves.iter().flat_map(|row| {
            let [_, queries] = batch.targets.dims();
            row.iter().copied().chain(std::iter::repeat(None)).take(queries)
        });
        let of_half = losses.iter::<f64>().zip(halves).filter(|&(_, one)| one == Some(half));
        values.extend(of_half.map(|(loss, _)| loss));
    }
    Ok(Estimate::of(&values))
}
