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

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{
    Dropout, DropoutConfig, Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig,
};
use burn::tensor::{Device, Int, Tensor, assert_shape};

use super::{
    Decoder, DecoderConfig, DecoderInput, Norm, NormConfig, PositionEmbedding,
    PositionEmbeddingConfig, PositionIds, Positions,
};
use crate::attention::Kernel;
use crate::cache::LayerPass;
use crate::error::{check_nonzero, check_probability};
use crate::mask::{Grid, LoweredMask, Mask};
use crate::{Error, Result, ops};

/// Configuration of a [`LanguageModel`].
#[derive(Config, Debug)]
pub struct LanguageModelConfig {
    /// Number of different tokens.
    pub vocab_size: usize,
    /// The layers.
    pub decoder: DecoderConfig,
    /// Which tokens of the own sequence each token may see, whatever the batch.
    #[config(default = "Mask::look_ahead()")]
    pub mask: Mask,
    /// The position embedding that is added to the tokens, if any.
    #[config(default = "Some(PositionEmbeddingConfig::sinusoidal())")]
    pub positions: Option<PositionEmbeddingConfig>,
    /// Whether token embeddings are multiplied by √d_model.
    #[config(default = true)]
    pub scale_embedding: bool,
    /// Standard deviation of the token embeddings at the start; 1/√d_model if not given.
    pub embedding_std: Option<f64>,
    /// A norm on the embedded tokens, before the first layer (BART).
    pub embedding_norm: Option<NormConfig>,
    /// Whether the head shares the token embedding's parameters.
    #[config(default = false)]
    pub tied_head: bool,
    /// Whether the head has a bias.
    #[config(default = false)]
    pub head_bias: bool,
    /// Logits become `logit_softcap * tanh(logit / logit_softcap)`: bounded (Gemma 2, section 2).
    pub logit_softcap: Option<f64>,
    /// Probability with which each value of the embedded tokens is dropped in training.
    #[config(default = 0.0)]
    pub dropout: f64,
}

impl LanguageModelConfig {
    /// Builds the model with random parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for an empty vocabulary, a dropout outside `[0, 1)`, a softcap that is not
    /// above 0, or if a part refuses its configuration.
    pub fn init(&self, device: &Device) -> Result<LanguageModel> {
        check_nonzero("LanguageModelConfig::vocab_size", self.vocab_size)?;
        check_probability("LanguageModelConfig::dropout", self.dropout)?;
        self.check_head()?;
        let decoder = self.decoder.init(device)?;
        let d_model = self.decoder.layer.d_model();
        let sqrt_d_model = (d_model as f64).sqrt();
        let std = self.embedding_std.unwrap_or(1.0 / sqrt_d_model);
        Ok(LanguageModel {
            embedding: EmbeddingConfig::new(self.vocab_size, d_model)
                .with_initializer(Initializer::Normal { mean: 0.0, std })
                .init(device),
            positions: self.positions.map(|config| config.init(d_model, device)).transpose()?,
            embedding_norm: self
                .embedding_norm
                .map(|config| config.init(d_model, device))
                .transpose()?,
            dropout: DropoutConfig::new(self.dropout).init(),
            decoder,
            head: (!self.tied_head).then(|| {
                LinearConfig::new(d_model, self.vocab_size).with_bias(self.head_bias).init(device)
            }),
            head_bias: (self.tied_head && self.head_bias)
                .then(|| Initializer::Zeros.init([self.vocab_size], device)),
            embedding_scale: if self.scale_embedding { sqrt_d_model } else { 1.0 },
            logit_softcap: self.logit_softcap,
            mask: self.mask.clone(),
        })
    }

    fn check_head(&self) -> Result<()> {
        if let Some(softcap) = self.logit_softcap
            && !(softcap.is_finite() && softcap > 0.0)
        {
            return Err(Error::Config {
                field: "LanguageModelConfig::logit_softcap",
                expected: "a number above 0".into(),
                got: softcap.to_string(),
            });
        }
        Ok(())
    }
}

/// What a [`LanguageModel`] is told apart from the tokens.
#[derive(Clone, Debug, Default)]
pub struct LanguageModelInput {
    /// Hides more than the model's own mask does: padding, other documents.
    pub mask: Option<Mask>,
    /// How the tokens are numbered.
    pub positions: Positions,
    /// What the cross-attention looks at, `[batch, keys, memory_dim]`, and which of it is visible.
    pub memory: Option<(Tensor<3>, Mask)>,
    /// Whether to return the attention weights.
    pub weights: bool,
    /// Which kernel computes the attention.
    pub kernel: Kernel,
    /// Takes the tokens as they are. See [`LanguageModelInput::with_unchecked_tokens`].
    pub unchecked_tokens: bool,
    /// Scores what comes after the last token of each row only.
    pub last_logits_only: bool,
}

