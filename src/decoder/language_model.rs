//! A language model: token and position embedding, a decoder, and an output head.
//!
//! ```text
//! x = dropout(√d_model · embedding(tokens) + positions)      [batch, queries, d_model]
//! logits = head(decoder(x))                                  [batch, queries, vocab_size]
//! ```
//!
//! Vaswani et al. 2017, sections 3.4 and 3.5. `logits[b, i]` scores what token `i + 1` of row `b`
//! is. A tied head is the token embedding itself, transposed (Press and Wolf 2017). Rotary positions
//! and ALiBi belong to the layers; a model that has them needs no position embedding.

use burn::module::{Module, Param};
use burn::nn::{Dropout, Embedding, Linear};
use burn::tensor::{Int, Tensor, assert_shape};

use super::pass_view::PassView;
use super::token_check::CheckedTokens;
use super::{Decoder, LanguageModelInput, PositionEmbedding};
use crate::attention::Request;
use crate::cache::LayerCache;
use crate::loss::{CrossEntropy, OutputHead};
use crate::norm::Norm;
use crate::sequence::Positions;
use crate::{Result, weights};

/// Output of a [`LanguageModel`].
#[derive(Clone, Debug)]
pub struct LanguageModelOutput {
    /// Scores of each next token, `[batch, queries, vocab_size]`.
    pub logits: Tensor<3>,
    /// The self-attention weights of each layer, `[batch, heads, queries, keys]`; empty if not
    /// asked for.
    pub self_weights: Vec<Tensor<4>>,
    /// The cross-attention weights of each layer, `[batch, heads, queries, keys of the memory]`;
    /// empty if not asked for or if there is no cross-attention.
    pub cross_weights: Vec<Tensor<4>>,
}

/// Tokens in, scores of the next tokens out. Built by [`LanguageModelConfig`](super::LanguageModelConfig).
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// One vector for each token.
    pub embedding: Embedding,
    /// Added to the token embeddings, if there is one.
    pub positions: Option<PositionEmbedding>,
    /// Normalizes the sum of the two, if there.
    pub embedding_norm: Option<Norm>,
    pub(super) dropout: Dropout,
    /// The layers.
    pub decoder: Decoder,
    /// From `d_model` to `vocab_size`; not there if tied to the embedding.
    pub head: Option<Linear>,
    /// `[vocab_size]`: the bias of a tied head, if it has one. That of another is in its [`Linear`].
    pub head_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(super) embedding_scale: f64,
    #[module(skip)]
    pub(super) logit_softcap: Option<f64>,
    /// Of the configuration, see `fingerprint`.
    #[module(skip)]
    pub(super) settings: u64,
}

impl LanguageModel {
    /// Number of different tokens.
    pub fn vocab_size(&self) -> usize {
        weights::shape(&self.embedding)[0]
    }

    /// Width of the decoder.
    pub fn d_model(&self) -> usize {
        weights::shape(&self.embedding)[1]
    }

    /// Scores what comes after each token.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, queries]`
    /// - logits: `[batch, queries, vocab_size]`
    ///
    /// # Errors
    ///
    /// [`Error::Token`](crate::Error::Token) for a token outside the vocabulary, where the host looks at them
    /// ([`TokenCheck`](crate::attention::TokenCheck): on a GPU the device does, and such a token's
    /// logits are NaN), [`Error::Input`](crate::Error::Input) for tokens on another device than the model, and those of
    /// [`LanguageModel::forward_embedded`] and [`LanguageModel::embed`].
    pub fn forward(
        &self,
        tokens: Tensor<2, Int>,
        input: impl Into<LanguageModelInput>,
    ) -> Result<LanguageModelOutput> {
        let LanguageModelInput { batch, request } = input.into();
        let tokens = self.checked(tokens, &request)?;
        let embedded = self.embed(tokens.ids.clone(), &batch.positions)?;
        self.forward_embedded(tokens.marked(embedded), batch.asking(request))
    }

    /// The vectors that enter the decoder: token embedding and position embedding, normalized if
    /// the model does that.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, queries]`
    /// - output: `[batch, queries, d_model]`
    ///
    /// # Errors
    ///
    /// [`Error::Positions`](crate::Error::Positions) if the positions don't fit the tokens, or lie beyond the capacity of
    /// learned positions.
    pub fn embed(&self, tokens: Tensor<2, Int>, positions: &Positions) -> Result<Tensor<3>> {
        self.embed_from(0, tokens, positions)
    }

    /// The same for tokens that come behind `start` others.
    pub(super) fn embed_from(
        &self,
        start: usize,
        tokens: Tensor<2, Int>,
        positions: &Positions,
    ) -> Result<Tensor<3>> {
        let [batch, queries] = tokens.dims();
        let mut embedded = weights::embed(&self.embedding, tokens); // [batch, queries, d_model]
        if self.embedding_scale != 1.0 {
            embedded = embedded * self.embedding_scale;
        }
        if let Some(embedding) = &self.positions {
            let ids = positions.ids(batch, start, queries)?;
            let positions = embedding.forward(&ids, &embedded.device())?.cast(embedded.dtype());
            embedded = embedded + positions;
        }
        Ok(match &self.embedding_norm {
            Some(norm) => norm.forward(embedded),
            None => embedded,
        })
    }

