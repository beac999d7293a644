//! The gradients as sums that tasks add to.

use super::super::problem::{broadcast_strides, offset};
use super::super::tasks::Shared;
use super::super::{BiasGradient, Element, Problem, Real};

/// A gradient that tasks add to, in the numbers that the kernel computes in.
pub(super) struct Sum<'a, E: Element> {
    target: Option<&'a mut [E]>,
    /// Where the target holds other numbers.
    wide: Vec<E::Real>,
}

impl<'a, E: Element> Sum<'a, E> {
    pub(super) fn new(target: Option<&'a mut [E]>) -> Self {
        Self { target, wide: Vec::new() }
    }

    /// All zero, to be added to.
    pub(super) fn shared(&mut self) -> Option<Shared<'_, E::Real>> {
        let target = self.target.as_deref_mut()?;
        let len = target.len();
        let sum = match E::reals_mut(target) {
            Some(target) => target,
            None => {
                self.wide = vec![E::Real::ZERO; len];
                &mut self.wide
            }
        };
        sum.fill(E::Real::ZERO);
        Some(Shared::new(sum))
    }

    pub(super) fn finish(self) {
        for (to, &from) in self.target.into_iter().flatten().zip(&self.wide) {
            *to = E::of_real(from);
        }
    }
}

/// The gradient of the bias.
pub(super) struct BiasSum<'a, E: Element> {
    sum: Sum<'a, E>,
    by_query: Option<Vec<E::Real>>,
    shape: [usize; 4],
}

/// Where the tasks add the gradients of scores.
pub(super) struct SharedBias<'a, T> {
    pub(super) sum: Shared<'a, T>,
    pub(super) strides: [usize; 4],
    /// Heads or batch rows share the bias, so all tasks have to take turns.
    pub(super) by_all: bool,
}

impl<'a, E: Element> BiasSum<'a, E> {
    pub(super) fn new(gradient: BiasGradient<'a, E>, rows: usize) -> Self {
        Self {
            // a bias that all keys share: one sum for each query first
            by_query: (gradient.shape[3] == 1).then(|| vec![E::Real::ZERO; rows]),
            shape: gradient.shape,
            sum: Sum::new(Some(gradient.data)),
        }
    }

    pub(super) fn shared(&mut self, problem: &Problem) -> SharedBias<'_, E::Real> {
        let Problem { batch, heads, queries, .. } = *problem;
        match &mut self.by_query {
            Some(rows) => SharedBias {
                sum: Shared::new(rows),
                strides: [heads * queries, queries, 1, 0],
                by_all: false,
            },
            None => SharedBias {
                sum: self.sum.shared().expect("a bias gradient has a target"),
                strides: broadcast_strides(&self.shape),
                by_all: self.shape[0] < batch || self.shape[1] < heads,
            },
        }
    }

    pub(super) fn finish(mut self, [heads, queries]: [usize; 2]) {
        if let Some(rows) = self.by_query.take() {
            let strides = broadcast_strides(&self.shape);
            let sum = self.sum.shared().expect("a bias gradient has a target");
            for (at, &row) in rows.iter().enumerate() {
                let at = [at / queries / heads, at / queries % heads, at % queries, 0];
                // SAFETY: no task is left, nobody else holds a part.
                let sum = unsafe { sum.slice(offset(&strides, at), 1) };
                sum[0] += row;
            }
        }
        self.sum.finish();
    }
}
