//! The crate's own attention for the CPU: one pass over the visible tiles, forward and backward.
//!
//! Reading order: [`Plan`] here says what to compute, `op` is the operation as Burn sees it, with
//! its gradient, `kernel` the arithmetic on plain slices.

mod kernel;
mod op;

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Tensor};

use super::{Alibi, AttentionOutput, Score, dropout::Dropout, dropout_rng::SeededDropout};
use crate::{host, mask::LoweredMask};
use kernel::Problem;
use op::{FusedAttention, Optional};

/// Everything about one attention that is not a tensor: plain host data, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which keys each query sees, and where both stand.
    mask: LoweredMask,
    /// Factor of the scores.
    scale: f64,
    /// `cap` in `cap * tanh(score / cap)`.
    softcap: Option<f64>,
    /// A bias by distance.
    alibi: Option<Alibi>,
    /// Dropout of the weights.
    dropout: Option<SeededDropout>,
    /// Whether a bias is among the tensors; sinks may be, with or without it.
    biased: bool,
}

impl Plan {
    /// The same for the kernel, with the shapes of query and key, the width of the values and one
    /// sink a head.
    fn problem<'a>(
        &'a self,
        query: [usize; 4],
        key: [usize; 4],
        value_dim: usize,
        sinks: Option<&'a [f64]>,
    ) -> Problem<'a> {
        let [batch, heads, queries, head_dim] = query;
        let [_, kv_heads, keys, _] = key;
        Problem {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
            value_dim,
            scale: self.scale,
            softcap: self.softcap,
            spans: self.mask.spans(),
            hidden_keys: self.mask.hidden_keys(),
            hidden_cells: self.mask.hidden_cells(),
            alibi: self
                .alibi
                .as_ref()
                .map(|alibi| kernel::Alibi { slopes: alibi.slopes(), grid: self.mask.grid() }),
            sinks,
            dropout: self.dropout,
        }
    }
}

/// Whether [`attention`] runs on `device` for elements of `dtype`.
pub(super) fn supports(device: &Device, dtype: DType) -> bool {
    host::supports(device, dtype)
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
