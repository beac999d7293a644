//! The fused attention as a Burn operation, written once for every CPU backend.
//!
//! Queries, keys and values are read by stride, so that the `swap_dims` that puts the heads before
//! the tokens costs nothing; what comes out (output and gradients alike) lies in memory as
//! `[batch, tokens, heads, width]`, so that swapping back is free too.
//!
//! The kernel knows f32 and f64. Tensors in half precision are converted to f32 on the way in, the
//! results on the way out; so a step of decoding with a cache in half precision converts the whole
//! cache.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::{
    Backend, Dispatch, ExtensionType, TensorMetadata,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    backend_extension,
    tensor::FloatTensor,
};
use burn::tensor::{DType, Tensor};

use super::Plan;
use super::autodiff::{Operation, record};
use super::cpu::attention::{self as kernel, Problem, Real, Strided};
use super::cpu::host::{Host, HostFloat, View, read, readable};
use super::cpu::memory::zeros;

/// A tensor that may be missing.
#[derive(ExtensionType)]
pub(crate) enum Optional<B: Backend> {
    None,
    Some(FloatTensor<B>),
}

impl Optional<Dispatch> {
    pub(crate) fn of<const D: usize>(tensor: Option<Tensor<D>>) -> Self {
        tensor.map_or(Self::None, |tensor| Self::Some(tensor.into_dispatch()))
    }
}

/// Attention under a [`Plan`], differentiable in its tensors.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff
)]
pub(crate) trait FusedAttention: Backend {
    /// `[batch, heads, queries, head_dim]`, `[batch, kv_heads, keys, head_dim]` and
    /// `[batch, kv_heads, keys, value_dim]` to `[batch, heads, queries, value_dim]`. The bias
    /// broadcasts to `[batch, heads, queries, keys]`, sinks are `[heads]`.
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] bias: Optional<Self>,
        #[extension_type] sinks: Optional<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
}

impl<B: Host> FusedAttention for B {
    fn fused_attention(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        bias: Optional<B>,
        sinks: Optional<B>,
        plan: Plan,
    ) -> FloatTensor<B> {
        match (bias, sinks) {
            (Optional::None, Optional::None) => plan.forward::<B>([query, key, value]).0,
            (Optional::Some(one), Optional::None) | (Optional::None, Optional::Some(one)) => {
                plan.forward::<B>([query, key, value, one]).0
            }
            (Optional::Some(bias), Optional::Some(sinks)) => {
                plan.forward::<B>([query, key, value, bias, sinks]).0
            }
        }
    }
}

impl<B: Host, C: CheckpointStrategy> FusedAttention for Autodiff<B, C> {
    fn fused_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: Optional<Self>,
        sinks: Optional<Self>,
        plan: Plan,
    ) -> FloatTensor<Self> {
        match (bias, sinks) {
            (Optional::None, Optional::None) => record::<B, C, _, _>(plan, [query, key, value]),
            (Optional::Some(one), Optional::None) | (Optional::None, Optional::Some(one)) => {
                record::<B, C, _, _>(plan, [query, key, value, one])
            }
            (Optional::Some(bias), Optional::Some(sinks)) => {
                record::<B, C, _, _>(plan, [query, key, value, bias, sinks])
            }
        }
    }
}

/// Query, key, value, and the bias and the sinks where there are any.
///
/// The backward pass gets the inputs, the output and two numbers a query (what its weights were
/// divided by), and computes the weights again: memory grows with the length, not with its square.
impl<const N: usize> Operation<N> for Plan {
    const CHEAP: bool = false;

    fn forward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let narrow = inputs[0].dtype();
        let wide = computed_in(narrow);
        let inputs = Inputs::of(inputs.map(|input| cast::<B>(input, wide)), self);
        let (output, statistics) = match wide {
            DType::F64 => forward_in::<B, f64>(inputs, self),
            _ => forward_in::<B, f32>(inputs, self),
        };
        let output = cast::<B>(output, narrow);
        (output.clone(), vec![output, statistics])
    }

    fn backward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let narrow = inputs.each_ref().map(|input| input.dtype());
        let wide = computed_in(narrow[0]);
        let inputs = Inputs::of(inputs.map(|input| cast::<B>(input, wide)), self);
        let [output, statistics] = saved.try_into().expect("what forward saved");
        let [output, d_output] = [output, d_output].map(|tensor| cast::<B>(tensor, wide));
        let given = Given { output, statistics, d_output };
        let wanted = Inputs::of(wanted, self);
        let Inputs { query, key, value, bias, sinks } = match wide {
            DType::F64 => backward_in::<B, f64>(inputs, given, self, wanted),
            _ => backward_in::<B, f32>(inputs, given, self, wanted),
        };
        let mut gradients = [query, key, value].into_iter().chain(bias).chain(sinks);
        narrow.map(|dtype| {
            let gradient = gradients.next().expect("a place for each input");
            gradient.map(|gradient| cast::<B>(gradient, dtype))
        })
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