    /// The model behind its embedding: for vectors that are not those of a token, and for
    /// gradients with respect to them. Of the input's positions those are used that the layers need:
    /// the left padding, where masks count from, and what rotary positions turn by.
    ///
    /// # Shapes
    ///
    /// - embedded: `[batch, queries, d_model]`
    /// - logits: `[batch, queries, vocab_size]`
    ///
    /// # Errors
    ///
    /// [`Error::Mask`](crate::Error::Mask) if a mask does not fit the batch, [`Error::Positions`](crate::Error::Positions) if the positions don't
    /// fit the tokens, [`Error::Input`](crate::Error::Input) if there is cross-attention and no memory or the other way
    /// round.
    ///
    /// # Panics
    ///
    /// If `embedded` or the memory has another shape.
    pub fn forward_embedded(
        &self,
        embedded: Tensor<3>,
        input: impl Into<LanguageModelInput>,
    ) -> Result<LanguageModelOutput> {
        let LanguageModelInput { batch, request } = input.into();
        let d_model = self.d_model();
        assert_shape!(embedded, [_, _, d_model]);
        let [rows, queries, _] = embedded.dims();
        let view = self.decoder.view_of_all(&batch, [rows, queries])?;
        Ok(self.decode(embedded, &view, &mut [], &request))
    }

    /// The loss of the tokens that come next, without the logits of all of them: see
    /// [`loss`](crate::loss). What a request asks to be returned is not.
    ///
    /// ```
    /// # #[cfg(feature = "ndarray")] {
    /// # use burn::tensor::{Device, Int, Tensor};
    /// # use burn_decoder::attention::MultiHeadAttentionConfig;
    /// # use burn_decoder::decoder::*;
    /// use burn_decoder::loss::CrossEntropyConfig;
    ///
    /// # #[allow(deprecated)]
    /// # let device = Device::ndarray();
    /// # let layer = DecoderLayerConfig::new(
    /// #     MultiHeadAttentionConfig::new(64, 4),
    /// #     FeedForwardConfig::new(64, 256),
    /// # );
    /// # let model = LanguageModelConfig::new(100, DecoderConfig::new(layer, 2)).init(&device)?;
    /// let tokens = Tensor::<2, Int>::from_ints([[5, 3, 8, 1], [7, 2, 9, 0]], &device);
    /// let (input, next) = (tokens.clone().narrow(1, 0, 3), tokens.narrow(1, 1, 3));
    /// let cross_entropy = CrossEntropyConfig::new().with_ignored(Some(0)).init()?;
    /// let batch = Batch::new().with_lengths([3, 2]);
    /// let loss = model.loss(input, batch, next, &cross_entropy)?;
    /// assert!(loss.into_scalar::<f32>() > 0.0);
    /// # }
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, queries]`
    /// - targets: `[batch, queries]`, the token that comes after each
    /// - output: `[1]`
    ///
    /// # Errors
    ///
    /// Those of [`LanguageModel::forward`] and [`CrossEntropy::forward`].
    pub fn loss(
        &self,
        tokens: Tensor<2, Int>,
        input: impl Into<LanguageModelInput>,
        targets: Tensor<2, Int>,
        cross_entropy: &CrossEntropy,
    ) -> Result<Tensor<1>> {
        let LanguageModelInput { batch, request } = input.into();
        let [rows, queries] = tokens.dims();
        let tokens = self.checked(tokens, &request)?;
        let embedded = self.embed(tokens.ids.clone(), &batch.positions)?;
        let embedded = tokens.marked(embedded);
        let view = self.decoder.view_of_all(&batch, [rows, queries])?;
        let request = Request { weights: false, ..request };
        let embedded = self.dropout.forward(embedded);
        let hidden = self.decoder.pass(embedded, &view, &mut [], &request).output;
        cross_entropy.forward(hidden, self.output_head(), targets)
    }

    /// Tokens that the model has vectors for, or that are marked.
    pub(super) fn checked(
        &self,
        tokens: Tensor<2, Int>,
        request: &Request,
    ) -> Result<CheckedTokens> {
        let device = self.embedding.weight.device();
        CheckedTokens::new(tokens, &device, self.vocab_size(), request.token_check)
    }

    /// What turns the decoder's output into logits.
    pub fn output_head(&self) -> OutputHead {
        let (head, bias) = match &self.head {
            Some(head) => (OutputHead::new(head.weight.val()), head.bias.as_ref()),
            None => (OutputHead::tied(self.embedding.weight.val()), self.head_bias.as_ref()),
        };
        head.with_bias(bias.map(Param::val)).with_softcap(self.logit_softcap)
    }

    /// Embedded tokens in, scores out.
    pub(super) fn decode(
        &self,
        embedded: Tensor<3>,
        view: &PassView,
        past: &mut [LayerCache],
        request: &Request,
    ) -> LanguageModelOutput {
        let embedded = self.dropout.forward(embedded);
        let decoded = self.decoder.pass(embedded, view, past, request);
        let mut x = decoded.output;
        let [_, queries, _] = x.dims();
        if request.last_logits_only && queries > 1 {
            x = x.narrow(1, queries - 1, 1);
        }
        let logits = self.scores(x);
        // Of the next pass, while a token is chosen.
        if let Some(layer) = self.decoder.layers.first() {
            layer.read_next();
        }
        LanguageModelOutput {
            logits,
            self_weights: decoded.self_weights,
            cross_weights: decoded.cross_weights,
        }
    }

    /// `[batch, queries, d_model]` to `[batch, queries, vocab_size]`
    fn scores(&self, x: Tensor<3>) -> Tensor<3> {
        let logits = match &self.head {
            Some(head) => weights::linear(head, x),
            None => {
                let bias = self.head_bias.as_ref().map(Param::val);
                weights::unembed(&self.embedding, x, bias)
            }
        };
        match self.logit_softcap {
            Some(softcap) => (logits / softcap).tanh() * softcap,
            None => logits,
        }
    }
}
