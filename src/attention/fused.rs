//! The crate's own attention: one pass over the visible tiles, forward and backward.

use burn::tensor::{DType, Device, Tensor};

use super::{AttentionOutput, Score, dropout::Dropout};
use crate::kernels::{self, Extra, Kept, Optional, OptionalInts, Plan, Scoring, Slopes};
use crate::mask::LoweredMask;

/// Whether [`attention`] runs on `device` for elements of `dtype`.
pub(super) fn supports(device: &Device, dtype: DType) -> bool {
    kernels::supports_attention(device, dtype)
}

/// Whether it is what `Kernel::Auto` takes there.
pub(super) fn is_preferred(device: &Device) -> bool {
    kernels::prefers_fused(device)
}

/// Attention without its weights, for what [`supports`] says and `attend` has checked.
///
/// The output lies in memory as `[batch, queries, heads, value_dim]`.
pub(super) fn attention(
    query: Tensor<4>,
    key: Kept,
    value: Kept,
    mask: &LoweredMask,
    score: &Score,
    dropout: Option<Dropout>,
) -> AttentionOutput<4> {
    let ([batch, heads, queries, head_dim], [_, kv_heads, keys, _]) = (query.dims(), key.dims());
    let grid = mask.grid();
    let slopes = score.alibi.as_ref().map(|alibi| Slopes {
        slopes: alibi.shared_slopes(),
        first_query: grid.query_position(0),
        key_positions: grid.listed_key_positions(),
    });
    let (dropout, draws) = dropout.map(|dropout| dropout.for_kernel(&query.device())).unzip();
    let plan = Plan {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        head_dim,
        value_dim: value.dims()[3],
        visibility: mask.visibility.clone(),
        scoring: Scoring { scale: score.scale_for(head_dim), softcap: score.softcap, slopes },
        dropout,
    };
    let map = mask.kernel_map(&query.device(), &plan);
    let extra = Extra {
        bias: Optional::of(score.bias.clone()),
        sinks: Optional::of(score.sinks.clone()),
        map: OptionalInts::of(map),
        draws: OptionalInts::of(draws.flatten()),
    };
    let output = kernels::attention(query, key, value, extra, plan);
    AttentionOutput { output, weights: None }
}
