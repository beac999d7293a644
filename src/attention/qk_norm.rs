//! Norms of queries and keys before their product, so that scores can't grow without bound (Henry et
//! al. 2020; Dehghani et al. 2023, section 2).

use burn::config::Config;
use burn::tensor::{Device, Tensor};

use crate::Result;
use crate::norm::{Norm, NormConfig};

/// Norms on queries and keys, each with its own scale; before rotary positions.
#[derive(Config, Debug, Copy, PartialEq)]
pub struct QkNormConfig {
    /// The kind of both norms.
    pub norm: NormConfig,
    /// Over what: `false` is each head's channels by themselves, with one scale for all heads
    /// (Qwen 3, Gemma 3); `true` is all heads together (OLMo 2).
    #[config(default = false)]
    pub across_heads: bool,
}

impl QkNormConfig {
    /// The norm for `heads` of `head_dim` channels.
    pub(super) fn init(&self, heads: usize, head_dim: usize, device: &Device) -> Result<Norm> {
        let width = if self.across_heads { heads * head_dim } else { head_dim };
        self.norm.init(width, device)
    }
}

/// Normalizes `x`, `[batch, tokens, heads * head_dim]`, over each stretch that the norm is as wide as.
pub(super) fn normalize(norm: &Norm, x: Tensor<3>) -> Tensor<3> {
    let [batch, tokens, all] = x.dims();
    let width = norm.width();
    if width == all {
        return norm.forward(x);
    }
    let x = x.reshape([batch, tokens, all / width, width]); // [batch, tokens, heads, head_dim]
    norm.forward(x).reshape([batch, tokens, all]) // [batch, tokens, heads * head_dim]
}
