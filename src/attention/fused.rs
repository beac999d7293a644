//! The crate's own attention for the CPU: one pass over the visible tiles, forward and backward.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Tensor};

use super::{AttentionOutput, Score, dropout::Dropout};
use crate::kernels::{self, FusedAttention, Optional, Plan};
use crate::mask::LoweredMask;

/// Whether [`attention`] runs on `device` for elements of `dtype`.
pub(super) fn supports(device: &Device, dtype: DType) -> bool {
    kernels::supports(device, dtype)
}

/// Attention without its weights, for what [`supports`] says and `attend` has checked.
///
/// The output lies in memory as `[batch, queries, heads, value_dim]`.
pub(super) fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    mask: &LoweredMask,
    score: &Score,
    dropout: Option<Dropout>,
) -> AttentionOutput<4> {
    let plan = Plan {
        mask: mask.clone(),
        scale: score.scale_for(query.dims()[3]),
        softcap: score.softcap,
        alibi: score.alibi.clone(),
        dropout: dropout.map(|dropout| dropout.seeded(&query.device())),
        biased: score.bias.is_some(),
    };
    let output = Tensor::from_dispatch(Dispatch::fused_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        Optional::of(score.bias.clone()),
        Optional::of(score.sinks.clone()),
        plan,
    ));
    AttentionOutput { output, weights: None }
}
