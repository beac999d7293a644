//! Attention on the tensors of a CPU backend, written once for all of them.
//!
//! Queries, keys and values are read by stride; what comes out (output and gradients alike) lies in
//! memory as `[batch, tokens, heads, width]`, so that swapping heads and tokens back is free.
//!
//! The kernel knows f32 and f64. Tensors in half precision are converted to f32 on the way in, the
//! results on the way out; so a step of decoding with a cache in half precision converts the whole
//! cache.

use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;

use super::{BiasGradient, GradientSlices, Inputs, Real, Strided, slices};
use crate::kernels::Plan;
use crate::kernels::cpu::host::{Host, HostFloat, View, read, readable};
use crate::kernels::cpu::memory::zeros;
use crate::kernels::op::{AttentionGradients, Extra, FusedAttention, Optional, Wanted};

impl<B: Host> FusedAttention for B {
    fn attention_forward(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        extra: Extra<B>,
        plan: Plan,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let narrow = query.dtype();
        let tensors = Tensors::<B>::new(query, key, value, extra);
        let (output, statistics) = match computed_in(narrow) {
            DType::F64 => forward_in::<B, f64>(tensors, &plan),
            _ => forward_in::<B, f32>(tensors, &plan),
        };
        (cast::<B>(output, narrow), statistics)
    }

    fn attention_backward(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        extra: Extra<B>,
        output: FloatTensor<B>,
        statistics: FloatTensor<B>,
        d_output: FloatTensor<B>,
        plan: Plan,
        wanted: Wanted,
    ) -> AttentionGradients<B> {
        let narrow = [&query, &key, &value].map(|tensor| tensor.dtype());
        let [narrow_bias, narrow_sinks] = [&extra.bias, &extra.sinks].map(|tensor| match tensor {
            Optional::Some(tensor) => tensor.dtype(),
            Optional::None => narrow[0],
        });
        let wide = computed_in(narrow[0]);
        let tensors = Tensors::<B>::new(query, key, value, extra);
        let [output, d_output] = [output, d_output].map(|tensor| cast::<B>(tensor, wide));
        let given = Given { output, statistics, d_output };
        let gradients = match wide {
            DType::F64 => backward_in::<B, f64>(tensors, given, &plan, wanted),
            _ => backward_in::<B, f32>(tensors, given, &plan, wanted),
        };
        let back = |gradient: Optional<B>, dtype| {
            Optional::new(gradient.into_option().map(|gradient| cast::<B>(gradient, dtype)))
        };
        AttentionGradients {
            query: back(gradients.query, narrow[0]),
            key: back(gradients.key, narrow[1]),
            value: back(gradients.value, narrow[2]),
            bias: back(gradients.bias, narrow_bias),
            sinks: back(gradients.sinks, narrow_sinks),
        }
    }
}

/// What the kernel computes tensors of `dtype` in.
fn computed_in(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        DType::F32 | DType::F16 | DType::BF16 => DType::F32,
        other => panic!("fused attention: expected f64, f32, f16 or bf16, got {other:?}"),
    }
}

/// `tensor` in elements of `dtype`; the same where it holds them.
fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype { tensor } else { B::float_cast(tensor, dtype.into()) }
}

/// The inputs in the elements that the kernel computes in.
struct Tensors<B: Backend> {
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    sinks: Option<FloatTensor<B>>,
}

impl<B: Backend> Tensors<B> {
    fn new(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        extra: Extra<B>,
    ) -> Self {
        let wide = computed_in(query.dtype());
        let cast = |tensor| cast::<B>(tensor, wide);
        Self {
            query: cast(query),
            key: cast(key),
            value: cast(value),
            bias: extra.bias.into_option().map(cast),
            sinks: extra.sinks.into_option().map(cast),
        }
    }
}

/// What the backward pass gets besides the inputs.
struct Given<T> {
    output: T,
    statistics: T,
    d_output: T,
}

fn forward_in<B: HostFloat<T>, T: Real>(
    tensors: Tensors<B>,
    plan: &Plan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let inputs = Readable::<B>::new(tensors);
    let shape = [plan.batch, plan.heads, plan.queries, plan.value_dim];
    let [output, statistics] = slices::forward(plan, &inputs.views());
    let len = statistics.len();
    (heads_first::<B, T>(output, shape), B::tensor(statistics, [len]))
}

