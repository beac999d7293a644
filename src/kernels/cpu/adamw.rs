//! A step of AdamW for one parameter of f32, in one pass over memory.
//!
//! ```text
//! m = β₁ m + (1 - β₁) g
//! v = β₂ v + (1 - β₂) g²
//! p = (1 - η λ) p - η (m / (1 - β₁ᵗ)) / (√(v / (1 - β₂ᵗ)) + ε)
//! ```
//!
//! Loshchilov and Hutter 2019, algorithm 2. Each operation is rounded by itself, in Burn's order, so
//! that the numbers are those of Burn's AdamW bit for bit. Parameter and moments are written where
//! they lie if nobody else holds them.
// The list of backends names ndarray, which Burn deprecates.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::backend::{Backend, Dispatch, ExtensionType, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::arithmetic::{BLOCK, vectorized};
use super::host::{Flat, Host};
use super::memory::zeros;
use crate::kernels::op::Optional;

/// The numbers of a step, as Burn's optimizer rounds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWStep {
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    pub(crate) epsilon: f32,
    pub(crate) learning_rate: f32,
    /// What a parameter is multiplied by: 1 less learning rate times weight decay.
    pub(crate) keep: f32,
    /// Steps with this one.
    pub(crate) time: i32,
}

/// A parameter and its moments, all of one shape.
#[derive(Clone, Debug, ExtensionType)]
pub(crate) struct Moved<B: Backend> {
    #[extension_type]
    parameter: Optional<B>,
    #[extension_type]
    moment_1: Optional<B>,
    #[extension_type]
    moment_2: Optional<B>,
}

/// The parameter and its moments after a step; moments that are missing are 0. On a CPU, in f32, not
/// tracked by autodiff.
pub(crate) fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<[Tensor<D>; 2]>,
    step: AdamWStep,
) -> [Tensor<D>; 3] {
    let [moment_1, moment_2] = match moments {
        Some(moments) => moments.map(Some),
        None => [None, None],
    };
    let moved = Moved {
        parameter: Optional::of(Some(parameter)),
        moment_1: Optional::of(moment_1),
        moment_2: Optional::of(moment_2),
    };
    let Moved { parameter, moment_1, moment_2 } =
        Dispatch::adamw_step(gradient.into_dispatch(), moved, step);
    [parameter, moment_1, moment_2]
        .map(|tensor| Tensor::from_dispatch(tensor.into_option().expect("each of the three")))
}

#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub(crate) trait AdamWOperation: Backend {
    fn adamw_step(
        gradient: FloatTensor<Self>,
        #[extension_type] moved: Moved<Self>,
        step: AdamWStep,
    ) -> Moved<Self>;
}

impl<B: Host> AdamWOperation for B {
    fn adamw_step(gradient: FloatTensor<B>, moved: Moved<B>, step: AdamWStep) -> Moved<B> {
        let gradient = Flat::<B>::new(gradient);
        let g = gradient.data();
        let own = |moment: Optional<B>| match moment.into_option() {
            Some(moment) => own::<B>(moment),
            None => gradient.like(zeros(g.len())),
        };
        let (mut moment_1, mut moment_2) = (own(moved.moment_1), own(moved.moment_2));
        let [m, v] = [&mut moment_1, &mut moment_2]
            .map(|tensor| B::slice_mut(tensor).expect("memory of its own"));
        let mut parameter = moved.parameter.into_option().expect("a parameter");
        let parameter = match B::slice_mut(&mut parameter) {
            Some(p) => {
                step.apply(p, g, m, v);
                parameter
            }
            // As in burn-train's loop, which keeps the model while its clone is optimized.
            None => {
                let parameter = Flat::<B>::new(parameter);
                parameter.like(step.applied(parameter.data(), g, m, v))
            }
        };
        Moved {
            parameter: Optional::Some(parameter),
            moment_1: Optional::Some(moment_1),
            moment_2: Optional::Some(moment_2),
        }
    }
}

/// The tensor in row-major memory that nobody else holds: itself, if it is that, or a copy.
fn own<B: Host>(mut tensor: FloatTensor<B>) -> FloatTensor<B> {
    if <B as super::host::HostFloat<f32>>::slice_mut(&mut tensor).is_some() {
        return tensor;
    }
    let tensor = Flat::<B>::new(tensor);
    tensor.like(tensor.data().to_vec())
}

impl AdamWStep {
    fn apply(self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let len = p.len();
        assert!(len == g.len() && len == m.len() && len == v.len(), "sizes that do not fit");
        p.par_chunks_mut(BLOCK)
            .zip(g.par_chunks(BLOCK))
            .zip(m.par_chunks_mut(BLOCK))
            .zip(v.par_chunks_mut(BLOCK))
            .for_each(|(((p, g), m), v)| self.block(p, g, m, v));
    }

    /// [`apply`](Self::apply) where the parameter stays as it is: it is copied block by block, in the
    /// same pass.
    fn applied(self, p: &[f32], g: &[f32], m: &mut [f32], v: &mut [f32]) -> Vec<f32> {
        let len = p.len();
        assert!(len == g.len() && len == m.len() && len == v.len(), "sizes that do not fit");
        let mut moved = Vec::with_capacity(len);
        moved.spare_capacity_mut()[..len]
            .par_chunks_mut(BLOCK)
            .zip(p.par_chunks(BLOCK))
            .zip(g.par_chunks(BLOCK))
            .zip(m.par_chunks_mut(BLOCK))
            .zip(v.par_chunks_mut(BLOCK))
            .for_each(|((((moved, p), g), m), v)| {
                self.block(moved.write_copy_of_slice(p), g, m, v);
            });
        // SAFETY: the blocks are all `len` elements, and each was written.
        unsafe { moved.set_len(len) };
        moved
    }

    fn block(self, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Self { beta_1, beta_2, epsilon, learning_rate, keep, time } = self;
        let [rest_1, rest_2] = [1.0 - beta_1, 1.0 - beta_2];
        let [correction_1, correction_2] = [1.0 - beta_1.powi(time), 1.0 - beta_2.powi(time)];
        vectorized(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    *m = *m * beta_1 + g * rest_1;
                    *v = *v * beta_2 + g * g * rest_2;
                    let root = (*v / correction_2).sqrt() + epsilon;
                    *p = *p * keep - *m / correction_1 / root * learning_rate;
                }
            },
        );
    }
}
