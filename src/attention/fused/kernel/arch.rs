//! Which instruction set the kernel runs on.

use pulp::{Scalar, Simd, WithSimd};

/// The best that the machine has, or no vectors at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arch {
    Detected(pulp::Arch),
    /// The portable path, which tests force.
    #[cfg_attr(not(test), allow(dead_code))]
    Scalar,
}

impl Arch {
    pub(super) fn detect() -> Self {
        Self::Detected(pulp::Arch::new())
    }

    #[inline]
    pub(super) fn dispatch<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Self::Detected(arch) => arch.dispatch(op),
            Self::Scalar => Scalar::new().vectorize(op),
        }
    }
}
