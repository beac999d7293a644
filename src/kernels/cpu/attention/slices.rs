//! What attention reads and writes, as slices, and its two passes over them.

use std::mem::MaybeUninit;

use pulp::Arch;

use super::{Real, Source, Strided, backward as backward_pass, decode, forward as forward_pass};
use crate::kernels::Plan;
use crate::kernels::cpu::simd::arch;

/// What attention reads: `[batch, heads, queries, head_dim]`, `[batch, kv_heads, keys, head_dim]`,
/// `[batch, kv_heads, keys, value_dim]`, and a bias whose strides broadcast it to
/// `[batch, heads, queries, keys]`. The backward pass reads numbers of `T` alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a, T> {
    pub(super) query: Source<'a, T>,
    pub(super) key: Source<'a, T>,
    pub(super) value: Source<'a, T>,
    pub(super) bias: Option<Strided<'a, T>>,
    /// `[heads]`: one logit for each head that takes part in the softmax like a key whose value is
    /// zero.
    pub(super) sinks: Option<&'a [f64]>,
}

/// What the backward pass adds to, zeros at first; `None` where nobody asks.
#[derive(Debug)]
pub(super) struct GradientSlices<'a, T> {
    /// `[batch, queries, heads, head_dim]` row-major.
    pub(super) query: Option<&'a mut [T]>,
    /// `[batch, keys, kv_heads, head_dim]` row-major.
    pub(super) key: Option<&'a mut [T]>,
    /// `[batch, keys, kv_heads, value_dim]` row-major.
    pub(super) value: Option<&'a mut [T]>,
    pub(super) bias: Option<BiasGradient<'a, T>>,
    /// `[heads]`, the gradient of [`Inputs::sinks`].
    pub(super) sinks: Option<&'a mut [f64]>,
}

/// The gradient of a bias of this shape, summed over the axes on which it was broadcast.
#[derive(Debug)]
pub(super) struct BiasGradient<'a, T> {
    pub(super) data: &'a mut [T],
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`
    pub(super) shape: [usize; 4],
}

/// Row statistics that the forward pass leaves for the backward pass:
/// `[2, batch, heads, queries]`, the maxima (in the kernel's own units), then the sums of
/// `exp(score - maximum)`; the sum of a dead row is 0.
///
/// They are kept apart and not added up to a log-sum-exp: at scores of 20,000 an `f32` is too
/// coarse for a logarithm that the weights are to be recovered from.
pub(super) fn statistics_len(plan: &Plan) -> usize {
    2 * plan.batch * plan.heads * plan.queries
}

/// Attention: the output, `[batch, queries, heads, value_dim]` row-major, and statistics of
/// [`statistics_len`].
///
/// # Panics
///
/// If sizes do not fit each other.
pub(super) fn forward<T: Real>(plan: &Plan, inputs: &Inputs<T>) -> [Vec<T>; 2] {
    let len = plan.batch * plan.queries * plan.heads * plan.value_dim;
    // Not filled with zeros first: for a narrow window that is a good part of the time.
    let mut out = Vec::with_capacity(len);
    let mut statistics = vec![T::ZERO; statistics_len(plan)];
    let unwritten = &mut out.spare_capacity_mut()[..len];
    forward_on(arch(), plan, inputs, unwritten, &mut statistics);
    // SAFETY: `forward_on` has written all `len` elements.
    unsafe { out.set_len(len) };
    [out, statistics]
}

/// Overwrites all of `out` and `statistics`.
pub(super) fn forward_on<T: Real>(
    arch: Arch,
    plan: &Plan,
    inputs: &Inputs<T>,
    out: &mut [MaybeUninit<T>],
    statistics: &mut [T],
) {
    check(plan, inputs);
    if plan.queries <= decode::MOST_QUERIES {
        decode::forward(arch, plan, inputs, out, statistics);
    } else {
        forward_pass::forward(arch, plan, inputs, out, statistics);
    }
}

/// The gradients of attention for the upstream gradient `d_out` (an expanded one has strides of
/// 0); `out` and `statistics` are what [`forward`] wrote. Both tensors are addressed as `[batch,
/// heads, queries, value_dim]`.
///
/// # Panics
///
/// If sizes do not fit each other.
pub(super) fn backward<T: Real>(
    plan: &Plan,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: GradientSlices<T>,
) {
    backward_on(arch(), plan, inputs, out, statistics, d_out, gradients);
}

pub(super) fn backward_on<T: Real>(
    arch: Arch,
    plan: &Plan,
    inputs: &Inputs<T>,
    out: Strided<T>,
    statistics: &[T],
    d_out: Strided<T>,
    gradients: GradientSlices<T>,
) {
    check(plan, inputs);
    backward_pass::backward(arch, plan, inputs, out, statistics, d_out, gradients);
}

fn check<T>(plan: &Plan, inputs: &Inputs<T>) {
    plan.check();
    if let Some(sinks) = inputs.sinks {
        assert_eq!(sinks.len(), plan.heads, "one sink for each head");
    }
}
