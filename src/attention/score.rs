//! What an attention layer is: how scores are made and weights used.

use burn::tensor::Tensor;

use super::Alibi;
use crate::error::fits_f32;

/// How a layer scores its keys and weighs its values: what it is, whoever asks.
///
/// ```
/// use burn_decoder::attention::{Alibi, Score};
///
/// let score = Score::new().with_alibi(Alibi::new(8)).with_softcap(50.0);
/// assert_eq!(score.softcap, Some(50.0));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Score {
    /// What scores are multiplied by; `1 / sqrt(head_dim)` if not given.
    pub scale: Option<f64>,
    /// Scores become `softcap * tanh(score / softcap)`: bounded, before bias and mask (Gemma 2,
    /// section 2).
    pub softcap: Option<f64>,
    /// Added to the scores before hiding, and trained if it requires gradients. Broadcasts to
    /// `[batch, heads, queries, keys]`.
    pub bias: Option<Tensor<4>>,
    /// A bias that falls with distance, computed from the mask's positions.
    pub alibi: Option<Alibi>,
    /// `[heads]`, a score for each head that joins the softmax's denominator like a visible key
    /// whose value is zero, and is trained if it requires gradients: a query that finds nothing to
    /// attend to may give its weight away. The scale, the softcap and the bias leave it alone. The
    /// weights of a row then sum to less than 1; a dead row stays 0.
    ///
    /// Learned, as in gpt-oss (OpenAI 2025, its model card, section 2.2); after "Efficient streaming
    /// language models with attention sinks" (Xiao et al. 2024, section 3.3). Zeros are the fixed
    /// "softmax plus one" of "Attention is off by one" (Miller 2023); minus infinity is no sink. Not
    /// to be confused with [`Mask::sinks`](crate::mask::Mask::sinks), which keeps real keys visible.
    pub sinks: Option<Tensor<1>>,
    /// Probability, in `[0, 1)`, of dropping a weight. Only on an autodiff device, like Burn's
    /// `Dropout`.
    pub dropout: f64,
    /// Which weights are dropped: the same seed drops the same ones with every kernel and on every
    /// device. Without a seed, the device's own random numbers decide.
    pub dropout_seed: Option<u64>,
}

impl Score {
    /// Scale `1 / sqrt(head_dim)`, no softcap, bias, sinks or dropout.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`scale`](Self::scale).
    #[must_use]
    pub fn with_scale(mut self, scale: impl Into<Option<f64>>) -> Self {
        self.scale = scale.into();
        self
    }

    /// Sets [`softcap`](Self::softcap).
    #[must_use]
    pub fn with_softcap(mut self, softcap: impl Into<Option<f64>>) -> Self {
        self.softcap = softcap.into();
        self
    }

    /// Sets [`bias`](Self::bias).
    #[must_use]
    pub fn with_bias(mut self, bias: impl Into<Option<Tensor<4>>>) -> Self {
        self.bias = bias.into();
        self
    }

    /// Sets [`alibi`](Self::alibi).
    #[must_use]
    pub fn with_alibi(mut self, alibi: impl Into<Option<Alibi>>) -> Self {
        self.alibi = alibi.into();
        self
    }

    /// Sets [`sinks`](Self::sinks).
    #[must_use]
    pub fn with_sinks(mut self, sinks: impl Into<Option<Tensor<1>>>) -> Self {
        self.sinks = sinks.into();
        self
    }

    /// Sets [`dropout`](Self::dropout).
    #[must_use]
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.dropout = dropout;
        self
    }

    /// Sets [`dropout_seed`](Self::dropout_seed).
    #[must_use]
    pub fn with_dropout_seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.dropout_seed = seed.into();
        self
    }

    /// The scale, given or default.
    pub(super) fn scale_for(&self, head_dim: usize) -> f64 {
        self.scale.unwrap_or_else(|| 1.0 / (head_dim as f64).sqrt())
    }

    /// Panics unless everything is in its range and fits `[batch, heads, queries, keys]`.
    pub(super) fn check(&self, sizes: [usize; 4]) {
        if let Some(scale) = self.scale {
            assert!(fits_f32(scale), "scale: expected a number in the range of f32, got {scale}");
        }
        if let Some(softcap) = self.softcap {
            assert!(
                fits_f32(softcap) && softcap > 0.0,
                "softcap: expected a number above 0, in the range of f32, got {softcap}"
            );
        }
        assert!(
            (0.0..1.0).contains(&self.dropout),
            "dropout: expected a probability in [0, 1), got {}",
            self.dropout
        );
        if let Some(bias) = &self.bias {
            let shape = bias.dims();
            assert!(
                shape.iter().zip(sizes).all(|(&axis, size)| axis == 1 || axis == size),
                "bias: expected a shape that broadcasts to {sizes:?}, got {shape:?}"
            );
        }
        if let Some(alibi) = &self.alibi {
            let (slopes, heads) = (alibi.slopes().len(), sizes[1]);
            assert!(slopes == heads, "alibi: expected {heads} slopes, one a head, got {slopes}");
        }
        if let Some(sinks) = &self.sinks {
            let ([got], heads) = (sinks.dims(), sizes[1]);
            assert!(got == heads, "sinks: expected {heads} scores, one a head, got {got}");
        }
    }
}
