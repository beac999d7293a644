//! Arithmetic: attention and what stands around it in a layer, as single operations with a gradient.
//!
//! In reading order:
//!
//! - `plan`, `visibility`, `dropout`: what attention is asked, as plain data;
//! - `tiles`: which tiles of keys a tile of queries visits;
//! - `naive`: attention in plain loops, which every kernel is tested against;
//! - `op`: attention as Burn sees it, with its gradient; `autodiff`: the one backward step;
//! - `cross_entropy`: the loss of an output head, without its logits;
//! - `cpu`: the kernels for the CPU;
//! - `backends`: one small file for each backend that they run on.
//!
//! All `unsafe` of the crate stands here.

// All of the crate's unsafe code stands in this room.
#![allow(unsafe_code)]

mod autodiff;
mod backends;
mod cpu;
mod cross_entropy;
mod dropout;
#[cfg(test)]
mod naive;
mod op;
mod plan;
mod tiles;
mod visibility;

#[cfg(test)]
pub(crate) use backends::address;
pub(crate) use backends::{first_keys, supports};
pub(crate) use cpu::activation::{Function, activate, activate_gated};
#[cfg(feature = "optim")]
pub(crate) use cpu::adamw::{AdamWStep, adamw};
pub use cpu::blocks::Format;
pub(crate) use cpu::linear::{linear, project};
pub(crate) use cpu::norm::{layer_norm, rms_norm};
pub(crate) use cpu::rotation::{Rotation, rotate};
pub(crate) use cpu::runs_on;
pub use cpu::threads::Threads;
pub(crate) use cross_entropy::{TokenLoss, cross_entropy};
pub(crate) use dropout::SeededDropout;
pub(crate) use op::{Extra, FusedAttention, Optional};
pub(crate) use plan::{Plan, Scoring, Slopes};
pub(crate) use visibility::Visibility;
pub use visibility::{HiddenCells, RowSpans, Span};
