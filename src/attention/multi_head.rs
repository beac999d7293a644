//! Multi-head attention: projections around
//! [`scaled_dot_product_attention`](super::scaled_dot_product_attention).
//!
//! ```text
//! head_i = attention(Q W_i^Q, K W_i^K, V W_i^V)
//! output = concat(head_1, ..., head_heads) W^O
//! ```
//!
//! (Vaswani et al. 2017, section 3.2.2.) With fewer key/value heads than query heads, consecutive
//! query heads share keys and values: grouped-query attention (Ainslie et al. 2023, section 2.2);
//! with one, multi-query attention (Shazeer 2019).
//!
//! Between projection and attention queries and keys may be normalized, then turned by rotary
//! positions; a cache keeps keys that have been through both.

use burn::module::{Module, Param};
use burn::nn::{Dropout, Linear};
use burn::tensor::{DType, Tensor, assert_shape};

use super::qk_norm::normalize;
use super::rotary::{Angles, PassAngles, Rotary, key_angles};
use super::{Alibi, AttentionOutput, HeadMapping, Request, Score, attend};
use crate::kernels::Kept;
use crate::mask::LoweredMask;
use crate::norm::Norm;
use crate::weights::{blocks, linear, project_together};

/// Queries, keys and values projected to heads, attention, and the heads projected back.
///
/// Self-attention where all three inputs are the same tensor, cross-attention otherwise. Built from
/// Burn's own `Linear`, so Burn's importers find what they know. See
/// [`MultiHeadAttentionConfig`](super::MultiHeadAttentionConfig).
///
/// Its sizes follow from the configuration and can't be set apart from the parameters:
///
/// ```compile_fail,E0616
/// # use burn_decoder::attention::MultiHeadAttention;
/// fn change(layer: &mut MultiHeadAttention) {
///     layer.heads = 7;
/// }
/// ```
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// `[d_model, heads * head_dim]`
    pub query: Linear,
    /// `[memory_dim, kv_heads * head_dim]`
    pub key: Linear,
    /// `[memory_dim, kv_heads * head_dim]`
    pub value: Linear,
    /// `[heads * head_dim, d_model]`
    pub output: Linear,
    /// Norm of the queries, if there is one.
    pub query_norm: Option<Norm>,
    /// Norm of the keys, if there is one.
    pub key_norm: Option<Norm>,
    /// `[heads]`: the learned scores of [`AttentionSinks::Learned`](super::AttentionSinks::Learned).
    pub sinks: Option<Param<Tensor<1>>>,
    pub(super) dropout: Dropout,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: Option<f64>,
    pub(super) softcap: Option<f64>,
    #[module(skip)]
    pub(super) head_mapping: HeadMapping,
    #[module(skip)]
    pub(super) rotary: Option<Rotary>,
    #[module(skip)]
    pub(super) alibi: Option<Alibi>,
    pub(super) quiet: bool,
}

/// What [`MultiHeadAttention`] gives back.
#[derive(Clone, Debug)]
pub struct MultiHeadOutput {
    /// `[batch, queries, d_model]`
    pub output: Tensor<3>,
    /// The weights before dropout, where asked for: `[batch, heads, queries, keys]`.
    pub weights: Option<Tensor<4>>,
}

impl MultiHeadAttention {
    /// Number of query heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Number of key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Width of each head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// How this layer scores its keys, to be completed for [`forward_scored`](Self::forward_scored).
    pub fn score(&self) -> Score {
        // A frozen layer on the training device does not drop, as with Burn's Dropout.
        let dropout = if self.dropout.training.is_enabled() { self.dropout.prob } else { 0.0 };
        let quiet = || {
            let weight = self.query.weight.base();
            Tensor::zeros([self.heads], (&weight.device(), weight.dtype()))
        };
        let sinks = match &self.sinks {
            // In f32, as what a projection in blocks gives.
            Some(sinks) if blocks(&self.query.weight).is_some() => {
                Some(sinks.val().cast(DType::F32))
            }
            Some(sinks) => Some(sinks.val()),
            None => self.quiet.then(quiet),
        };
        Score::new()
            .with_scale(self.scale)
            .with_softcap(self.softcap)
            .with_alibi(self.alibi.clone())
            .with_sinks(sinks)
            .with_dropout(dropout)
    }

    /// Attention of `query` over `key` and `value`: projects, attends, projects back. Rotary
    /// positions are those of the mask's grid.
    ///
    /// # Shapes
    ///
    /// - query: `[batch, queries, d_model]`
    /// - key, value: `[batch, keys, memory_dim]`
    /// - output: `[batch, queries, d_model]`; a dead row is the output projection's bias
    ///
    /// # Panics
    ///
    /// If the shapes do not fit each other, the layer or the mask's grid, or as
    /// [`scaled_dot_product_attention`](super::scaled_dot_product_attention) does.
    pub fn forward(
        &self,
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        mask: &LoweredMask,
        request: &Request,
    ) -> MultiHeadOutput {
        self.forward_scored(query, key, value, mask, &self.score(), request)
    }

