//! The fused attention as a Burn operation, written once for every CPU backend.
//!
//! Queries, keys and values are read by stride, so that the `swap_dims` that puts the heads before
//! the tokens costs nothing; what comes out (output and gradients alike) lies in memory as
//! `[batch, tokens, heads, width]`, so that swapping back is free too.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::{
    Backend, ExtensionType, TensorMetadata,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::DType;
use half::{bf16, f16};

use super::{
    Plan,
    kernel::{self, Element, Strided},
};
use crate::host::{Host, HostFloat, Operation, View, read, readable, record};

/// The additive bias, if there is one: broadcasts to `[batch, heads, queries, keys]`.
#[derive(ExtensionType)]
pub(crate) enum Bias<B: Backend> {
    /// No bias.
    None,
    /// Added to the scaled scores; axes are full or 1.
    Added(FloatTensor<B>),
}

/// Attention under a [`Plan`], differentiable in its tensors.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff
)]
pub(crate) trait FusedAttention: Backend {
    /// `[batch, heads, queries, head_dim]`, `[batch, kv_heads, keys, head_dim]` and
    /// `[batch, kv_heads, keys, value_dim]` to `[batch, heads, queries, value_dim]`.
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] bias: Bias<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
}

impl<B: Host> FusedAttention for B {
    fn fused_attention(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        bias: Bias<B>,
        plan: Plan,
    ) -> FloatTensor<B> {
        match bias {
            Bias::None => plan.forward::<B>([query, key, value]).0,
            Bias::Added(bias) => plan.forward::<B>([query, key, value, bias]).0,
        }
    }
}

impl<B: Host, C: CheckpointStrategy> FusedAttention for Autodiff<B, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: Bias<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        match bias {
            Bias::None => record::<B, C, _, _>(plan, [query, key, value]),
            Bias::Added(bias) => record::<B, C, _, _>(plan, [query, key, value, bias]),
        }
    }
}

/// Query, key, value and, with `N = 4`, the bias.
///
/// The backward pass gets the inputs, the output and two numbers a query (what its weights were
/// divided by), and computes the weights again: memory grows with the length, not with its square.
impl<const N: usize> Operation<N> for Plan {
    const CHEAP: bool = false;

    fn forward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let forward = match inputs[0].dtype() {
            DType::F64 => forward_in::<B, f64>,
            DType::F32 => forward_in::<B, f32>,
            DType::F16 => forward_in::<B, f16>,
            DType::BF16 => forward_in::<B, bf16>,
            other => panic!("fused attention: expected f64, f32, f16 or bf16, got {other:?}"),
        };
        let (output, statistics) = forward(Inputs::of(inputs), self);
        (output.clone(), vec![output, statistics])
    }

    fn backward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let backward = match d_output.dtype() {
            DType::F64 => backward_in::<B, f64>,
            DType::F32 => backward_in::<B, f32>,
            DType::F16 => backward_in::<B, f16>,
            _ => backward_in::<B, bf16>,
        };
        let [output, statistics] = saved.try_into().expect("what forward saved");
        let wanted = Inputs::of(wanted);
        let gradients = backward(Inputs::of(inputs), output, statistics, d_output, self, wanted);
        let mut gradients = gradients.into_iter();
        std::array::from_fn(|_| gradients.next().expect("a gradient for each input"))
    }
}

/// The tensors that attention reads.
#[derive(Clone, Debug)]
struct Inputs<T> {
    query: T,
    key: T,
    value: T,
    bias: Option<T>,
}

impl<T> Inputs<T> {
    fn of<const N: usize>(inputs: [T; N]) -> Self {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("query, key and value");
        Self { query: next(), key: next(), value: next(), bias: inputs.next() }
    }

    fn as_ref(&self) -> Inputs<&T> {
        let Self { query, key, value, bias } = self;
        Inputs { query, key, value, bias: bias.as_ref() }
    }

    fn map<U>(self, mut f: impl FnMut(T) -> U) -> Inputs<U> {
        let Self { query, key, value, bias } = self;
        Inputs { query: f(query), key: f(key), value: f(value), bias: bias.map(f) }
    }
}

