//! Attention on slices, forward and backward, for the CPU. No type of Burn appears here.
//!
//! ```text
//! S = softcap(scale * Q Kt) + bias - slope * distance      [queries, keys]
//! P = exp(S - max) / sum                                   0 where hidden; dead rows all 0
//! O = dropout(P) V                                         [queries, value_dim]
//! ```
//!
//! Neither `S` nor `P` is ever stored whole. The forward pass leaves two numbers for each query,
//! the row's maximum and its sum, from which the backward pass computes the weights again.

mod backward;
mod few;
mod forward;
mod gemm;
#[cfg(test)]
mod naive;
mod one_row;
mod problem;
mod real;
mod rows;
mod score;
mod state;
mod tasks;
#[cfg(test)]
mod tests;
mod turns;
mod visible;

use std::mem::MaybeUninit;

use pulp::Arch;

use super::memory;
use super::simd::arch;

pub(crate) use problem::{Alibi, Problem, Strided};
pub(crate) use real::Real;

/// What attention reads: `[batch, heads, queries, head_dim]`, `[batch, kv_heads, keys, head_dim]`,
/// `[batch, kv_heads, keys, value_dim]`, and a bias whose strides broadcast it to
/// `[batch, heads, queries, keys]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a, T> {
    pub(crate) query: Strided<'a, T>,
    pub(crate) key: Strided<'a, T>,
    pub(crate) value: Strided<'a, T>,
    pub(crate) bias: Option<Strided<'a, T>>,
}

/// What the backward pass adds to, zeros at first; `None` where nobody asks.
#[derive(Debug)]
pub(crate) struct Gradients<'a, T> {
    /// `[batch, queries, heads, head_dim]` row-major.
    pub(crate) query: Option<&'a mut [T]>,
    /// `[batch, keys, kv_heads, head_dim]` row-major.
    pub(crate) key: Option<&'a mut [T]>,
    /// `[batch, keys, kv_heads, value_dim]` row-major.
    pub(crate) value: Option<&'a mut [T]>,
    pub(crate) bias: Option<BiasGradient<'a, T>>,
    /// `[heads]`, the gradient of [`Problem::sinks`].
    pub(crate) sinks: Option<&'a mut [f64]>,
}

/// The gradient of a bias of this shape, summed over the axes on which it was broadcast.
#[derive(Debug)]
pub(crate) struct BiasGradient<'a, T> {
    pub(crate) data: &'a mut [T],
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`
    pub(crate) shape: [usize; 4],
}

/// Row statistics that the forward pass leaves for the backward pass:
/// `[2, batch, heads, queries]`, the maxima (in the kernel's own units), then the sums of
/// `exp(score - maximum)`; the sum of a dead row is 0.
///
/// They are kept apart and not added up to a log-sum-exp: at scores of 20,000 an `f32` is too
/// coarse for a logarithm that the weights are to be recovered from.
pub(crate) fn statistics_len(problem: &Problem) -> usize {
    2 * problem.batch * problem.heads * problem.queries
}

/// Attention: the output, `[batch, queries, heads, value_dim]` row-major, and statistics of
/// [`statistics_len`].
///
/// # Panics
///
/// If sizes do not fit each other.
pub(crate) fn forward<T: Real>(problem: &Problem, inputs: &Inputs<T>) -> [Vec<T>; 2] {
    let len = problem.batch * problem.queries * problem.heads * problem.value_dim;
    // Not filled with zeros first: for a narrow window that is a good part of the time.
    let mut out = memory::room(len);
    let mut statistics = vec![T::ZERO; statistics_len(problem)];
    let unwritten = &mut out.spare_capacity_mut()[..len];
    forward_on(arch(), problem, inputs, unwritten, &mut statistics);
    // SAFETY: `forward_on` has written all `len` elements.
    unsafe { out.set_len(len) };
    [out, statistics]
}

/// Overwrites all of `out` and `statistics`.
fn forward_on<T: Real>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<T>,
    out: &mut [MaybeUninit<T>],
    statistics: &mut [T],
) {
    problem.check();
    if problem.queries <= few::MOST_QUERIES {
        few::forward(arch, problem, inputs, out, statistics);
    } else {
        forward::forward(arch, problem, inputs, out, statistics);
    }
}

/// The gradients of attention for the upstream gradient `d_out` (an expanded one has strides of
/// 0); `out` and `statistics` are what [`forward`] wrote. Both tensors are addressed as `[batch,
/// heads, queries, value_dim]`.
///
/// # Panics
///
/// If sizes do not fit each other.
pub(crate) fn backward<T: Real>(
    problem: &Problem,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: Gradients<T>,
) {
    backward_on(arch(), problem, inputs, out, statistics, d_out, gradients);
}

fn backward_on<T: Real>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: Gradients<T>,
) {
    problem.check();
    backward::backward(arch, problem, inputs, out, statistics, d_out, gradients);
}
