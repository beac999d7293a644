//! Arithmetic: attention and what stands around it in a layer, as single operations with a gradient.
//!
//! In reading order:
//!
//! - `plan`, `visibility`, `dropout`: what attention is asked, as plain data;
//! - `tiles`: which tiles of keys a tile of queries visits;
//! - `naive`: attention in plain loops, which every kernel is tested against;
//! - `op`: attention as Burn sees it, with its gradient; `autodiff`: the one backward step;
//! - `coding`, `kept`: numbers in fewer bits, and attention over keys and values of them;
//! - `cross_entropy`: the loss of an output head, without its logits;
//! - `cpu`: the kernels for the CPU; `cube`: attention for GPUs;
//! - `backends`: one small file for each backend that they run on.
//!
//! All `unsafe` of the crate stands here.

// All of the crate's unsafe code stands in this room.
#![allow(unsafe_code)]
// Burn deprecates ndarray, which the lists of backends name.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[macro_use]
mod backends;

mod autodiff;
mod coding;
mod cpu;
mod cross_entropy;
#[cfg(feature = "gpu")]
mod cube;
mod dropout;
mod kept;
#[cfg(feature = "import")]
mod mapped;
pub(crate) mod naive;
mod op;
mod plan;
mod tiles;
mod visibility;

#[cfg(test)]
pub(crate) use backends::{address, address_of_codes, cpus};
pub(crate) use backends::{
    first_codes, first_keys, is_host, map, prefers_fused, reads_codes, reads_mixed, supports,
    supports_attention,
};
pub(crate) use coding::Coding;
pub(crate) use cpu::activation::{Function, activate, activate_gated};
#[cfg(feature = "optim")]
pub(crate) use cpu::adamw::{AdamWStep, adamw};
pub use cpu::blocks::Format;
pub(crate) use cpu::linear::{linear, project};
pub(crate) use cpu::norm::{layer_norm, rms_norm};
pub(crate) use cpu::rotation::{Rotation, rotate};
pub(crate) use cpu::runs_on;
#[cfg(feature = "optim")]
pub(crate) use cpu::squares::sum_of_squares;
pub(crate) use cpu::stored::StoredWeight;
pub use cpu::threads::Threads;
pub(crate) use cross_entropy::{TokenLoss, cross_entropy};
pub(crate) use dropout::SeededDropout;
pub(crate) use kept::{Codes, Kept, attention};
#[cfg(feature = "import")]
pub(crate) use mapped::MappedFile;
pub(crate) use op::{Extra, Optional, OptionalInts};
pub(crate) use plan::{Plan, Scoring, Slopes};
pub(crate) use visibility::Visibility;
pub use visibility::{HiddenCells, RowSpans, Span};