fn forward_in<B: Reads<E>, E: Number>(
    inputs: Inputs<FloatTensor<B>>,
    plan: &Plan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let inputs = inputs.map(readable::<B, E, 4>);
    let views = views::<B, E>(&inputs);
    let [batch, heads, queries, _] = inputs.query.shape().dims();
    let value_dim = inputs.value.shape()[3];
    let problem = inputs.problem(plan);
    let mut output = vec![E::default(); batch * queries * heads * value_dim];
    let mut statistics = vec![E::Real::default(); kernel::statistics_len(&problem)];
    kernel::forward(&problem, &views, &mut output, &mut statistics);
    let len = statistics.len();
    (
        heads_first::<B, E>(output, [batch, heads, queries, value_dim]),
        <B as HostFloat<E::Real>>::tensor(statistics, [len]),
    )
}

fn backward_in<B: Reads<E>, E: Number>(
    inputs: Inputs<FloatTensor<B>>,
    output: FloatTensor<B>,
    statistics: FloatTensor<B>,
    d_output: FloatTensor<B>,
    plan: &Plan,
    wanted: Inputs<bool>,
) -> [Option<FloatTensor<B>>; 4] {
    let inputs = inputs.map(readable::<B, E, 4>);
    let [output, d_output] = [output, d_output].map(readable::<B, E, 4>);
    let statistics = read::<B, E::Real, 1>(&statistics);
    let shapes = inputs.as_ref().map(|tensor| tensor.shape().dims());

    let zeros = |shape: [usize; 4]| vec![E::default(); shape.iter().product()];
    let mut d_query = wanted.query.then(|| zeros(shapes.query));
    let mut d_key = wanted.key.then(|| zeros(shapes.key));
    let mut d_value = wanted.value.then(|| zeros(shapes.value));
    let mut d_bias =
        shapes.bias.filter(|_| wanted.bias == Some(true)).map(|shape| (zeros(shape), shape));
    let gradients = kernel::Gradients {
        query: d_query.as_deref_mut(),
        key: d_key.as_deref_mut(),
        value: d_value.as_deref_mut(),
        bias: d_bias.as_mut().map(|(data, shape)| kernel::BiasGradient { data, shape: *shape }),
        sinks: None,
    };
    kernel::backward(
        &inputs.problem(plan),
        &views::<B, E>(&inputs),
        strided::<B, E>(&output),
        statistics.data,
        strided::<B, E>(&d_output),
        gradients,
    );
    [
        d_query.map(|data| heads_first::<B, E>(data, shapes.query)),
        d_key.map(|data| heads_first::<B, E>(data, shapes.key)),
        d_value.map(|data| heads_first::<B, E>(data, shapes.value)),
        d_bias.map(|(data, shape)| B::tensor(data, shape)),
    ]
}

/// An element type that tensors hold and the kernel reads.
trait Number: Element + Default {}

impl<E: Element + Default> Number for E {}

/// A backend that holds such elements, and what the kernel computes them in.
trait Reads<E: Element>: HostFloat<E> + HostFloat<E::Real> {}

impl<E: Element, B: HostFloat<E> + HostFloat<E::Real>> Reads<E> for B {}

impl<T: TensorMetadata> Inputs<T> {
    fn problem<'a>(&self, plan: &'a Plan) -> kernel::Problem<'a> {
        plan.problem(self.query.shape().dims(), self.key.shape().dims(), self.value.shape()[3])
    }
}

/// The inputs as the kernel reads them; the bias broadcasts by strides of 0.
fn views<B: HostFloat<E>, E>(inputs: &Inputs<FloatTensor<B>>) -> kernel::Inputs<'_, E> {
    let [batch, heads, queries, _] = inputs.query.shape().dims();
    let full = [batch, heads, queries, inputs.key.shape()[2]];
    let broadcast = |bias| {
        let View { data, shape, mut strides } = read::<B, E, 4>(bias);
        for axis in 0..4 {
            if shape[axis] == 1 {
                strides[axis] = 0;
            }
        }
        Strided::new(data, full, strides)
    };
    kernel::Inputs {
        query: strided::<B, E>(&inputs.query),
        key: strided::<B, E>(&inputs.key),
        value: strided::<B, E>(&inputs.value),
        bias: inputs.bias.as_ref().map(broadcast),
    }
}

fn strided<B: HostFloat<E>, E>(tensor: &FloatTensor<B>) -> Strided<'_, E> {
    let View { data, shape, strides } = read::<B, E, 4>(tensor);
    Strided::new(data, shape, strides)
}

/// A tensor of `[batch, heads, tokens, width]` whose data lies as `[batch, tokens, heads, width]`.
fn heads_first<B: HostFloat<E>, E>(data: Vec<E>, shape: [usize; 4]) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = shape;
    B::float_swap_dims(B::tensor(data, [batch, tokens, heads, width]), 1, 2)
}