impl LanguageModelInput {
    /// Rows without padding, no memory, no weights, the kernel chosen by device.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows padded on the right: row `b` has `lengths[b]` tokens.
    pub fn with_lengths(self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.with_mask(Mask::lengths(lengths))
    }

    /// Rows padded on the left: row `b` begins with `counts[b]` padded places, and position 0 is
    /// the first token behind them. Sinks, prefixes and chunks of the masks count from there, too.
    pub fn with_pad_counts(mut self, counts: impl IntoIterator<Item = usize>) -> Self {
        let counts: Vec<usize> = counts.into_iter().collect();
        self.positions = Positions::LeftPadded(counts.clone());
        self.with_mask(Mask::pad_counts(counts))
    }

    /// Hides what `mask` hides, too. Several of them all apply.
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = Some(match self.mask {
            Some(before) => before & mask,
            None => mask,
        });
        self
    }

    /// Numbers the tokens by another rule than their index.
    pub fn with_positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Gives the cross-attention something to look at: `states [batch, keys, memory_dim]`, where
    /// `memory_dim` is `d_model` unless configured, of which
    /// each token sees what `mask` leaves visible. The first token stands on the first state.
    pub fn with_memory(mut self, states: Tensor<3>, mask: Mask) -> Self {
        self.memory = Some((states, mask));
        self
    }

    /// Asks for the attention weights of every layer and head.
    pub fn with_weights(mut self, weights: bool) -> Self {
        self.weights = weights;
        self
    }

    /// Names the attention kernel, to compare one with another.
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// Does not look whether every token is in the vocabulary.
    ///
    /// The look is cheap on a CPU. On a GPU it waits until the device has done all its work, which
    /// a training loop with tokens of its own making can spare itself.
    pub fn with_unchecked_tokens(mut self) -> Self {
        self.unchecked_tokens = true;
        self
    }

    /// Scores what comes after the last token of each row, and nothing else: `logits` are
    /// `[batch, 1, vocab_size]`. To generate behind a long prompt, no more is needed.
    pub fn with_last_logits_only(mut self) -> Self {
        self.last_logits_only = true;
        self
    }
}

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

/// Tokens in, scores of the next tokens out. Built by [`LanguageModelConfig`].
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// One vector for each token.
    pub embedding: Embedding,
    /// Added to the token embeddings, if there is one.
    pub positions: Option<PositionEmbedding>,
    /// Normalizes the sum of the two, if there.
    pub embedding_norm: Option<Norm>,
    dropout: Dropout,
    /// The layers.
    pub decoder: Decoder,
    /// From `d_model` to `vocab_size`; not there if tied to the embedding.
    pub head: Option<Linear>,
    /// `[vocab_size]`: the bias of a tied head, if it has one. That of another is in its [`Linear`].
    pub head_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    embedding_scale: f64,
    #[module(skip)]
    logit_softcap: Option<f64>,
    #[module(skip)]
    pub(super) mask: Mask,
}

/// What the tokens of a pass may see, and where they stand.
pub(super) struct View {
    pub mask: LoweredMask,
    pub positions: PositionIds,
    pub memory: Option<(Tensor<3>, LoweredMask)>,
}

impl LanguageModelInput {
    /// What the rows see of themselves: what neither the model's own mask hides nor the input's.
    /// Both count positions from the first token behind the padding.
    pub(super) fn rule(&self, own: &Mask) -> Result<Mask> {
        let rule = self.behind_pads(own)?;
        Ok(match (&self.mask, self.positions.pads()) {
            (Some(more), Some(pads)) => rule & more.behind_pads(pads),
            (Some(more), None) => rule & more.clone(),
            (None, _) => rule,
        })
    }

    /// The model's own mask, for these rows.
    pub(super) fn behind_pads(&self, own: &Mask) -> Result<Mask> {
        let Some(pads) = self.positions.pads() else { return Ok(own.clone()) };
        own.check_by_position()?;
        Ok(own.behind_pads(pads))
    }

    /// The memory, and what `queries` tokens behind `start` others see of it.
    pub(super) fn memory_of(
        &self,
        [batch, queries]: [usize; 2],
        start: usize,
    ) -> Result<Option<(Tensor<3>, LoweredMask)>> {
        let Some((states, mask)) = &self.memory else { return Ok(None) };
        let [_, keys, _] = states.dims();
        let grid = Grid::with_offset(batch, queries, keys, start as i64);
        let mask = match self.positions.pads() {
            Some(pads) => mask.with_queries_behind_pads(pads).lower(&grid)?,
            None => mask.lower(&grid)?,
        };
        Ok(Some((states.clone(), mask)))
    }
}

impl LanguageModel {
    /// Number of different tokens.
    pub fn vocab_size(&self) -> usize {
        self.embedding.weight.shape()[0]
    }

