//! The gradient of the bias, as a sum that tasks add to.

use super::super::strided::{broadcast_strides, offset};
use super::super::{BiasGradient, Real};
use crate::kernels::Plan;
use crate::kernels::cpu::memory::SharedSlice;

pub(super) struct BiasSum<'a, T> {
    target: &'a mut [T],
    by_query: Option<Vec<T>>,
    shape: [usize; 4],
}

/// Where the tasks add the gradients of scores.
pub(super) struct SharedBias<'a, T> {
    pub(super) sum: SharedSlice<'a, T>,
    pub(super) strides: [usize; 4],
    /// Heads or batch rows share the bias, so all tasks wait for each other.
    pub(super) by_all: bool,
}

impl<'a, T: Real> BiasSum<'a, T> {
    pub(super) fn new(gradient: BiasGradient<'a, T>, rows: usize) -> Self {
        Self {
            // a bias that all keys share: one sum for each query first
            by_query: (gradient.shape[3] == 1).then(|| vec![T::ZERO; rows]),
            shape: gradient.shape,
            target: gradient.data,
        }
    }

    pub(super) fn shared(&mut self, plan: &Plan) -> SharedBias<'_, T> {
        let Plan { batch, heads, queries, .. } = *plan;
        match &mut self.by_query {
            Some(rows) => SharedBias {
                sum: SharedSlice::new(rows),
                strides: [heads * queries, queries, 1, 0],
                by_all: false,
            },
            None => SharedBias {
                sum: SharedSlice::new(self.target),
                strides: broadcast_strides(&self.shape),
                by_all: self.shape[0] < batch || self.shape[1] < heads,
            },
        }
    }

    pub(super) fn finish(self, [heads, queries]: [usize; 2]) {
        let strides = broadcast_strides(&self.shape);
        for (at, &row) in self.by_query.iter().flatten().enumerate() {
            let at = [at / queries / heads, at / queries % heads, at % queries, 0];
            self.target[offset(&strides, at)] += row;
        }
    }
}
