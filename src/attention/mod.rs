//! Attention: `softmax(Q Kᵀ · scale) V` under a mask.
//!
//! ```text
//! scores  = Q Kᵀ · scale            [batch, heads, queries, keys]
//! scores  = cap · tanh(scores / cap)           with a softcap
//! scores  = scores + bias                      additive bias, ALiBi
//! weights = softmax over the visible keys      hidden keys: exactly 0; with sinks, over one more
//! output  = dropout(weights) V      [batch, heads, queries, value_dim]
//! ```
//!
//! (Vaswani et al. 2017, "Attention is all you need", section 3.2.1.) The softmax is computed in
//! f32 or wider, whatever the tensors hold. A *dead row*, a query that sees no key, has weights,
//! output and gradients of exactly 0. Query head `h` reads key/value head
//! `h / (heads / kv_heads)`: with `kv_heads < heads`, consecutive query heads share one.
//!
//! [`scaled_dot_product_attention`] is the one door to all kernels; [`MultiHeadAttention`] puts
//! projections around it.

mod alibi;
mod backend_op;
mod dropout;
mod fused;
mod multi_head;
mod multi_head_config;
mod qk_norm;
mod reference;
mod request;
mod rotary;
mod rotary_scaling;
mod scaled_dot_product;
mod score;

pub use alibi::Alibi;
pub use multi_head::{MultiHeadAttention, MultiHeadOutput};
pub use multi_head_config::{AttentionSinks, HeadMapping, MultiHeadAttentionConfig};
pub use qk_norm::QkNormConfig;
pub use request::{Kernel, Request, TokenCheck};
pub(crate) use rotary::{Angles, PassAngles};
pub use rotary::{RotaryConfig, RotaryLayout};
pub use rotary_scaling::RotaryScaling;
pub(crate) use scaled_dot_product::attend;
pub use scaled_dot_product::{AttentionOutput, scaled_dot_product_attention};
pub use score::Score;

/// Whether [`Kernel::Fused`] serves tensors of `dtype` on `device`.
pub(crate) fn fused_serves(device: &burn::tensor::Device, dtype: burn::tensor::DType) -> bool {
    fused::supports(device, dtype)
}
