//! The non-linear function of the feed-forward part, plain or gated.
//!
//! | name | computes | source |
//! |---|---|---|
//! | ReLU | `max(0, x)` | Vaswani et al. 2017, section 3.3 |
//! | squared ReLU | `max(0, x)²` | So et al. 2021 (Primer), section 3 |
//! | GELU | `x Φ(x)`, exact | Hendrycks and Gimpel 2016 |
//! | GELU, tanh form | its approximation (GPT-2's `gelu_new`) | Hendrycks and Gimpel 2016, section 2 |
//! | SiLU | `x σ(x)` | Elfwing et al. 2017 |
//!
//! The gated kinds multiply the result, element by element, by a second projection of the same
//! input (Shazeer 2020, "GLU Variants Improve Transformer").

use burn::config::Config;
use burn::tensor::{Tensor, activation};

/// The non-linear function of a [`FeedForward`](super::FeedForward), with its gate if it has one.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)`
    Relu,
    /// `max(0, x)²`
    SquaredRelu,
    /// `x Φ(x)`, by the error function: PyTorch's `gelu`.
    Gelu,
    /// The tanh form of GELU: `gelu_new`, `gelu_pytorch_tanh`.
    GeluTanh,
    /// `x σ(x)`, also called swish.
    Silu,
    /// Gated SiLU: Llama, Mistral, Qwen.
    SwiGlu,
    /// Gated exact GELU.
    GeGlu,
    /// Gated GELU in the tanh form: Gemma.
    GeGluTanh,
}

impl Activation {
    /// Whether the feed-forward part needs a gate projection.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::SwiGlu | Self::GeGlu | Self::GeGluTanh)
    }

    /// The function itself, element by element; a gate is the caller's to multiply.
    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::SquaredRelu => activation::relu(x).square(),
            Self::Gelu | Self::GeGlu => gelu(x),
            Self::GeluTanh | Self::GeGluTanh => gelu_tanh(x),
            Self::Silu | Self::SwiGlu => activation::silu(x),
        }
    }
}

/// `x/2 (1 + erf(x/√2))`. Burn's own has the gradient of the tanh form (0.22.1), which is off by up
/// to 6e-3 in the gradients of PyTorch's decoder layers.
fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let phi = ((x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
    x * phi
}

/// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`. Burn's own cubes by the general power; products do.
fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let sqrt_2_over_pi = (2.0 / std::f64::consts::PI).sqrt();
    let inner = (x.clone() * x.clone() * 0.044715 + 1.0) * x.clone() * sqrt_2_over_pi;
    (inner.tanh() + 1.0) * x * 0.5
}
