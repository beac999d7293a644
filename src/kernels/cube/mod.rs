//! Attention for GPUs: one operation for every device of Burn's `Cube` backend, written in CubeCL.
//!
//! Forward and backward hold two numbers a query besides inputs, outputs and gradients; tiles of keys
//! that nobody sees are never read.
//!
//! In reading order: `map` (a mask as the device reads it), `device` (the kernels), `launch` (which
//! kernel, with which panels) and `launch_matrix` (the same for matrix units), `operation` (the tensors of
//! Burn's backend), `specs` (shapes of the results, which Burn's fusion asks for beforehand).

pub(super) mod device;
#[macro_use]
mod launch;
mod launch_matrix;
pub(super) mod map;
mod operation;
pub(super) mod specs;

#[cfg(test)]
mod tests;
