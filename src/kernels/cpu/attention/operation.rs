//! Attention on the tensors of a CPU backend, written once for all of them.
//!
//! Queries, keys and values are read by stride; what comes out (output and gradients alike) lies in
//! memory as `[batch, tokens, heads, width]`, so that swapping heads and tokens back is free.
//!
//! The kernel computes in f32 and f64. Of queries, keys and values in half precision, or in codes, the
//! forward pass converts a tile at a time; the backward pass has them converted before it, and results
//! are converted behind it.

use burn::backend::{
    Backend, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::DType;

use super::{BiasGradient, GradientSlices, Inputs, Real, Source, Strided, slices};
use crate::kernels::cpu::host::{Host, HostCodes, HostFloat, HostView, read, readable};
use crate::kernels::cpu::memory::zeros;
use crate::kernels::kept::CodedAttention;
use crate::kernels::op::{AttentionGradients, Extra, FusedAttention, Optional, Wanted};
use crate::kernels::{Coding, Plan};

impl<B: Host> FusedAttention for B {
    fn attention_forward(
        query: FloatTensor<B>,
        key: FloatTensor<B>,
        value: FloatTensor<B>,
        extra: Extra<B>,
        plan: Plan,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let narrow = query.dtype();
        let tensors = Tensors::<B>::for_forward([query, key, value], extra);
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
        let tensors = Tensors::<B>::for_backward([query, key, value], extra);
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

impl<B: Host> CodedAttention for B {
    fn coded_attention(
        query: FloatTensor<B>,
        key: IntTensor<B>,
        value: IntTensor<B>,
        extra: Extra<B>,
        plan: Plan,
        coding: Coding,
    ) -> FloatTensor<B> {
        let narrow = query.dtype();
        let codes = [key, value];
        let output = match computed_in(narrow) {
            DType::F64 => coded_forward::<B, f64>(query, codes, extra, &plan, coding),
            _ => coded_forward::<B, f32>(query, codes, extra, &plan, coding),
        };
        cast::<B>(output, narrow)
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

/// The inputs in the elements that the kernel computes in, or in half precision.
struct Tensors<B: Backend> {
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    sinks: Option<FloatTensor<B>>,
}

impl<B: Backend> Tensors<B> {
    /// In half precision where they are.
    fn for_forward(inputs: [FloatTensor<B>; 3], extra: Extra<B>) -> Self
    where
        B: HostCodes,
    {
        let wide = computed_in(inputs[0].dtype());
        let [query, key, value] = inputs.map(|tensor| widened::<B>(tensor, wide));
        let [bias, sinks] = extra_in::<B>(extra, wide);
        Self { query, key, value, bias, sinks }
    }

    fn for_backward(inputs: [FloatTensor<B>; 3], extra: Extra<B>) -> Self {
        let wide = computed_in(inputs[0].dtype());
        let [query, key, value] = inputs.map(|tensor| cast::<B>(tensor, wide));
        let [bias, sinks] = extra_in::<B>(extra, wide);
        Self { query, key, value, bias, sinks }
    }
}

/// The tensor in elements of `wide`, unless it is in half precision, which the forward pass reads.
fn widened<B: HostCodes>(tensor: FloatTensor<B>, wide: DType) -> FloatTensor<B> {
    if B::half(tensor.dtype()).is_some() { tensor } else { cast::<B>(tensor, wide) }
}

/// The bias and the sinks in elements of `wide`.
fn extra_in<B: Backend>(extra: Extra<B>, wide: DType) -> [Option<FloatTensor<B>>; 2] {
    let extra = [extra.bias, extra.sinks].map(Optional::into_option);
    extra.map(|tensor| tensor.map(|tensor| cast::<B>(tensor, wide)))
}

/// What the backward pass gets besides the inputs.
struct Given<T> {
    output: T,
    statistics: T,
    d_output: T,
}

fn forward_in<B: HostFloat<T> + HostCodes, T: Real>(
    tensors: Tensors<B>,
    plan: &Plan,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let Tensors { query, key, value, bias, sinks } = tensors;
    let [query, key, value] = [query, key, value].map(readable_source::<B, T>);
    let extra = ReadableExtra::<B>::new(bias, sinks);
    let inputs = extra.beside(plan, [&query, &key, &value].map(source::<B, T>));
    let [output, statistics] = slices::forward(plan, &inputs);
    let len = statistics.len();
    let shape = [plan.batch, plan.heads, plan.queries, plan.value_dim];
    (heads_first::<B, T>(output, shape), B::tensor(statistics, [len]))
}

/// The output alone, for keys and values in codes.
fn coded_forward<B: HostFloat<T> + HostCodes, T: Real>(
    query: FloatTensor<B>,
    codes: [IntTensor<B>; 2],
    extra: Extra<B>,
    plan: &Plan,
    coding: Coding,
) -> FloatTensor<B> {
    let wide = computed_in(query.dtype());
    let query = readable_source::<B, T>(widened::<B>(query, wide));
    let [bias, sinks] = extra_in::<B>(extra, wide);
    let extra = ReadableExtra::<B>::new(bias, sinks);
    let [key, value] = codes.map(|codes| readable_codes::<B>(codes, coding));
    let [key, value] =
        [(&key, plan.head_dim), (&value, plan.value_dim)].map(|(codes, width)| match coding {
            Coding::Q8_0 => Source::q8_0(of_view(B::codes_u8(codes)), width),
            Coding::Bf16 | Coding::F16 => Source::halves(coding, of_view(B::codes_u16(codes))),
        });
    let inputs = extra.beside(plan, [source::<B, T>(&query), key, value]);
    let [output, _] = slices::forward(plan, &inputs);
    heads_first::<B, T>(output, [plan.batch, plan.heads, plan.queries, plan.value_dim])
}

fn backward_in<B: HostFloat<T>, T: Real>(
    tensors: Tensors<B>,
    given: Given<FloatTensor<B>>,
    plan: &Plan,
    wanted: Wanted,
) -> AttentionGradients<B> {
    let Tensors { query, key, value, bias, sinks } = tensors;
    let [query, key, value] = [query, key, value].map(readable::<B, T, 4>);
    let extra = ReadableExtra::<B>::new(bias, sinks);
    let [output, d_output] = [given.output, given.d_output].map(readable::<B, T, 4>);
    let statistics = read::<B, T, 1>(&given.statistics);

    let of = |tensor: &FloatTensor<B>, wanted: bool| {
        let shape = tensor.shape().dims();
        (wanted.then(|| zeros(shape.iter().product())), shape)
    };
    let (mut d_query, query_shape) = of(&query, wanted.query);
    let (mut d_key, key_shape) = of(&key, wanted.key);
    let (mut d_value, value_shape) = of(&value, wanted.value);
    let mut d_bias = extra.bias.as_ref().map(|bias| of(bias, wanted.bias));
    let mut d_sinks = wanted.sinks.then(|| vec![0.0; plan.heads]);
    let bias = d_bias.as_mut().and_then(|(data, shape)| Some((data.as_deref_mut()?, *shape)));
    let gradients = GradientSlices {
        query: d_query.as_deref_mut(),
        key: d_key.as_deref_mut(),
        value: d_value.as_deref_mut(),
        bias: bias.map(|(data, shape)| BiasGradient { data, shape }),
        sinks: d_sinks.as_deref_mut(),
    };
    let sources = [&query, &key, &value].map(|tensor| Source::Real(strided::<B, T>(tensor)));
    slices::backward(
        plan,
        &extra.beside(plan, sources),
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

/// What attention reads beside queries, keys and values, where the kernel can read it.
struct ReadableExtra<B: Backend> {
    bias: Option<FloatTensor<B>>,
    sinks: Option<Vec<f64>>,
}

impl<B: Backend> ReadableExtra<B> {
    fn new<T: Real>(bias: Option<FloatTensor<B>>, sinks: Option<FloatTensor<B>>) -> Self
    where
        B: HostFloat<T>,
    {
        let numbers = |sinks| {
            let sinks = readable::<B, T, 1>(sinks);
            let HostView { data, shape: [heads], strides: [step] } = read::<B, T, 1>(&sinks);
            (0..heads).map(|head| data[head * step].to_f64()).collect()
        };
        Self { bias: bias.map(readable::<B, T, 4>), sinks: sinks.map(numbers) }
    }

    /// All that attention reads; the bias broadcasts by strides of 0.
    fn beside<'a, T: Real>(
        &'a self,
        plan: &Plan,
        [query, key, value]: [Source<'a, T>; 3],
    ) -> Inputs<'a, T>
    where
        B: HostFloat<T>,
    {
        let full = [plan.batch, plan.heads, plan.queries, plan.keys];
        let broadcast = |bias| {
            let HostView { data, shape, mut strides } = read::<B, T, 4>(bias);
            for axis in 0..4 {
                if shape[axis] == 1 {
                    strides[axis] = 0;
                }
            }
            Strided::new(data, full, strides)
        };
        let bias = self.bias.as_ref().map(broadcast);
        Inputs { query, key, value, bias, sinks: self.sinks.as_deref() }
    }
}

/// The tensor, or a copy of it, where [`source`] can read it.
fn readable_source<B: HostFloat<T> + HostCodes, T: Real>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    match B::half(tensor.dtype()) {
        Some(_) if B::half_bits(&tensor).is_some() => tensor,
        Some(_) => B::contiguous(tensor),
        None => readable::<B, T, 4>(tensor),
    }
}

/// The rows of a tensor that went through [`readable_source`].
fn source<B: HostFloat<T> + HostCodes, T: Real>(tensor: &FloatTensor<B>) -> Source<'_, T> {
    match B::half(tensor.dtype()) {
        Some(coding) => Source::halves(coding, of_view(B::half_bits(tensor))),
        None => Source::Real(strided::<B, T>(tensor)),
    }
}

/// The codes, or a copy of them, with those of a row side by side.
fn readable_codes<B: HostCodes>(codes: IntTensor<B>, coding: Coding) -> IntTensor<B> {
    let step = match coding {
        Coding::Q8_0 => B::codes_u8(&codes).map(|view| view.strides[3]),
        Coding::Bf16 | Coding::F16 => B::codes_u16(&codes).map(|view| view.strides[3]),
    };
    if step == Some(1) { codes } else { B::contiguous_codes(codes) }
}

fn of_view<T>(view: Option<HostView<'_, T, 4>>) -> Strided<'_, T> {
    let HostView { data, shape, strides } = view.expect("a readable tensor");
    Strided::new(data, shape, strides)
}

fn strided<B: HostFloat<T>, T>(tensor: &FloatTensor<B>) -> Strided<'_, T> {
    of_view(B::view(tensor))
}

/// A tensor of `[batch, heads, tokens, width]` whose data lies as `[batch, tokens, heads, width]`.
fn heads_first<B: HostFloat<T>, T>(data: Vec<T>, shape: [usize; 4]) -> FloatTensor<B> {
    let [batch, heads, tokens, width] = shape;
    B::float_swap_dims(B::tensor(data, [batch, tokens, heads, width]), 1, 2)
}