    /// Width of the decoder.
    pub fn d_model(&self) -> usize {
        self.embedding.weight.shape()[1]
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
    /// [`Error::Token`] for a token outside the vocabulary, and those of
    /// [`LanguageModel::forward_embedded`] and [`LanguageModel::embed`].
    pub fn forward(
        &self,
        tokens: Tensor<2, Int>,
        input: LanguageModelInput,
    ) -> Result<LanguageModelOutput> {
        if !input.unchecked_tokens {
            self.check_tokens(&tokens)?;
        }
        let embedded = self.embed(tokens, &input.positions)?;
        self.forward_embedded(embedded, input)
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
    /// [`Error::Positions`] if the positions don't fit the tokens, or lie beyond the capacity of
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
        let mut embedded = self.embedding.forward(tokens); // [batch, queries, d_model]
        if self.embedding_scale != 1.0 {
            embedded = embedded * self.embedding_scale;
        }
        if let Some(embedding) = &self.positions {
            let ids = positions.ids(batch, start, queries)?;
            embedded = embedded.clone() + embedding.forward(&ids, &embedded.device())?;
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
    /// [`Error::Mask`] if a mask does not fit the batch, [`Error::Positions`] if the positions don't
    /// fit the tokens, [`Error::Input`] if there is cross-attention and no memory or the other way
    /// round.
    ///
    /// # Panics
    ///
    /// If `embedded` or the memory has another shape.
    pub fn forward_embedded(
        &self,
        embedded: Tensor<3>,
        input: LanguageModelInput,
    ) -> Result<LanguageModelOutput> {
        let d_model = self.d_model();
        assert_shape!(embedded, [_, _, d_model]);
        let [batch, queries, _] = embedded.dims();
        self.check_memory(input.memory.is_some())?;
        let view = View {
            mask: input.rule(&self.mask)?.lower(&Grid::square(batch, queries))?,
            positions: input.positions.ids(batch, 0, queries)?,
            memory: input.memory_of([batch, queries], 0)?,
        };
        Ok(self.decode(embedded, &view, &input, None))
    }

    /// Embedded tokens in, scores out.
    pub(super) fn decode(
        &self,
        embedded: Tensor<3>,
        view: &View,
        input: &LanguageModelInput,
        cache: Option<Vec<LayerPass>>,
    ) -> LanguageModelOutput {
        let mut decoder_input = DecoderInput::new(self.dropout.forward(embedded), &view.mask)
            .with_positions(&view.positions)
            .with_weights(input.weights)
            .with_kernel(input.kernel);
        if let Some((states, mask)) = &view.memory {
            decoder_input = decoder_input.with_memory(states, mask);
        }
        let decoded = self.decoder.forward_cached(decoder_input, cache);
        let mut x = decoded.output;
        if input.last_logits_only {
            let [_, queries, _] = x.dims();
            x = x.narrow(1, queries.saturating_sub(1), queries.min(1));
        }
        LanguageModelOutput {
            logits: self.scores(x),
            self_weights: decoded.self_weights,
            cross_weights: decoded.cross_weights,
        }
    }

    /// `[batch, queries, d_model]` to `[batch, queries, vocab_size]`
    fn scores(&self, x: Tensor<3>) -> Tensor<3> {
        let logits = match &self.head {
            Some(head) => ops::linear(head, x),
            None => {
                let bias = self.head_bias.as_ref().map(Param::val);
                ops::project(x, self.embedding.weight.val().transpose(), bias)
            }
        };
        match self.logit_softcap {
            Some(softcap) => (logits / softcap).tanh() * softcap,
            None => logits,
        }
    }

    /// An error for the first token that is not in the vocabulary.
    pub(super) fn check_tokens(&self, tokens: &Tensor<2, Int>) -> Result<()> {
        let vocab_size = self.vocab_size();
        let [_, queries] = tokens.dims();
        let inside = 0..vocab_size as i64;
        let data = tokens.to_data();
        match data.iter::<i64>().enumerate().find(|(_, token)| !inside.contains(token)) {
            None => Ok(()),
            Some((at, token)) => {
                Err(Error::Token { token, row: at / queries, index: at % queries, vocab_size })
            }
        }
    }

    pub(super) fn check_memory(&self, given: bool) -> Result<()> {
        let needed = self.decoder.layers.iter().any(|layer| layer.cross_attention.is_some());
        let refuse = |expected: &str, got: &str| {
            Err(Error::Input { input: "memory", expected: expected.into(), got: got.into() })
        };
        match (needed, given) {
            (true, false) => refuse("states for the cross-attention to look at", "none"),
            (false, true) => refuse("none, since no layer has cross-attention", "states"),
            _ => Ok(()),
        }
    }
}
