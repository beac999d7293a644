//! One decoder layer: self-attention, optional cross-attention, feed-forward.
//!
//! Each of the two or three parts `f` stands in a residual, with its own norm or norms:
//!
//! | placement | `x` becomes | source |
//! |---|---|---|
//! | post | `norm(x + dropout(f(x)))` | Vaswani et al. 2017, section 3.1 |
//! | pre | `x + dropout(f(norm(x)))` | Xiong et al. 2020 |
//! | output | `x + dropout(norm(f(x)))` | OLMo 2 (OLMo team 2024), section 3.1 |
//! | sandwich | `x + dropout(norm'(f(norm(x))))` | Ding et al. 2021 (CogView); Gemma 2 |
//!
//! In a parallel layer the feed-forward part reads the layer's input instead of the attention's
//! result, and both are added to it (Wang and Komatsuzaki 2021, GPT-J; Black et al. 2022, GPT-NeoX).

use burn::module::Module;
use burn::nn::Dropout;
use burn::tensor::Tensor;

use super::{FeedForward, NormPlacement, ResidualLayout};
use crate::attention::{Angles, MultiHeadAttention, PassAngles, Request};
use crate::cache::LayerCache;
use crate::kernels::Kept;
use crate::mask::LoweredMask;
use crate::norm::Norm;
use crate::sequence::PositionIds;
use crate::weights;

/// What a decoder looks at apart from its own sequence: the output of an encoder, for example.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// `[batch, keys, memory_dim]`, where `memory_dim` is `d_model` unless configured.
    pub states: &'a Tensor<3>,
    /// Which of its positions each query may see.
    pub mask: &'a LoweredMask,
}

/// What a single [`DecoderLayer`] is told of its rows; a [`Decoder`](super::Decoder) tells its layers
/// itself.
#[derive(Clone, Copy, Debug)]
pub struct LayerContext<'a> {
    /// Which keys of the own sequence each query may see.
    pub mask: &'a LoweredMask,
    /// What rotary positions turn by; where the mask's grid has the queries, if not given.
    pub positions: Option<&'a PositionIds>,
    /// Needed if the layer has cross-attention.
    pub memory: Option<Memory<'a>>,
}

impl<'a> LayerContext<'a> {
    /// Under a mask; without a memory, positions by the mask's grid.
    pub fn new(mask: &'a LoweredMask) -> Self {
        Self { mask, positions: None, memory: None }
    }
}

/// The part of one layer in a pass.
pub(super) struct LayerPass<'a> {
    /// Which keys each query may see, those of the past included.
    pub mask: &'a LoweredMask,
    /// Of the new tokens, if the layer has rotary positions.
    pub angles: Option<Angles>,
    pub memory: Option<Memory<'a>>,
    /// The keys and values of earlier tokens, if they are kept.
    pub past: Option<&'a mut LayerCache>,
}

/// Output of a [`DecoderLayer`].
#[derive(Clone, Debug)]
pub struct DecoderLayerOutput {
    /// `[batch, queries, d_model]`
    pub output: Tensor<3>,
    /// Weights of the self-attention, `[batch, heads, queries, keys]`, if asked for.
    pub self_weights: Option<Tensor<4>>,
    /// Weights of the cross-attention, `[batch, heads, queries, keys of the memory]`, if asked for.
    pub cross_weights: Option<Tensor<4>>,
}

/// One layer of a decoder. Built by [`DecoderLayerConfig`](super::DecoderLayerConfig).
///
/// The norms are named by the part they belong to. PyTorch's `TransformerDecoderLayer` calls them
/// `norm1` (self-attention), `norm2` (cross-attention) and `norm3` (feed-forward), in both
/// placements.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// The sequence looks at itself.
    pub self_attention: MultiHeadAttention,
    /// Norm of the self-attention.
    pub self_attention_norm: Norm,
    /// Second norm of the self-attention, on its output; there with [`NormPlacement::Sandwich`].
    pub self_attention_output_norm: Option<Norm>,
    /// The sequence looks at the memory.
    pub cross_attention: Option<MultiHeadAttention>,
    /// Norm of the cross-attention; there if that is.
    pub cross_attention_norm: Option<Norm>,
    /// Second norm of the cross-attention.
    pub cross_attention_output_norm: Option<Norm>,
    /// Applied to each position separately.
    pub feed_forward: FeedForward,
    /// Norm of the feed-forward part, unless it shares that of the self-attention.
    pub feed_forward_norm: Option<Norm>,
    /// Second norm of the feed-forward part.
    pub feed_forward_output_norm: Option<Norm>,
    pub(super) dropout: Dropout,
    #[module(skip)]
    pub(super) norm_placement: NormPlacement,
    #[module(skip)]
    pub(super) residual_layout: ResidualLayout,
}

