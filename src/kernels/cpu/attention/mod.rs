//! Attention on slices, forward and backward, for the CPU.
//!
//! ```text
//! S = softcap(scale * Q Kt) + bias - slope * distance      [queries, keys]
//! P = exp(S - max) / sum                                   0 where hidden; dead rows all 0
//! O = dropout(P) V                                         [queries, value_dim]
//! ```
//!
//! Neither `S` nor `P` is ever stored whole. The forward pass leaves two numbers for each query,
//! the row's maximum and its sum, from which the backward pass computes the weights again.
//!
//! In reading order: `operation` (the tensors of a backend), `slices` (the passes on plain slices);
//! `forward`, `decode`, `backward`; `panel` (who sees what), `score`, `online_softmax`;
//! `tile_product`, `row_product`, `read_rows`, `rows`, `source`, `strided`, `real`; `tasks`, `ordered_sum`. No file but
//! `operation` names a type of Burn's.

mod backward;
mod decode;
mod forward;
mod online_softmax;
mod operation;
mod ordered_sum;
mod panel;
mod read_rows;
mod real;
mod row_product;
mod rows;
mod score;
mod slices;
mod source;
mod strided;
mod tasks;
#[cfg(test)]
mod tests;
mod tile_product;

pub(in crate::kernels::cpu) use real::Real;
use slices::{BiasGradient, GradientSlices, Inputs};
use source::Source;
use strided::Strided;
