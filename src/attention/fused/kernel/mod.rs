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

mod arch;
mod backward;
mod few;
mod forward;
mod gemm;
#[cfg(test)]
mod naive;
mod problem;
mod real;
mod rows;
mod score;
mod tasks;
#[cfg(test)]
mod tests;
mod turns;
mod visible;

use arch::Arch;

pub(crate) use problem::{Alibi, Problem, Strided};
pub(crate) use real::{Element, Real};

/// What attention reads: `[batch, heads, queries, head_dim]`, `[batch, kv_heads, keys, head_dim]`,
/// `[batch, kv_heads, keys, value_dim]`, and a bias whose strides broadcast it to
/// `[batch, heads, queries, keys]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a, E> {
    pub(crate) query: Strided<'a, E>,
    pub(crate) key: Strided<'a, E>,
    pub(crate) value: Strided<'a, E>,
    pub(crate) bias: Option<Strided<'a, E>>,
}

/// Where the backward pass writes, everything overwritten; `None` where nobody asks.
#[derive(Debug)]
pub(crate) struct Gradients<'a, E> {
    /// `[batch, queries, heads, head_dim]` row-major.
    pub(crate) query: Option<&'a mut [E]>,
    /// `[batch, keys, kv_heads, head_dim]` row-major.
    pub(crate) key: Option<&'a mut [E]>,
    /// `[batch, keys, kv_heads, value_dim]` row-major.
    pub(crate) value: Option<&'a mut [E]>,
    pub(crate) bias: Option<BiasGradient<'a, E>>,
    /// `[heads]`, the gradient of [`Problem::sinks`].
    pub(crate) sinks: Option<&'a mut [f64]>,
}

/// The gradient of a bias of this shape, summed over the axes on which it was broadcast.
#[derive(Debug)]
pub(crate) struct BiasGradient<'a, E> {
    pub(crate) data: &'a mut [E],
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

/// Attention: `out` is `[batch, queries, heads, value_dim]` row-major, `statistics` of
/// [`statistics_len`]; both are overwritten whole.
///
/// # Panics
///
/// If sizes do not fit each other.
pub(crate) fn forward<E: Element>(
    problem: &Problem,
    inputs: &Inputs<E>,
    out: &mut [E],
    statistics: &mut [E::Real],
) {
    forward_on(Arch::detect(), problem, inputs, out, statistics);
}

fn forward_on<E: Element>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<E>,
    out: &mut [E],
    statistics: &mut [E::Real],
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
pub(crate) fn backward<E: Element>(
    problem: &Problem,
    inputs: &Inputs<E>,
    out: Strided<E>,
    statistics: &[E::Real],
    d_out: Strided<E>,
    gradients: Gradients<E>,
) {
    backward_on(Arch::detect(), problem, inputs, out, statistics, d_out, gradients);
}

fn backward_on<E: Element>(
    arch: Arch,
    problem: &Problem,
    inputs: &Inputs<E>,
    out: Strided<E>,
    statistics: &[E::Real],
    d_out: Strided<E>,
    gradients: Gradients<E>,
) {
    problem.check();
    backward::backward(arch, problem, inputs, out, statistics, d_out, gradients);
}
