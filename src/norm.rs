//! Normalization of each position's vector, chosen by configuration.
//!
//! - LayerNorm: `(x - mean) / √(variance + ε) · γ + β` (Ba et al. 2016)
//! - RMSNorm: `x / √(mean(x²) + ε) · γ` (Zhang and Sennrich 2019), or `· (1 + γ)`, which starts from
//!   a γ of 0 (Gemma)

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{DType, Device, Tensor, assert_shape};

use crate::error::{check_nonzero, fits_f32};
use crate::{Error, Result, kernels};

/// Which normalization, with its settings.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum NormConfig {
    /// Mean to 0 and variance to 1, then a learned scale and, if `bias`, a learned shift.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
        /// Whether there is a learned shift.
        bias: bool,
    },
    /// Mean square to 1, then a learned scale.
    RmsNorm {
        /// Added to the mean square.
        epsilon: f64,
        /// Whether the scale is `1 + γ` instead of `γ`.
        unit_offset: bool,
    },
}

impl NormConfig {
    /// LayerNorm as PyTorch has it: ε = 1e-5, with a shift.
    pub fn layer_norm() -> Self {
        Self::LayerNorm { epsilon: 1e-5, bias: true }
    }

    /// RMSNorm as Llama has it: ε = 1e-6.
    pub fn rms_norm() -> Self {
        Self::RmsNorm { epsilon: 1e-6, unit_offset: false }
    }

    /// The same with another ε.
    #[must_use]
    pub fn with_epsilon(self, epsilon: f64) -> Self {
        match self {
            Self::LayerNorm { bias, .. } => Self::LayerNorm { epsilon, bias },
            Self::RmsNorm { unit_offset, .. } => Self::RmsNorm { epsilon, unit_offset },
        }
    }

    /// Builds the norm with scale 1 and shift 0.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if `d_model` is 0 or ε is not a positive number.
    pub fn init(&self, d_model: usize, device: &Device) -> Result<Norm> {
        check_nonzero("d_model of a norm", d_model)?;
        let (Self::LayerNorm { epsilon, .. } | Self::RmsNorm { epsilon, .. }) = *self;
        if !(fits_f32(epsilon) && epsilon > 0.0) {
            return Err(Error::Config {
                field: "NormConfig::epsilon",
                expected: "a positive number in the range of f32, 1e-5 for example".into(),
                got: epsilon.to_string(),
            });
        }
        Ok(match *self {
            Self::LayerNorm { epsilon, bias } => Norm::LayerNorm(LayerNorm {
                gamma: Initializer::Ones.init([d_model], device),
                beta: bias.then(|| Initializer::Zeros.init([d_model], device)),
                epsilon,
            }),
            Self::RmsNorm { epsilon, unit_offset } => {
                let start = if unit_offset { Initializer::Zeros } else { Initializer::Ones };
                let gamma = start.init([d_model], device);
                Norm::RmsNorm(RmsNorm { gamma, epsilon, unit_offset })
            }
        })
    }
}

/// A normalization of the last axis.
#[derive(Module, Debug)]
pub enum Norm {
    /// See [`NormConfig::LayerNorm`].
    LayerNorm(LayerNorm),
    /// See [`NormConfig::RmsNorm`].
    RmsNorm(RmsNorm),
}

/// Layer norm. Its name and parameters are those of Burn's module, so that importers know it;
/// Burn's keeps ε to itself.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// The learned scale, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// The learned shift, `[d_model]`, if there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// RMS norm, by the name and parameter of Burn's module, as with [`LayerNorm`].
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// The learned scale, or what it is more than 1, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// Added to the mean square.
    pub epsilon: f64,
    /// Whether the scale is `1 + gamma`.
    pub unit_offset: bool,
}

impl Norm {
    /// The length of the axis that it normalizes.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::LayerNorm(norm) => norm.gamma.shape()[0],
            Self::RmsNorm(norm) => norm.gamma.shape()[0],
        }
    }

    /// Normalizes the last axis, in f32 at least.
    ///
    /// # Shapes
    ///
    /// - x: `[..., d_model]`
    /// - output: `[..., d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (gamma, beta) = match self {
            Self::LayerNorm(norm) => (norm.gamma.val(), norm.beta.as_ref().map(Param::val)),
            Self::RmsNorm(norm) => (norm.gamma.val(), None),
        };
        let [d_model] = gamma.dims();
        assert_shape!(x, [.., d_model]);
        let dtype = x.dtype();
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let (x, gamma, beta) = (x.cast(wide), gamma.cast(wide), beta.map(|beta| beta.cast(wide)));
        let normed = match self {
            Self::LayerNorm(norm) => kernels::layer_norm(x, gamma, beta, norm.epsilon),
            Self::RmsNorm(norm) => {
                let scale = if norm.unit_offset { gamma + 1.0 } else { gamma };
                kernels::rms_norm(x, scale, norm.epsilon)
            }
        };
        normed.cast(dtype)
    }
}
