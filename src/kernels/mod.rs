//! Arithmetic: attention and what stands around it in a layer, as single operations with a gradient.
//!
//! - `plan`, `op`: what attention is asked, and the operation as Burn sees it;
//! - `autodiff`: the one backward step;
//! - `dropout`: random numbers that any kernel can compute again;
//! - `cpu`: the kernels for the CPU;
//! - `backends`: one small file for each backend that they run on.

// All of the crate's unsafe code stands in this room.
#![allow(unsafe_code)]

mod autodiff;
mod backends;
mod cpu;
mod dropout;
mod op;
mod plan;

#[cfg(test)]
pub(crate) use backends::address;
pub(crate) use backends::{first_keys, supports};
pub(crate) use cpu::activation::{Function, activate, activate_gated};
pub(crate) use cpu::linear::{linear, project};
pub(crate) use cpu::norm::{layer_norm, rms_norm};
pub(crate) use cpu::rotation::{Turn, turn};
pub(crate) use cpu::runs_on;
pub(crate) use cpu::threads::awake;
pub(crate) use dropout::SeededDropout;
pub(crate) use op::{FusedAttention, Optional};
pub(crate) use plan::Plan;
