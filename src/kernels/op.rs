//! Attention as an operation of Burn: two methods that a backend's kernel serves, and the gradient
//! that is made of them.
//!
//! Queries, keys and values may be read by stride, so that the `swap_dims` that puts the heads before
//! the tokens costs nothing. A kernel for another kind of machine is one more `impl` of
//! [`FusedAttention`].

use burn::backend::{
    AutodiffBackend, Backend, Dispatch, ExtensionType,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor};

use super::Plan;
use super::autodiff::{Operation, OperationInputs, record};
#[cfg(feature = "gpu")]
use super::cube::specs;

/// A tensor that may be missing.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "gpu"))]
pub(crate) enum Optional<B: Backend> {
    None,
    Some(FloatTensor<B>),
}

impl<B: Backend> Optional<B> {
    pub(crate) fn new(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::None, Self::Some)
    }

    pub(crate) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::None => None,
            Self::Some(tensor) => Some(tensor),
        }
    }
}

impl Optional<Dispatch> {
    pub(crate) fn of<const D: usize>(tensor: Option<Tensor<D>>) -> Self {
        Self::new(tensor.map(Tensor::into_dispatch))
    }
}

/// A tensor of integers that may be missing.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "gpu"))]
pub(crate) enum OptionalInts<B: Backend> {
    None,
    Some(IntTensor<B>),
}

#[cfg(feature = "gpu")]
impl<B: Backend> OptionalInts<B> {
    pub(crate) fn into_option(self) -> Option<IntTensor<B>> {
        match self {
            Self::None => None,
            Self::Some(tensor) => Some(tensor),
        }
    }
}

impl OptionalInts<Dispatch> {
    pub(crate) fn of(tensor: Option<Tensor<1, Int>>) -> Self {
        tensor.map_or(Self::None, |tensor| Self::Some(tensor.into_dispatch()))
    }
}

/// What attention may read besides query, key and value.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "gpu"))]
pub(crate) struct Extra<B: Backend> {
    /// Broadcasts to `[batch, heads, queries, keys]`.
    #[extension_type]
    pub(crate) bias: Optional<B>,
    /// `[heads]`: logits that take part in the softmax like a key whose value is zero.
    #[extension_type]
    pub(crate) sinks: Optional<B>,
    /// The plan's visibility and positions as a GPU reads them; CPUs read the plan itself.
    #[extension_type]
    pub(crate) map: OptionalInts<B>,
    /// The seed of dropout as four numbers of 16 bits, the highest first, where a GPU drew it; else it
    /// is the plan's.
    #[extension_type]
    pub(crate) draws: OptionalInts<B>,
}

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) query: bool,
    pub(crate) key: bool,
    pub(crate) value: bool,
    pub(crate) bias: bool,
    pub(crate) sinks: bool,
}

/// The gradients that were asked for, in the shapes of their tensors.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "gpu"))]
pub(crate) struct AttentionGradients<B: Backend> {
    #[extension_type]
    pub(crate) query: Optional<B>,
    #[extension_type]
    pub(crate) key: Optional<B>,
    #[extension_type]
    pub(crate) value: Optional<B>,
    #[extension_type]
    pub(crate) bias: Optional<B>,
    #[extension_type]
    pub(crate) sinks: Optional<B>,
}

