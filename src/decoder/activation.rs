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

use crate::kernels::Function;

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

    /// The function itself, without the gate.
    pub(super) fn function(self) -> Function {
        match self {
            Self::Relu => Function::Relu,
            Self::SquaredRelu => Function::SquaredRelu,
            Self::Gelu | Self::GeGlu => Function::Gelu,
            Self::GeluTanh | Self::GeGluTanh => Function::GeluTanh,
            Self::Silu | Self::SwiGlu => Function::Silu,
        }
    }
}
