//! Burn's own `attention` operation, which some devices have a good kernel for.
//!
//! What Burn 0.22.1 leaves open is closed here: its wgpu kernel reads out of bounds with grouped
//! heads and needs masks with a real row for each query; a scale of one's own makes it store all
//! weights; and its causal flag means the bottom-right alignment only, for which no mask is built.

use burn::tensor::Tensor;
use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;

use super::{Request, Score};
use crate::mask::LoweredMask;

/// What keeps Burn's operation from serving this request, if anything does.
pub(super) fn obstacle(
    query: &Tensor<4>,
    score: &Score,
    request: &Request,
) -> Option<&'static str> {
    [
        (query.device().is_autodiff(), "tensors on an autodiff device"),
        (request.weights, "a request for weights"),
        (score.softcap.is_some(), "a softcap"),
        (score.bias.is_some(), "a bias"),
        (score.alibi.is_some(), "ALiBi"),
        (score.sinks.is_some(), "sinks"),
    ]
    .into_iter()
    .find_map(|(applies, what)| applies.then_some(what))
}

/// See [`scaled_dot_product_attention`](super::scaled_dot_product_attention); no axis is empty and
/// there is no [`obstacle`].
pub(super) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: &LoweredMask,
    scale: Option<f64>,
) -> Tensor<4> {
    let [batch, heads, queries, head_dim] = query.dims();
    let keys = key.dims()[2];

    // Burn multiplies by 1 / sqrt(head_dim) itself.
    let query = match scale {
        Some(scale) => query.mul_scalar(scale * (head_dim as f64).sqrt()),
        None => query,
    };
    let is_causal = mask.is_plain_causal();
    let hidden = if is_causal { None } else { mask.hidden(&query.device()) };
    let dead = hidden.clone().map(|hidden| hidden.all_dim(3)); // [batch or 1, heads or 1, queries or 1, 1]
    let hidden = hidden.map(|hidden| hidden.expand([batch, heads, queries, keys]));
    let output = burn_attention(
        query,
        repeat_heads(key, heads),
        repeat_heads(value, heads),
        hidden,
        None,
        AttentionModuleOptions { is_causal, ..AttentionModuleOptions::default() },
    );
    match dead {
        Some(dead) => output.mask_fill(dead, 0.0),
        None => output,
    }
}

/// `[batch, kv_heads, keys, width]` to `[batch, heads, keys, width]`.
fn repeat_heads(tensor: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, kv_heads, keys, width] = tensor.dims();
    if kv_heads == heads {
        return tensor;
    }
    let group = heads / kv_heads;
    let tensor = tensor.unsqueeze_dim::<5>(2).repeat_dim(2, group); // [batch, kv_heads, group, keys, width]
    tensor.reshape([batch, heads, keys, width]) // [batch, heads, keys, width]
}
