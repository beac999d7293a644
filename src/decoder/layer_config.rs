//! What a [`DecoderLayer`] is built from.

use burn::config::Config;
use burn::nn::DropoutConfig;
use burn::tensor::Device;

use super::{DecoderLayer, FeedForwardConfig};
use crate::attention::MultiHeadAttentionConfig;
use crate::error::check_probability;
use crate::norm::NormConfig;
use crate::{Error, Result};

/// Where the norms of a layer stand.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before each part, inside its residual. A stack of such layers ends with a norm of its own.
    Pre,
    /// After each part, on the sum.
    Post,
    /// After each part, inside its residual.
    Output,
    /// Before and after each part, inside its residual.
    Sandwich,
}

impl NormPlacement {
    /// Whether a stack ends with a norm of its own: its last sum is not normalized otherwise.
    pub(super) fn has_final_norm(self) -> bool {
        self != Self::Post
    }
}

/// Whether the feed-forward part reads what attention added to the residual.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum ResidualLayout {
    /// It does: one part after the other.
    Sequential,
    /// It does not: both read the layer's input, each through a norm of its own (GPT-NeoX).
    Parallel,
    /// It does not: both read the layer's input through one norm (GPT-J, Phi).
    ParallelSharedNorm,
}

/// Configuration of a [`DecoderLayer`].
///
/// ```
/// use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig};
/// use burn_decoder::decoder::{Activation, DecoderLayerConfig, FeedForwardConfig, NormConfig};
///
/// // Llama's layer, small: d_model 64, 4 heads on 2 key/value heads, d_ff 256.
/// let config = DecoderLayerConfig::new(
///     MultiHeadAttentionConfig::new(64, 4)
///         .with_kv_heads(Some(2))
///         .with_rotary(Some(RotaryConfig::new()))
///         .with_biases(false),
///     FeedForwardConfig::new(64, 256).with_activation(Activation::SwiGlu).with_biases(false),
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
    /// Whether the feed-forward part reads what attention added. Parallel not with post-norm and not
    /// with cross-attention; with a shared norm only as pre-norm.
    #[config(default = "ResidualLayout::Sequential")]
    pub residual_layout: ResidualLayout,
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
    /// [`Error::Config`] if a part refuses its configuration, if the parts differ in `d_model`, for
    /// a dropout outside `[0, 1)`, if a parallel layer has post-norm or cross-attention or shares
    /// norms that are not pre-norm's, or for rotary positions or ALiBi in the cross-attention.
    pub fn init(&self, device: &Device) -> Result<DecoderLayer> {
        check_probability("DecoderLayerConfig::dropout", self.dropout)?;
        self.check_d_model("FeedForwardConfig::d_model", self.feed_forward.d_model)?;
        if let Some(cross_attention) = &self.cross_attention {
            self.check_d_model("cross_attention's d_model", cross_attention.d_model)?;
            check_memory_positions(cross_attention)?;
        }
        self.check_residual_layout()?;
        let norm = || self.norm.init(self.d_model(), device);
        let second = |wanted: bool| {
            let wanted = wanted && self.norm_placement == NormPlacement::Sandwich;
            wanted.then(norm).transpose()
        };
        let cross_attention = self.cross_attention.as_ref();
        Ok(DecoderLayer {
            self_attention: self.self_attention.init(device)?,
            self_attention_norm: norm()?,
            self_attention_output_norm: second(true)?,
            cross_attention: cross_attention.map(|config| config.init(device)).transpose()?,
            cross_attention_norm: cross_attention.map(|_| norm()).transpose()?,
            cross_attention_output_norm: second(cross_attention.is_some())?,
            feed_forward: self.feed_forward.init(device)?,
            feed_forward_norm: (self.residual_layout != ResidualLayout::ParallelSharedNorm)
                .then(norm)
                .transpose()?,
            feed_forward_output_norm: second(true)?,
            dropout: DropoutConfig::new(self.dropout).init(),
            norm_placement: self.norm_placement,
            residual_layout: self.residual_layout,
        })
    }

    fn check_residual_layout(&self) -> Result<()> {
        use ResidualLayout::*;
        let got = match (self.residual_layout, self.norm_placement, &self.cross_attention) {
            (Sequential, _, _) => return Ok(()),
            (_, _, Some(_)) => "cross-attention",
            (_, NormPlacement::Post, _) => "NormPlacement::Post",
            (ParallelSharedNorm, NormPlacement::Output, _) => "NormPlacement::Output",
            (ParallelSharedNorm, NormPlacement::Sandwich, _) => "NormPlacement::Sandwich",
            _ => return Ok(()),
        };
        let expected = match self.residual_layout {
            ParallelSharedNorm => "NormPlacement::Pre and no cross-attention",
            _ => "norms inside the residuals and no cross-attention",
        };
        Err(Error::Config {
            field: "DecoderLayerConfig::residual_layout",
            expected: format!("{expected} with {:?}", self.residual_layout),
            got: got.into(),
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

/// A memory's positions are those of another sequence.
fn check_memory_positions(attention: &MultiHeadAttentionConfig) -> Result<()> {
    let got = match (&attention.rotary, attention.alibi) {
        (Some(_), _) => "rotary positions",
        (None, true) => "ALiBi",
        (None, false) => return Ok(()),
    };
    Err(Error::Config {
        field: "DecoderLayerConfig::cross_attention",
        expected: "no positions: those of the memory are of another sequence".into(),
        got: got.into(),
    })
}
