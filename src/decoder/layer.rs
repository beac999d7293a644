//! One decoder layer: self-attention, optional cross-attention, feed-forward.
//!
//! Each of the two or three parts `f` stands in a residual, with its own norm (Vaswani et al. 2017,
//! section 3.1, for post-norm; Xiong et al. 2020 for pre-norm):
//!
//! ```text
//! post-norm:  x ← norm(x + dropout(f(x)))
//! pre-norm:   x ← x + dropout(f(norm(x)))
//! ```

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};

use super::{FeedForward, FeedForwardConfig, Norm, NormConfig};
use crate::attention::{AttentionOptions, Kernel, MultiHeadAttention, MultiHeadAttentionConfig};
use crate::cache::LayerCache;
use crate::error::check_probability;
use crate::mask::LoweredMask;
use crate::{Error, Result};

/// Where the norms of a layer stand.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before each part, inside its residual. A stack of such layers ends with a norm of its own.
    Pre,
    /// After each part, on the sum.
    Post,
}

/// Configuration of a [`DecoderLayer`].
///
/// ```
/// use burn_decoder::attention::MultiHeadAttentionConfig;
/// use burn_decoder::decoder::{Activation, DecoderLayerConfig, FeedForwardConfig, NormConfig};
///
/// // Llama's layer, small: d_model 64, 4 heads, d_ff 256.
/// let config = DecoderLayerConfig::new(
///     MultiHeadAttentionConfig::new(64, 4),
///     FeedForwardConfig::new(64, 256).with_activation(Activation::SwiGlu).with_bias(false),
/// )
/// .with_norm(NormConfig::rms_norm());
/// ```
#[derive(Config, Debug)]
pub struct DecoderLayerConfig {
    /// The self-attention. Its `d_model` is the layer's.
    pub self_attention: MultiHeadAttentionConfig,
    /// The feed-forward part.
    pub feed_forward: FeedForwardConfig,
    /// The attention to a memory, if the layer has one.
    pub cross_attention: Option<MultiHeadAttentionConfig>,
    /// The kind of all norms.
    #[config(default = "NormConfig::layer_norm()")]
    pub norm: NormConfig,
    /// The place of all norms.
    #[config(default = "NormPlacement::Pre")]
    pub norm_placement: NormPlacement,
    /// Probability with which each value that a part adds to its residual is dropped in training.
    #[config(default = 0.0)]
    pub dropout: f64,
}

impl DecoderLayerConfig {
    /// Width of the layer's input and output.
    pub fn d_model(&self) -> usize {
        self.self_attention.d_model
    }

    /// Builds the layer with random parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a part refuses its configuration, if the parts differ in `d_model`, or
    /// for a dropout outside `[0, 1)`.
    pub fn init(&self, device: &Device) -> Result<DecoderLayer> {
        check_probability("DecoderLayerConfig::dropout", self.dropout)?;
        self.check_d_model("FeedForwardConfig::d_model", self.feed_forward.d_model)?;
        if let Some(cross_attention) = &self.cross_attention {
            self.check_d_model("cross_attention's d_model", cross_attention.d_model)?;
        }
        let norm = || self.norm.init(self.d_model(), device);
        let cross_attention = self.cross_attention.as_ref();
        Ok(DecoderLayer {
            self_attention: self.self_attention.init(device)?,
            self_attention_norm: norm()?,
            cross_attention: cross_attention.map(|config| config.init(device)).transpose()?,
            cross_attention_norm: cross_attention.map(|_| norm()).transpose()?,
            feed_forward: self.feed_forward.init(device)?,
            feed_forward_norm: norm()?,
            dropout: DropoutConfig::new(self.dropout).init(),
            norm_placement: self.norm_placement,
        })
    }

    fn check_d_model(&self, field: &'static str, got: usize) -> Result<()> {
        if got != self.d_model() {
            return Err(Error::Config {
                field,
                expected: format!("{}, the d_model of the self-attention", self.d_model()),
                got: got.to_string(),
            });
        }
        Ok(())
    }
}

