//! Shapes and element types of the results, before they are computed.

use burn::backend::fusion::custom::TensorSpec;
use burn::tensor::{DType, Shape};

use crate::kernels::Plan;
use crate::kernels::op::{AttentionGradientsMetadata, ExtraMetadata, OptionalMetadata, Wanted};

/// Output and statistics.
pub(in crate::kernels) fn forward(
    query: &TensorSpec,
    _key: &TensorSpec,
    _value: &TensorSpec,
    _extra: &ExtraMetadata,
    plan: &Plan,
) -> (TensorSpec, TensorSpec) {
    let Plan { batch, heads, queries, value_dim, .. } = *plan;
    let output = Shape::from([batch, heads, queries, value_dim]);
    let statistics = Shape::from([2 * batch * heads * queries]);
    (TensorSpec::new(output, query.dtype), TensorSpec::new(statistics, DType::F32))
}

/// The gradients that are wanted, like their tensors.
#[allow(clippy::too_many_arguments)]
pub(in crate::kernels) fn backward(
    query: &TensorSpec,
    key: &TensorSpec,
    value: &TensorSpec,
    extra: &ExtraMetadata,
    _output: &TensorSpec,
    _statistics: &TensorSpec,
    _d_output: &TensorSpec,
    _plan: &Plan,
    wanted: &Wanted,
) -> AttentionGradientsMetadata {
    let like = |tensor: &TensorSpec, wanted: bool| match wanted {
        true => OptionalMetadata::Some(tensor.clone()),
        false => OptionalMetadata::None,
    };
    let extra_like = |tensor: &OptionalMetadata, wanted: bool| match tensor {
        OptionalMetadata::Some(tensor) => like(tensor, wanted),
        OptionalMetadata::None => OptionalMetadata::None,
    };
    AttentionGradientsMetadata {
        query: like(query, wanted.query),
        key: like(key, wanted.key),
        value: like(value, wanted.value),
        bias: extra_like(&extra.bias, wanted.bias),
        sinks: extra_like(&extra.sinks, wanted.sinks),
    }
}