    /// The same with another score than the layer's own: `layer.score().with_bias(bias)`, for
    /// example.
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_scored(
        &self,
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        mask: &LoweredMask,
        score: &Score,
        request: &Request,
    ) -> MultiHeadOutput {
        let grid = mask.grid();
        let angles = self.angles(&mut PassAngles::new(None, grid));
        let query = self.project_query(query, angles.as_ref());
        let angles = self.rotary.as_ref().map(|rotary| key_angles(rotary, grid));
        let (key, value) = self.project_key_value(key, value, angles.as_ref());
        self.attend(query, key.into(), value.into(), mask, score, request)
    }

    /// The angles of this layer's rotary positions, if it has any.
    pub(crate) fn angles(&self, pass: &mut PassAngles) -> Option<Angles> {
        self.rotary.as_ref().map(|rotary| pass.of(rotary))
    }

    /// `[batch, queries, d_model]` to `[batch, heads, queries, head_dim]`, normalized and turned.
    pub(crate) fn project_query(&self, query: Tensor<3>, angles: Option<&Angles>) -> Tensor<4> {
        self.prepare(linear(&self.query, query), &self.query_norm, angles, self.heads)
    }

    /// Keys and values, `[batch, keys, memory_dim]` each, to `[batch, kv_heads, keys, head_dim]`, the
    /// keys normalized and turned: what a cache stores.
    pub(crate) fn project_key_value(
        &self,
        key: Tensor<3>,
        value: Tensor<3>,
        angles: Option<&Angles>,
    ) -> (Tensor<4>, Tensor<4>) {
        (
            self.prepare(linear(&self.key, key), &self.key_norm, angles, self.kv_heads),
            split_heads(linear(&self.value, value), self.kv_heads),
        )
    }

    /// Queries, keys and values of a sequence that looks at itself, `[batch, queries, d_model]`: what the
    /// two functions above give.
    pub(crate) fn project_own(&self, x: Tensor<3>, angles: Option<&Angles>) -> [Tensor<4>; 3] {
        let normed = self.query_norm.is_some() || self.key_norm.is_some();
        let layers = [&self.query, &self.key, &self.value];
        let together = if normed { None } else { project_together(&layers, &x) };
        let Some(mut all) = together else {
            let query = self.project_query(x.clone(), angles);
            let (key, value) = self.project_key_value(x.clone(), x, angles);
            return [query, key, value];
        };
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        if let Some(angles) = angles {
            all = angles.turn_first(all, self.head_dim, heads + kv_heads);
        }
        let all = split_heads(all, heads + 2 * kv_heads);
        let part = |first, heads| all.clone().narrow(1, first, heads);
        [part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads)]
    }

    /// Norm, rotary positions and heads of what was projected.
    fn prepare(
        &self,
        mut x: Tensor<3>,
        norm: &Option<Norm>,
        angles: Option<&Angles>,
        heads: usize,
    ) -> Tensor<4> {
        if let Some(norm) = norm {
            x = normalize(norm, x);
        }
        if let Some(angles) = angles {
            x = angles.turn(x, self.head_dim);
        }
        split_heads(x, heads)
    }

    /// Attention of projected queries over projected keys and values, projected back.
    ///
    /// - query: `[batch, heads, queries, head_dim]`
    /// - key, value: `[batch, kv_heads, keys, head_dim]`, perhaps as a cache keeps them
    /// - output: `[batch, queries, d_model]`
    pub(crate) fn attend(
        &self,
        query: Tensor<4>,
        key: Kept,
        value: Kept,
        mask: &LoweredMask,
        score: &Score,
        request: &Request,
    ) -> MultiHeadOutput {
        let [batch, _, queries, _] = query.dims();
        assert_shape!(query, [batch, self.heads, queries, self.head_dim]);
        for (name, kept) in [("key", &key), ("value", &value)] {
            let [rows, kv_heads, _, head_dim] = kept.dims();
            let (expected, got) =
                ([batch, self.kv_heads, self.head_dim], [rows, kv_heads, head_dim]);
            assert_eq!(got, expected, "{name}: batch, kv_heads and head_dim");
        }
        let [key, value] = match self.head_mapping {
            HeadMapping::Grouped => [key, value],
            HeadMapping::Interleaved => {
                [key, value].map(|kept| kept.repeat_heads(self.heads / self.kv_heads)) // [batch, heads, keys, head_dim]
            }
        };
        let AttentionOutput { output, weights } = attend(query, key, value, mask, score, request);
        let output = output.swap_dims(1, 2); // [batch, queries, heads, head_dim]
        let output = output.reshape([batch, queries, self.heads * self.head_dim]); // [batch, queries, heads * head_dim]
        MultiHeadOutput { output: linear(&self.output, output), weights }
    }
}

/// `[batch, rows, heads * head_dim]` to `[batch, heads, rows, head_dim]`.
fn split_heads(tensor: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, rows, width] = tensor.dims();
    let tensor = tensor.reshape([batch, rows, heads, width / heads]); // [batch, rows, heads, head_dim]
    tensor.swap_dims(1, 2) // [batch, heads, rows, head_dim]
}
