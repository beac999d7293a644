//! Scaled dot-product attention: against PyTorch, against plain loops, and its promises.

mod decoding;
mod dropout;
mod loops;
mod promises;
mod pytorch;
mod refusals;
mod table;

use burn::tensor::{Bool, DType, Device, Distribution, FloatDType, Gradients, Tensor, TensorData};
use burn_decoder::attention::{
    Alibi, AttentionOutput, Kernel, Request, Score, scaled_dot_product_attention,
};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use proptest::prelude::*;

use crate::backends::is_cpu;
use crate::fixtures::{
    Fixtures, GRADIENT, LARGE_SCORE_GRADIENT, OUTPUT, Tolerance, assert_close, to_f64,
};
use crate::naive::{self, Array};

/// f64 against f64: only the order of sums differs.
const F64: Tolerance = Tolerance { absolute: 1e-12, relative: 1e-12 };

/// f16 holds 11 bits; inputs, output and nothing else are rounded to it.
const F16: Tolerance = Tolerance { absolute: 2e-3, relative: 2e-3 };

/// bf16 holds 8 bits.
const BF16: Tolerance = Tolerance { absolute: 2e-2, relative: 2e-2 };

/// The kernels that serve training on this device; all must pass the same tests. On software that
/// plays a GPU, Auto is the reference.
fn training_kernels(device: &Device) -> Vec<Kernel> {
    let kernels = [Kernel::Auto, Kernel::Fused, Kernel::Reference];
    kernels[..if is_cpu(device) { 3 } else { 2 }].to_vec()
}

/// The kernels that serve a forward pass without weights on this device.
fn inference_kernels(device: &Device) -> Vec<Kernel> {
    let mut kernels = training_kernels(device);
    kernels.push(Kernel::Backend);
    kernels
}

/// Inputs of one attention, and the gradient that arrives at its output.
#[derive(Clone)]
struct Inputs {
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    upstream: Tensor<4>,
}

/// What came out: data on the host.
struct Results {
    output: Array,
    weights: Option<Array>,
    d_query: Array,
    d_key: Array,
    d_value: Array,
    d_bias: Option<Array>,
    d_sinks: Option<Array>,
}

fn array<const D: usize>(tensor: Tensor<D>) -> Array {
    let mut shape = [1; 4];
    shape[4 - D..].copy_from_slice(&tensor.dims());
    Array::new(shape, to_f64(tensor.into_data()))
}

fn tensor(array: &Array, device: &Device, dtype: DType) -> Tensor<4> {
    let data = TensorData::new(array.values.clone(), array.shape);
    Tensor::from_data(data, (device, dtype))
}

/// Forward and backward on the autodiff twin of the inputs' device.
fn train(inputs: &Inputs, mask: &LoweredMask, score: &Score, request: &Request) -> Results {
    let track = |tensor: &Tensor<4>| tensor.clone().autodiff().require_grad();
    let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value].map(track);
    let bias = score.bias.as_ref().map(track);
    let sinks = score.sinks.clone().map(|sinks| sinks.autodiff().require_grad());
    let score = score.clone().with_bias(bias.clone()).with_sinks(sinks.clone());
    let AttentionOutput { output, weights } = scaled_dot_product_attention(
        query.clone(),
        key.clone(),
        value.clone(),
        mask,
        &score,
        request,
    );
    let loss = (output.clone() * inputs.upstream.clone().autodiff()).sum();
    let gradients = loss.backward();
    let gradient = |tensor: &Tensor<4>, gradients: &Gradients| {
        array(tensor.grad(gradients).expect("a gradient reaches every input"))
    };
    Results {
        output: array(output),
        weights: weights.map(array),
        d_query: gradient(&query, &gradients),
        d_key: gradient(&key, &gradients),
        d_value: gradient(&value, &gradients),
        d_bias: bias.map(|bias| gradient(&bias, &gradients)),
        d_sinks: sinks.map(|sinks| array(sinks.grad(&gradients).expect("a gradient of the sinks"))),
    }
}

fn assert_arrays_close(what: &str, got: &Array, expected: &Array, tolerance: Tolerance) {
    let data = |array: &Array| TensorData::new(array.values.clone(), array.shape);
    assert_close(what, data(got), data(expected), tolerance);
}

/// Every cell index of `[a, b, c, d]`.
fn cells([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..a * b * c * d).map(move |i| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
}

/// Whatever is hidden is exactly 0: weights of hidden cells, output and query gradients of dead
/// rows, gradients of keys and values that no query sees. Not -0 or 1e-38: 0.
fn assert_hidden_is_zero(what: &str, results: &Results, hidden: &dyn Fn([usize; 4]) -> bool) {
    let [batch, heads, queries, _] = results.d_query.shape;
    let [_, kv_heads, keys, _] = results.d_key.shape;
    let zero_row = |name: &str, array: &Array, [b, h, row]: [usize; 3]| {
        for i in 0..array.shape[3] {
            let got = array.at([b, h, row, i]);
            assert!(got == 0.0, "{what}: {name} of batch {b}, head {h}, row {row} is {got:e}");
        }
    };
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for q in 0..queries {
            if (0..keys).all(|k| hidden([b, h, q, k])) {
                zero_row("output", &results.output, [b, h, q]);
                zero_row("query gradient", &results.d_query, [b, h, q]);
            }
            for k in (0..keys).filter(|&k| hidden([b, h, q, k])) {
                if let Some(weights) = &results.weights {
                    let got = weights.at([b, h, q, k]);
                    assert!(got == 0.0, "{what}: hidden weight [{b}, {h}, {q}, {k}] is {got:e}");
                }
            }
        }
    }
    let group = heads / kv_heads;
    for [b, kv, k, _] in cells([batch, kv_heads, keys, 1]) {
        let mut readers =
            (kv * group..(kv + 1) * group).flat_map(|h| (0..queries).map(move |q| [b, h, q, k]));
        if readers.all(hidden) {
            zero_row("key gradient", &results.d_key, [b, kv, k]);
            zero_row("value gradient", &results.d_value, [b, kv, k]);
        }
    }
}

/// Random inputs of `[batch, heads, rows, width]` on `device`.
fn inputs(
    [batch, heads, kv_heads]: [usize; 3],
    [queries, keys]: [usize; 2],
    [head_dim, value_dim]: [usize; 2],
    device: &Device,
    dtype: DType,
) -> Inputs {
    let random = |shape, seed| tensor(&Array::random(shape, seed), device, dtype);
    Inputs {
        query: random([batch, heads, queries, head_dim], 1),
        key: random([batch, kv_heads, keys, head_dim], 2),
        value: random([batch, kv_heads, keys, value_dim], 3),
        upstream: random([batch, heads, queries, value_dim], 4),
    }
}

/// The request for a kernel.
fn by(kernel: Kernel) -> Request {
    Request::new().with_kernel(kernel)
}

fn forward(
    inputs: &Inputs,
    mask: &LoweredMask,
    score: &Score,
    request: &Request,
) -> AttentionOutput<4> {
    let Inputs { query, key, value, .. } = inputs.clone();
    scaled_dot_product_attention(query, key, value, mask, score, request)
}