/// What a decoder looks at apart from its own sequence: the output of an encoder, for example.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// `[batch, keys, memory_dim]`, where `memory_dim` is `d_model` unless configured.
    pub states: &'a Tensor<3>,
    /// Which of its positions each query may see.
    pub mask: &'a LoweredMask,
}

/// Input of a [`DecoderLayer`] and of a [`Decoder`](super::Decoder).
#[derive(Clone, Debug)]
pub struct DecoderInput<'a> {
    /// `[batch, queries, d_model]`
    pub x: Tensor<3>,
    /// Which keys of the own sequence each query may see. Lowered once, for all layers.
    pub mask: &'a LoweredMask,
    /// Needed if the layers have cross-attention.
    pub memory: Option<Memory<'a>>,
    /// Whether to return the attention weights.
    pub weights: bool,
    /// Which kernel computes the attention.
    pub kernel: Kernel,
}

impl<'a> DecoderInput<'a> {
    /// Without memory, without weights, with the kernel chosen by device.
    pub fn new(x: Tensor<3>, mask: &'a LoweredMask) -> Self {
        Self { x, mask, memory: None, weights: false, kernel: Kernel::Auto }
    }

    /// With something for the cross-attention to look at: states `[batch, keys, memory_dim]`.
    pub fn with_memory(mut self, states: &'a Tensor<3>, mask: &'a LoweredMask) -> Self {
        self.memory = Some(Memory { states, mask });
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

/// One layer of a decoder. Built by [`DecoderLayerConfig`].
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
    /// The sequence looks at the memory.
    pub cross_attention: Option<MultiHeadAttention>,
    /// Norm of the cross-attention; there if that is.
    pub cross_attention_norm: Option<Norm>,
    /// Each position by itself.
    pub feed_forward: FeedForward,
    /// Norm of the feed-forward part.
    pub feed_forward_norm: Norm,
    dropout: Dropout,
    #[module(skip)]
    norm_placement: NormPlacement,
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
    pub fn forward(&self, input: DecoderInput) -> DecoderLayerOutput {
        self.forward_cached(input, None)
    }

    /// The same, where the keys and values of earlier tokens may come from a cache.
    pub(crate) fn forward_cached(
        &self,
        input: DecoderInput,
        mut cache: Option<&mut LayerCache>,
    ) -> DecoderLayerOutput {
        let DecoderInput { x, mask, memory, weights, kernel } = input;
        let options = AttentionOptions::new().with_weights(weights).with_kernel(kernel);
        let (mut self_weights, mut cross_weights) = (None, None);

        let mut x = self.residual(x, &self.self_attention_norm, |x| {
            let attention = &self.self_attention;
            let query = attention.project_query(x.clone());
            let (mut key, mut value) = attention.project_key_value(x.clone(), x);
            if let Some(cache) = cache.as_deref_mut() {
                (key, value) = cache.append(key, value);
            }
            let attended = attention.attend(query, key, value, mask, &options);
            self_weights = attended.weights;
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
            x = self.residual(x, norm, |x| {
                let Memory { states, mask } = memory;
                let project = || attention.project_key_value(states.clone(), states.clone());
                let (key, value) = match cache {
                    Some(cache) => cache.memory(project),
                    None => project(),
                };
                let query = attention.project_query(x);
                let attended = attention.attend(query, key, value, mask, &options);
                cross_weights = attended.weights;
                attended.output
            });
        }

        let output = self.residual(x, &self.feed_forward_norm, |x| self.feed_forward.forward(x));
        DecoderLayerOutput { output, self_weights, cross_weights }
    }

    /// One part with its residual, dropout and norm.
    fn residual(
        &self,
        x: Tensor<3>,
        norm: &Norm,
        part: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        match self.norm_placement {
            NormPlacement::Pre => x.clone() + self.dropout.forward(part(norm.forward(x))),
            NormPlacement::Post => norm.forward(x.clone() + self.dropout.forward(part(x))),
        }
    }
}