fn backward_in<B: HostFloat<T>, T: Real>(
    tensors: Tensors<B>,
    given: Given<FloatTensor<B>>,
    plan: &Plan,
    wanted: Wanted,
) -> AttentionGradients<B> {
    let inputs = Readable::<B>::new(tensors);
    let [output, d_output] = [given.output, given.d_output].map(readable::<B, T, 4>);
    let statistics = read::<B, T, 1>(&given.statistics);

    let of = |tensor: &FloatTensor<B>, wanted: bool| {
        let shape = tensor.shape().dims();
        (wanted.then(|| zeros(shape.iter().product())), shape)
    };
    let (mut d_query, query_shape) = of(&inputs.query, wanted.query);
    let (mut d_key, key_shape) = of(&inputs.key, wanted.key);
    let (mut d_value, value_shape) = of(&inputs.value, wanted.value);
    let mut d_bias = inputs.bias.as_ref().map(|bias| of(bias, wanted.bias));
    let mut d_sinks = wanted.sinks.then(|| vec![0.0; plan.heads]);
    let bias = d_bias.as_mut().and_then(|(data, shape)| Some((data.as_deref_mut()?, *shape)));
    let gradients = GradientSlices {
        query: d_query.as_deref_mut(),
        key: d_key.as_deref_mut(),
        value: d_value.as_deref_mut(),
        bias: bias.map(|(data, shape)| BiasGradient { data, shape }),
        sinks: d_sinks.as_deref_mut(),
    };
    slices::backward(
        plan,
        &inputs.views(),
        strided::<B, T>(&output),
        statistics.data,
        strided::<B, T>(&d_output),
        gradients,
    );
    let of_tensor = |data: Option<Vec<T>>, shape| {
        Optional::new(data.map(|data| heads_first::<B, T>(data, shape)))
    };
    let sinks = |data: Vec<f64>| B::tensor(data.into_iter().map(T::of_f64).collect(), [plan.heads]);
    let bias = d_bias.and_then(|(data, shape)| Some(B::tensor(data?, shape)));
    AttentionGradients {
        query: of_tensor(d_query, query_shape),
        key: of_tensor(d_key, key_shape),
        value: of_tensor(d_value, value_shape),
        bias: Optional::new(bias),
        sinks: Optional::new(d_sinks.map(sinks)),
    }
}

/// The inputs where the kernel can read them.
struct Readable<B: Backend> {
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    sinks: Option<Vec<f64>>,
}

impl<B: Backend> Readable<B> {
    fn new<T: Real>(tensors: Tensors<B>) -> Self
    where
        B: HostFloat<T>,
    {
        let Tensors { query, key, value, bias, sinks } = tensors;
        let [query, key, value] = [query, key, value].map(readable::<B, T, 4>);
        let numbers = |sinks| {
            let sinks = readable::<B, T, 1>(sinks);
            let View { data, shape: [heads], strides: [step] } = read::<B, T, 1>(&sinks);
            (0..heads).map(|head| data[head * step].to_f64()).collect()
        };
        Self { query, key, value, bias: bias.map(readable::<B, T, 4>), sinks: sinks.map(numbers) }
    }

    /// The tensors as the kernel reads them; the bias broadcasts by strides of 0.
    fn views<T: Real>(&self) -> Inputs<'_, T>
    where
        B: HostFloat<T>,
    {
        let [batch, heads, queries, _] = self.query.shape().dims();
        let full = [batch, heads, queries, self.key.shape()[2]];
        let broadcast = |bias| {
            let View { data, shape, mut strides } = read::<B, T, 4>(bias);
            for axis in 0..4 {
                if shape[axis] == 1 {
                    strides[axis] = 0;
                }
            }
            Strided::new(data, full, strides)
        };
        Inputs {
            query: strided::<B, T>(&self.query),
            key: strided::<B, T>(&self.key),
            value: strided::<B, T>(&self.value),
            bias: self.bias.as_ref().map(broadcast),
            sinks: self.sinks.as_deref(),
        }
    }
}

fn strided<B: HostFloat<T>, T>(tensor: &FloatTensor<B>) -> Strided<'_, T> {
    let View { data, shape, strides } = read::<B, T, 4>(tensor);
    Strided::new(data, shape, strides)
}

/// A tensor of `[batch, heads, tokens, width]` whose data lies as `[batch, tokens, heads, width]`.
fn heads_first<B: HostFloat<T>, T>(data: Vec<T>, shape: [usize; 4]) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = shape;
    B::float_swap_dims(B::tensor(data, [batch, tokens, heads, width]), 1, 2)
}