extend_cpus! {
    (Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"), Autodiff)

    /// Attention under a [`Plan`].
    ///
    /// # Shapes
    ///
    /// - query: `[batch, heads, queries, head_dim]`
    /// - key: `[batch, kv_heads, keys, head_dim]`
    /// - value: `[batch, kv_heads, keys, value_dim]`
    /// - output: `[batch, heads, queries, value_dim]`
    /// - statistics: `[2 * batch * heads * queries]`, each row's maximum, then each row's sum of
    ///   `exp(score - maximum)`, 0 for a dead row. The maxima are in the kernel's own units: only its own
    ///   backward pass reads them.
    pub(crate) trait FusedAttention: Backend {
        /// The output and the statistics of its rows.
        #[fusion(meta = specs::forward)]
        fn attention_forward(
            query: FloatTensor<Self>,
            key: FloatTensor<Self>,
            value: FloatTensor<Self>,
            #[extension_type] extra: Extra<Self>,
            plan: Plan,
        ) -> (FloatTensor<Self>, FloatTensor<Self>);

        /// The gradients that are `wanted`, from the gradient of the output.
        #[fusion(meta = specs::backward)]
        #[allow(clippy::too_many_arguments)]
        fn attention_backward(
            query: FloatTensor<Self>,
            key: FloatTensor<Self>,
            value: FloatTensor<Self>,
            #[extension_type] extra: Extra<Self>,
            output: FloatTensor<Self>,
            statistics: FloatTensor<Self>,
            d_output: FloatTensor<Self>,
            plan: Plan,
            wanted: Wanted,
        ) -> AttentionGradients<Self>;
    }
}

/// The output is tracked. Statistics and gradients are constants: nothing differentiates them again.
impl<B: FusedAttention, C: CheckpointStrategy> FusedAttention for Autodiff<B, C> {
    fn attention_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        extra: Extra<Self>,
        plan: Plan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let inputs = [
            Some(query),
            Some(key),
            Some(value),
            extra.bias.into_option(),
            extra.sinks.into_option(),
        ];
        let ints = [extra.map, extra.draws].map(OptionalInts::into_inner);
        let (output, saved) = record::<B, C, _, 5>(Attention { plan, ints }, inputs);
        let [_, statistics] = saved.try_into().expect("what forward saved");
        (output, Self::from_inner(statistics))
    }

    fn attention_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        extra: Extra<Self>,
        output: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        d_output: FloatTensor<Self>,
        plan: Plan,
        wanted: Wanted,
    ) -> AttentionGradients<Self> {
        let constant =
            |tensor: Optional<B>| Optional::new(tensor.into_option().map(Self::from_inner));
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let extra = Extra {
            bias: Optional::new(extra.bias.into_option().map(inner)),
            sinks: Optional::new(extra.sinks.into_option().map(inner)),
            map: extra.map.into_inner(),
            draws: extra.draws.into_inner(),
        };
        let [query, key, value, output, statistics, d_output] =
            [query, key, value, output, statistics, d_output].map(inner);
        let gradients = B::attention_backward(
            query, key, value, extra, output, statistics, d_output, plan, wanted,
        );
        let AttentionGradients { query, key, value, bias, sinks } = gradients;
        AttentionGradients {
            query: constant(query),
            key: constant(key),
            value: constant(value),
            bias: constant(bias),
            sinks: constant(sinks),
        }
    }
}

impl<B: Backend, C: CheckpointStrategy> OptionalInts<Autodiff<B, C>> {
    /// Integers are not tracked: the same tensor.
    fn into_inner(self) -> OptionalInts<B> {
        match self {
            Self::None => OptionalInts::None,
            Self::Some(tensor) => OptionalInts::Some(tensor),
        }
    }
}

/// Attention as an operation with a gradient.
#[derive(Clone, Debug)]
struct Attention<B: Backend> {
    plan: Plan,
    /// The map and the draws.
    ints: [OptionalInts<B>; 2],
}

/// Query, key, value, bias and sinks.
///
/// The backward pass gets the inputs, the output and two numbers a query (what its weights were
/// divided by), and computes the weights again: memory grows with the length, not with its square.
impl<B: FusedAttention> Operation<B, 5> for Attention<B> {
    const CHEAP: bool = false;

    fn forward(&self, inputs: OperationInputs<B, 5>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let ([query, key, value], extra) = self.taken_apart(inputs);
        let plan = self.plan.clone();
        let (output, statistics) = B::attention_forward(query, key, value, extra, plan);
        (output.clone(), vec![output, statistics])
    }

    fn backward(
        &self,
        inputs: OperationInputs<B, 5>,
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        [query, key, value, bias, sinks]: [bool; 5],
    ) -> OperationInputs<B, 5> {
        let wanted = Wanted { query, key, value, bias, sinks };
        let ([query, key, value], extra) = self.taken_apart(inputs);
        let [output, statistics] = saved.try_into().expect("what forward saved");
        let gradients = B::attention_backward(
            query,
            key,
            value,
            extra,
            output,
            statistics,
            d_output,
            self.plan.clone(),
            wanted,
        );
        let AttentionGradients { query, key, value, bias, sinks } = gradients;
        [query, key, value, bias, sinks].map(Optional::into_option)
    }
}

impl<B: Backend> Attention<B> {
    fn taken_apart(&self, inputs: OperationInputs<B, 5>) -> ([FloatTensor<B>; 3], Extra<B>) {
        let [Some(query), Some(key), Some(value), bias, sinks] = inputs else {
            unreachable!("attention without query, key or value")
        };
        let [bias, sinks] = [bias, sinks].map(Optional::new);
        let [map, draws] = self.ints.clone();
        ([query, key, value], Extra { bias, sinks, map, draws })
    }
}
