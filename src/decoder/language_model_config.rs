//! What a [`LanguageModel`] is built from.

use burn::config::Config;
use burn::nn::{DropoutConfig, EmbeddingConfig, Initializer, LinearConfig};
use burn::tensor::Device;

use super::{DecoderConfig, LanguageModel, PositionEmbeddingConfig, fingerprint};
use crate::error::{check_nonzero, check_probability, fits_f32};
use crate::mask::SequenceMaskConfig;
use crate::norm::NormConfig;
use crate::{Error, Result};

/// Configuration of a [`LanguageModel`].
#[derive(Config, Debug)]
pub struct LanguageModelConfig {
    /// Number of different tokens.
    pub vocab_size: usize,
    /// The layers.
    pub decoder: DecoderConfig,
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
    /// Sets the mask of the decoder: [`DecoderConfig::mask`].
    #[must_use]
    pub fn with_mask(mut self, mask: impl Into<SequenceMaskConfig>) -> Self {
        self.decoder.mask = mask.into();
        self
    }

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
            settings: fingerprint::settings(self),
        })
    }

    fn check_head(&self) -> Result<()> {
        if let Some(softcap) = self.logit_softcap
            && !(fits_f32(softcap) && softcap > 0.0)
        {
            return Err(Error::Config {
                field: "LanguageModelConfig::logit_softcap",
                expected: "a number above 0, in the range of f32".into(),
                got: softcap.to_string(),
            });
        }
        Ok(())
    }
}
