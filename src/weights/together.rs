//! Projections that are applied together, where their weights lie in blocks.

use burn::nn::Linear;
use burn::tensor::Tensor;

use super::blocks;
use super::use_blocks::refuse_training;
use crate::kernels::{self, Function, StoredWeight, Together};

/// The projections of `x`, side by side, as one operation: of a few rows on the CPU, by weights in blocks
/// without a bias or an adapter; else nothing.
///
/// # Shapes
///
/// - x: `[batch, rows, inputs]`
/// - output: `[batch, rows, outputs of all]`
///
/// # Panics
///
/// As [`linear`](super::linear).
pub(crate) fn project_together(layers: &[&Linear], x: &Tensor<3>) -> Option<Tensor<3>> {
    if !is_together(layers.first()?, x) {
        return None;
    }
    let weights = layers.iter().map(|layer| plain(layer)).collect::<Option<_>>()?;
    Some(Together::Projections(weights).run(x.clone()))
}

/// `down(f(up(x)))`, or with a gate `down(f(gate(x)) up(x))`, under the same conditions.
///
/// # Panics
///
/// As [`linear`](super::linear).
pub(crate) fn feed_forward_together(
    up: &Linear,
    gate: Option<&Linear>,
    down: &Linear,
    function: Function,
    x: &Tensor<3>,
) -> Option<Tensor<3>> {
    if !is_together(up, x) {
        return None;
    }
    let gate = match gate {
        Some(gate) => Some(plain(gate)?),
        None => None,
    };
    let (up, down) = (plain(up)?, plain(down)?);
    Some(Together::FeedForward { up, gate, down, function }.run(x.clone()))
}

/// Says which projections will be applied next, for threads with nothing to do to ask memory for them.
pub(crate) fn read_next<'a>(layers: impl IntoIterator<Item = &'a Linear>) {
    if !kernels::has_helpers() {
        return;
    }
    let stored = |layer: &'a Linear| blocks(&layer.weight)?.on_host();
    kernels::read_next(layers.into_iter().filter_map(stored).map(StoredWeight::bytes));
}

/// Whether `x` is of the kind, and the first weight in blocks: what is cheap to see.
fn is_together(layer: &Linear, x: &Tensor<3>) -> bool {
    blocks(&layer.weight).is_some() && Together::fits(x)
}

/// The weight of a projection that is nothing but a product with it.
fn plain(layer: &Linear) -> Option<StoredWeight> {
    let blocks = blocks(&layer.weight)?;
    if layer.bias.is_some() || blocks.adapter().is_some() {
        return None;
    }
    refuse_training(&layer.weight, blocks);
    blocks.on_host().cloned()
}
