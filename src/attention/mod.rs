//! Attention: `softmax(QKᵀ · scale) V` under a mask.

#[allow(dead_code)]
mod dropout_rng;
mod fused;