impl DecoderLayer {
    /// Applies the layer.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, queries, d_model]`
    /// - memory: `[batch, keys, memory_dim]`
    /// - output: `[batch, queries, d_model]`
    ///
    /// # Panics
    ///
    /// If a shape does not fit, or if there is cross-attention and no memory or the other way
    /// round.
    pub fn forward(
        &self,
        x: Tensor<3>,
        context: &LayerContext,
        request: &Request,
    ) -> DecoderLayerOutput {
        let &LayerContext { mask, positions, memory } = context;
        let mut angles = PassAngles::new(positions, mask.grid());
        let angles = self.self_attention.angles(&mut angles);
        self.pass(x, LayerPass { mask, angles, memory, past: None }, request)
    }

    /// The same, where the keys and values of earlier tokens may come from a cache.
    pub(super) fn pass(
        &self,
        x: Tensor<3>,
        part: LayerPass,
        request: &Request,
    ) -> DecoderLayerOutput {
        let LayerPass { mask, angles, memory, mut past } = part;
        let (mut self_weights, mut cross_weights) = (None, None);

        // What a parallel feed-forward part reads, normalized already where it shares the norm.
        let mut beside = (self.residual_layout == ResidualLayout::Parallel).then(|| x.clone());
        let norms = (&self.self_attention_norm, &self.self_attention_output_norm);
        let mut x = self.residual(x, norms, |x| {
            if self.residual_layout == ResidualLayout::ParallelSharedNorm {
                beside = Some(x.clone());
            }
            let attention = &self.self_attention;
            let [query, key, value] = attention.project_own(x, angles.as_ref());
            weights::read_next([&attention.output]);
            let [key, value] = match past.as_deref_mut() {
                Some(past) => past.append(key, value),
                None => [key.into(), value.into()],
            };
            let attended = attention.attend(query, key, value, mask, &attention.score(), request);
            self_weights = attended.weights;
            self.feed_forward.read_next();
            attended.output
        });

        assert_eq!(
            self.cross_attention.is_some(),
            memory.is_some(),
            "a memory belongs to a layer with cross-attention: expected both or neither"
        );
        if let (Some(attention), Some(norm), Some(memory)) =
            (&self.cross_attention, &self.cross_attention_norm, memory)
        {
            x = self.residual(x, (norm, &self.cross_attention_output_norm), |x| {
                let Memory { states, mask } = memory;
                let project = || attention.project_key_value(states.clone(), states.clone(), None);
                let [key, value] = match past {
                    Some(past) => past.memory(project),
                    None => <[_; 2]>::from(project()).map(Kept::from),
                };
                let query = attention.project_query(x, None);
                let attended =
                    attention.attend(query, key, value, mask, &attention.score(), request);
                cross_weights = attended.weights;
                attended.output
            });
        }

        let part = |x| self.feed_forward.forward(x);
        let output = match (&self.feed_forward_norm, beside) {
            (Some(norm), None) => self.residual(x, (norm, &self.feed_forward_output_norm), part),
            (Some(norm), Some(before)) => {
                x + self.branch(before, (norm, &self.feed_forward_output_norm), part)
            }
            (None, beside) => {
                let normed = beside.expect("a shared norm has been applied by the attention");
                x + self.dropout.forward(part(normed))
            }
        };
        DecoderLayerOutput { output, self_weights, cross_weights }
    }

    /// Says that the layer will be applied next.
    pub(super) fn read_next(&self) {
        let attention = &self.self_attention;
        weights::read_next([&attention.query, &attention.key, &attention.value]);
    }

    /// `x` and what one part adds to it, normalized in their place.
    fn residual(&self, x: Tensor<3>, norms: Norms, sublayer: impl Sublayer) -> Tensor<3> {
        let sum = x.clone() + self.branch(x, norms, sublayer);
        match self.norm_placement {
            NormPlacement::Post => norms.0.forward(sum),
            _ => sum,
        }
    }

    /// What one part adds to its residual.
    fn branch(&self, x: Tensor<3>, (norm, second): Norms, sublayer: impl Sublayer) -> Tensor<3> {
        let added = match (self.norm_placement, second) {
            (NormPlacement::Post, _) => sublayer(x),
            (NormPlacement::Output, _) => norm.forward(sublayer(x)),
            (_, Some(second)) => second.forward(sublayer(norm.forward(x))),
            (_, None) => sublayer(norm.forward(x)),
        };
        self.dropout.forward(added)
    }
}

/// The norm of a part, and the second one of a sandwich.
type Norms<'a> = (&'a Norm, &'a Option<Norm>);

/// Self-attention, cross-attention or feed-forward.
trait Sublayer: FnOnce(Tensor<3>) -> Tensor<3> {}

impl<F: FnOnce(Tensor<3>) -> Tensor<3>> Sublayer for F {}