/// Something for each tensor that attention reads.
#[derive(Clone, Debug)]
struct Inputs<T> {
    query: T,
    key: T,
    value: T,
    bias: Option<T>,
    sinks: Option<T>,
}

impl<T> Inputs<T> {
    fn of<const N: usize>(inputs: [T; N], plan: &Plan) -> Self {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next().expect("query, key and value");
        let [query, key, value] = [next(), next(), next()];
        let bias = if plan.biased { inputs.next() } else { None };
        Self { query, key, value, bias, sinks: inputs.next() }
    }
}

/// What the backward pass gets besides the inputs.
struct Given<T> {
    output: T,
    statistics: T,
    d_output: T,
}

fn forward_in<B: HostFloat<T>, T: Real>(
    inputs: Inputs<FloatTensor<B>>,
    plan: &Plan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let inputs = Readable::<B>::new(inputs);
    let problem = inputs.problem(plan);
    let shape = [problem.batch, problem.heads, problem.queries, problem.value_dim];
    let [output, statistics] = kernel::forward(&problem, &inputs.views());
    let len = statistics.len();
    (heads_first::<B, T>(output, shape), B::tensor(statistics, [len]))
}

fn backward_in<B: HostFloat<T>, T: Real>(
    inputs: Inputs<FloatTensor<B>>,
    given: Given<FloatTensor<B>>,
    plan: &Plan,
    wanted: Inputs<bool>,
) -> Inputs<Option<FloatTensor<B>>> {
    let inputs = Readable::<B>::new(inputs);
    let [output, d_output] = [given.output, given.d_output].map(readable::<B, T, 4>);
    let statistics = read::<B, T, 1>(&given.statistics);
    let problem = inputs.problem(plan);

    let of = |tensor: &FloatTensor<B>, wanted: bool| {
        let shape = tensor.shape().dims();
        (wanted.then(|| zeros(shape.iter().product())), shape)
    };
    let (mut d_query, query_shape) = of(&inputs.query, wanted.query);
    let (mut d_key, key_shape) = of(&inputs.key, wanted.key);
    let (mut d_value, value_shape) = of(&inputs.value, wanted.value);
    let mut d_bias = inputs.bias.as_ref().map(|bias| of(bias, wanted.bias == Some(true)));
    let mut d_sinks = (wanted.sinks == Some(true)).then(|| vec![0.0; problem.heads]);
    let bias = d_bias.as_mut().and_then(|(data, shape)| Some((data.as_deref_mut()?, *shape)));
    let gradients = kernel::Gradients {
        query: d_query.as_deref_mut(),
        key: d_key.as_deref_mut(),
        value: d_value.as_deref_mut(),
        bias: bias.map(|(data, shape)| kernel::BiasGradient { data, shape }),
        sinks: d_sinks.as_deref_mut(),
    };
    kernel::backward(
        &problem,
        &inputs.views(),
        strided::<B, T>(&output),
        statistics.data,
        strided::<B, T>(&d_output),
        gradients,
    );
    let heads = problem.heads;
    let sinks = |data: Vec<f64>| B::tensor(data.into_iter().map(T::of_f64).collect(), [heads]);
    Inputs {
        query: d_query.map(|data| heads_first::<B, T>(data, query_shape)),
        key: d_key.map(|data| heads_first::<B, T>(data, key_shape)),
        value: d_value.map(|data| heads_first::<B, T>(data, value_shape)),
        bias: d_bias.map(|(data, shape)| data.map(|data| B::tensor(data, shape))),
        sinks: wanted.sinks.map(|_| d_sinks.map(sinks)),
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
    fn new<T: Real>(inputs: Inputs<FloatTensor<B>>) -> Self
    where
        B: HostFloat<T>,
    {
        let Inputs { query, key, value, bias, sinks } = inputs;
        let [query, key, value] = [query, key, value].map(readable::<B, T, 4>);
        let numbers = |sinks| {
            let sinks = readable::<B, T, 1>(sinks);
            let View { data, shape: [heads], strides: [step] } = read::<B, T, 1>(&sinks);
            (0..heads).map(|head| data[head * step].to_f64()).collect()
        };
        Self { query, key, value, bias: bias.map(readable::<B, T, 4>), sinks: sinks.map(numbers) }
    }

    fn problem<'a>(&'a self, plan: &'a Plan) -> Problem<'a> {
        let [query, key] = [&self.query, &self.key].map(|tensor| tensor.shape().dims());
        plan.problem(query, key, self.value.shape()[3], self.sinks.as_deref())
    }

    /// The tensors as the kernel reads them; the bias broadcasts by strides of 0.
    fn views<T: Real>(&self) -> kernel::Inputs<'_, T>
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
        kernel::Inputs {
            query: strided::<B, T>(&self.query),
            key: strided::<B, T>(&self.key),
            value: strided::<B, T>(&self.value),
            bias: self.bias.as_ref().map(broadcast),
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
