//! The feed-forward part of a decoder layer, the same for every position.
//!
//! ```text
//! plain:  down(dropout(f(up(x))))
//! gated:  down(dropout(f(gate(x)) * up(x)))
//! ```
//!
//! `up` and `gate` widen `d_model` to `d_ff`, `down` goes back (Vaswani et al. 2017, section 3.3;
//! Shazeer 2020 for the gate). The gate is an ordinary [`Linear`], so it is saved and loaded like
//! every other parameter.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use super::Activation;
use crate::Result;
use crate::error::{check_nonzero, check_probability};
use crate::kernels::{activate, activate_gated};
use crate::weights::{feed_forward_together, linear, read_next};

/// Configuration of a [`FeedForward`].
#[derive(Config, Debug)]
pub struct FeedForwardConfig {
    /// Width of input and output.
    pub d_model: usize,
    /// Width between the two.
    pub d_ff: usize,
    /// The non-linear function; the gated kinds bring a third projection.
    #[config(default = "Activation::Gelu")]
    pub activation: Activation,
    /// Whether the projection that widens has a bias.
    #[config(default = true)]
    pub up_bias: bool,
    /// Whether the gate's projection has a bias, where there is one.
    #[config(default = true)]
    pub gate_bias: bool,
    /// Whether the projection back has a bias.
    #[config(default = true)]
    pub down_bias: bool,
    /// Probability with which each of the `d_ff` inner values is dropped in training.
    #[config(default = 0.0)]
    pub dropout: f64,
}

impl FeedForwardConfig {
    /// Sets all three biases.
    #[must_use]
    pub fn with_biases(self, biases: bool) -> Self {
        self.with_up_bias(biases).with_gate_bias(biases).with_down_bias(biases)
    }

    /// Builds the part with random parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a zero width or a dropout outside `[0, 1)`.
    pub fn init(&self, device: &Device) -> Result<FeedForward> {
        check_nonzero("FeedForwardConfig::d_model", self.d_model)?;
        check_nonzero("FeedForwardConfig::d_ff", self.d_ff)?;
        check_probability("FeedForwardConfig::dropout", self.dropout)?;
        let projection = |from, to, bias| LinearConfig::new(from, to).with_bias(bias).init(device);
        let gate = || projection(self.d_model, self.d_ff, self.gate_bias);
        Ok(FeedForward {
            up: projection(self.d_model, self.d_ff, self.up_bias),
            gate: self.activation.is_gated().then(gate),
            down: projection(self.d_ff, self.d_model, self.down_bias),
            dropout: DropoutConfig::new(self.dropout).init(),
            activation: self.activation,
        })
    }
}

/// Two projections with a non-linear function between them, and a gate for the gated kinds.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `d_model` to `d_ff`
    pub up: Linear,
    /// `d_model` to `d_ff`; there if the activation is gated.
    pub gate: Option<Linear>,
    /// `d_ff` to `d_model`
    pub down: Linear,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// Applies the part to every position.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, queries, d_model]`
    /// - output: `[batch, queries, d_model]`
    ///
    /// # Panics
    ///
    /// If the last axis of `x` is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let function = self.activation.function();
        if let Some(output) =
            feed_forward_together(&self.up, self.gate.as_ref(), &self.down, function, &x)
        {
            return output; // without dropout: not in training
        }
        let inner = match &self.gate {
            Some(gate) => activate_gated(function, linear(gate, x.clone()), linear(&self.up, x)),
            None => activate(function, linear(&self.up, x)),
        }; // [batch, queries, d_ff]
        linear(&self.down, self.dropout.forward(inner))
    }

    /// Says that the part will be applied next.
    pub(super) fn read_next(&self) {
        read_next(self.gate.iter().chain([&self.up]));
    }
}
