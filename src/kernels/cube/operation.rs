//! Attention on the tensors of Burn's `Cube` backend.
//!
//! Inputs are read by stride; output and gradients lie in memory as `[batch, tokens, heads, width]`, so
//! that swapping heads and tokens back is free.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape};
use burn_cubecl::{CubeBackend, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor};

use super::launch::{self, Inputs};
use crate::kernels::Plan;
use crate::kernels::op::{AttentionGradients, Extra, FusedAttention, Optional, Wanted};

impl FusedAttention for CubeBackend {
    fn attention_forward(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        extra: Extra<Self>,
        plan: Plan,
    ) -> (CubeTensor, CubeTensor) {
        let Plan { batch, heads, queries, value_dim, .. } = plan;
        let inputs = inputs(query, key, value, extra, &plan);
        let output = heads_first(&inputs.query, [batch, heads, queries, value_dim]);
        let statistics = numbers(&inputs.query, 2 * batch * heads * queries);
        if launch::is_decoding(&plan) {
            let rows = batch * heads * queries;
            let partial = numbers(&inputs.query, rows * launch::parts(&plan) * (2 + value_dim));
            launch::decode(&plan, &inputs, &partial, &output, &statistics);
        } else {
            launch::forward(&plan, &inputs, &output, &statistics);
        }
        (output, statistics)
    }

    fn attention_backward(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        extra: Extra<Self>,
        output: CubeTensor,
        statistics: CubeTensor,
        d_output: CubeTensor,
        plan: Plan,
        wanted: Wanted,
    ) -> AttentionGradients<Self> {
        let Plan { batch, heads, kv_heads, queries, keys, head_dim, value_dim, .. } = plan;
        let dtypes = [&extra.bias, &extra.sinks].map(|tensor| match tensor {
            Optional::Some(tensor) => tensor.dtype,
            Optional::None => query.dtype,
        });
        let bias_shape = match &extra.bias {
            Optional::Some(bias) => bias.meta.shape().dims::<4>(),
            Optional::None => [1; 4],
        };
        let inputs = inputs(query, key, value, extra, &plan);
        let d_output = cast(d_output, inputs.query.dtype);
        let rows = numbers(&inputs.query, 3 * batch * heads * queries);
        launch::row_numbers(&plan, &output, &d_output, &statistics, &rows);

        let d_query = wanted.query.then(|| {
            let gradient = heads_first(&inputs.query, [batch, heads, queries, head_dim]);
            launch::query_gradient(&plan, &inputs, &d_output, &rows, &gradient);
            gradient
        });
        let keys_like = |like, width| heads_first(like, [batch, kv_heads, keys, width]);
        let d_key = wanted.key.then(|| keys_like(&inputs.key, head_dim));
        let d_value = wanted.value.then(|| keys_like(&inputs.value, value_dim));
        if wanted.key || wanted.value {
            let gradients = [d_key.as_ref(), d_value.as_ref()];
            launch::key_value_gradients(&plan, &inputs, &d_output, &rows, gradients);
        }
        let d_bias = (wanted.bias && inputs.bias.is_some()).then(|| {
            let gradient = empty(&inputs.query, Shape::from(bias_shape), inputs.query.dtype);
            launch::bias_gradient(&plan, &inputs, &d_output, &rows, &gradient);
            cast(gradient, dtypes[0])
        });
        let d_sinks = inputs.sinks.as_ref().filter(|_| wanted.sinks).map(|sinks| {
            let gradient = empty(sinks, Shape::from([heads]), sinks.dtype);
            launch::sinks_gradient(&plan, sinks, &rows, &gradient);
            cast(gradient, dtypes[1])
        });
        AttentionGradients {
            query: Optional::new(d_query),
            key: Optional::new(d_key),
            value: Optional::new(d_value),
            bias: Optional::new(d_bias),
            sinks: Optional::new(d_sinks),
        }
    }
}

/// The inputs as the kernels read them: of one element type, the bias with strides of 0 where it
/// broadcasts.
fn inputs(
    query: FloatTensor<CubeBackend>,
    key: FloatTensor<CubeBackend>,
    value: FloatTensor<CubeBackend>,
    extra: Extra<CubeBackend>,
    plan: &Plan,
) -> Inputs {
    let Extra { bias, sinks, map, draws } = extra;
    let map = map.into_option().expect("a GPU gets a map");
    let dtype = query.dtype;
    let full = [plan.batch, plan.heads, plan.queries, plan.keys];
    Inputs {
        key: cast(key, dtype),
        value: cast(value, dtype),
        query,
        map,
        bias: bias
            .into_option()
            .map(|bias| CubeBackend::float_expand(cast(bias, dtype), Shape::from(full))),
        sinks: sinks.into_option().map(|sinks| cast(sinks, dtype)),
        draws: draws.into_option(),
    }
}

/// `tensor` in elements of `dtype`; the same where it holds them.
fn cast(tensor: CubeTensor, dtype: DType) -> CubeTensor {
    if tensor.dtype == dtype { tensor } else { CubeBackend::float_cast(tensor, dtype.into()) }
}

fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// `[batch, heads, tokens, width]`, lying in memory as `[batch, tokens, heads, width]`.
fn heads_first(like: &CubeTensor, [batch, heads, tokens, width]: [usize; 4]) -> CubeTensor {
    let tensor = empty(like, Shape::from([batch, tokens, heads, width]), like.dtype);
    CubeBackend::float_swap_dims(tensor, 1, 2)
}

fn numbers(like: &CubeTensor, len: usize) -> CubeTensor {
    empty(like, Shape::from([len]), DType::F32)
}
