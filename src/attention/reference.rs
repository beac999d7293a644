//! The reference: attention in tensor operations, on any backend.
//!
//! Everything that can be asked of attention is served here, and the weights can be looked at. The
//! price is memory: scores and weights are stored, `[batch, heads, queries, keys]` several times
//! over in training.

use burn::tensor::{Bool, DType, Tensor};

use super::dropout::Dropout;
use super::{AttentionOutput, Score};
use crate::mask::LoweredMask;

/// See [`scaled_dot_product_attention`](super::scaled_dot_product_attention); no axis is empty.
pub(super) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: &LoweredMask,
    score: &Score,
    weights_wanted: bool,
    dropout: Option<Dropout>,
) -> AttentionOutput<4> {
    let device = query.device();
    let [batch, heads, queries, head_dim] = query.dims();
    let [_, kv_heads, keys, value_dim] = value.dims();
    // The query heads of one group share their keys: to a matrix product they are more queries.
    let group = heads / kv_heads;
    let grouped = [batch, kv_heads, group * queries];

    let narrow = query.dtype();
    let wide = if narrow == DType::F64 { DType::F64 } else { DType::F32 };
    let [query, key, value] = [query, key, value].map(|tensor| tensor.cast(wide));

    let query = query.mul_scalar(score.scale_for(head_dim));
    let query = query.reshape([grouped[0], grouped[1], grouped[2], head_dim]); // [batch, kv_heads, group * queries, head_dim]
    let scores = query.matmul(key.swap_dims(2, 3)); // [batch, kv_heads, group * queries, keys]
    let mut scores = scores.reshape([batch, heads, queries, keys]); // [batch, heads, queries, keys]

    if let Some(softcap) = score.softcap {
        // Not div_scalar: Burn's autodiff takes the inverse in f32, also for f64 tensors.
        scores = scores.mul_scalar(1.0 / softcap).tanh().mul_scalar(softcap);
    }
    if let Some(bias) = &score.bias {
        scores = scores + bias.clone().cast(wide);
    }
    if let Some(alibi) = &score.alibi {
        scores = scores + alibi.bias(mask.grid(), &device, wide);
    }
    let sinks = score.sinks.clone().map(|sinks| {
        let sinks = sinks.cast(wide).reshape([1, heads, 1, 1]); // [1, heads, 1, 1]
        sinks.expand([batch, heads, queries, 1]) // [batch, heads, queries, 1]
    });
    let weights = softmax(scores, mask.hidden(&device), sinks);

    let kept = match &dropout {
        Some(dropout) => dropout.drop(weights.clone()),
        None => weights.clone(),
    };
    let kept = kept.reshape([grouped[0], grouped[1], grouped[2], keys]); // [batch, kv_heads, group * queries, keys]
    let mut output = kept.matmul(value); // [batch, kv_heads, group * queries, value_dim]
    if let Some(dropout) = &dropout {
        output = output.mul_scalar(dropout.scale());
    }
    let output = output.reshape([batch, heads, queries, value_dim]); // [batch, heads, queries, value_dim]
    AttentionOutput {
        output: output.cast(narrow),
        weights: weights_wanted.then(|| weights.cast(narrow)),
    }
}

/// Softmax over the visible keys; hidden keys get exactly 0, and pass exactly no gradient. Sinks,
/// `[batch, heads, queries, 1]`, take part in the sum alone.
///
/// Hidden scores are replaced twice. Before the exponential, by the lowest finite number: it loses
/// against every visible score in the row's maximum, unlike a -1e4, and it needs no infinity, which
/// WGSL may assume away. After it, by 0, since a GPU's `exp` of that number need not be 0, and in a
/// dead row it is `exp(0)`. The two fills also stop the gradient on its way back.
fn softmax(
    mut scores: Tensor<4>,
    hidden: Option<Tensor<4, Bool>>,
    sinks: Option<Tensor<4>>,
) -> Tensor<4> {
    let lowest = scores.dtype().finfo().expect("scores are floats").min;
    if let Some(hidden) = &hidden {
        scores = scores.mask_fill(hidden.clone(), lowest);
    }
    // Softmax does not change with the maximum, so neither does a gradient pass through it. The
    // clamp is for a row whose bias is -inf everywhere.
    let mut maximum = scores.clone().detach().max_dim(3).clamp_min(lowest);
    if let Some(sinks) = &sinks {
        maximum = maximum.max_pair(sinks.clone().detach());
    }
    let mut exponentials = (scores - maximum.clone()).exp();
    if let Some(hidden) = hidden {
        exponentials = exponentials.mask_fill(hidden, 0.0);
    }
    let mut sum = exponentials.clone().sum_dim(3);
    if let Some(sinks) = sinks {
        sum = sum + (sinks - maximum).exp();
    }
    // At least 1 where anything takes part: the maximum contributes exp(0). Exactly 0 in a dead row
    // without a sink.
    exponentials / sum.clamp_min(0.5)
}
