//! Which instruction set the kernel runs on.

use pulp::WithSimd;
#[cfg(test)]
use pulp::{Scalar, Simd};

/// The best that the machine has; in tests also no vectors at all, which is what other machines
/// without a known instruction set run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arch {
    Detected(pulp::Arch),
    #[cfg(test)]
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
            #[cfg(test)]
            Self::Scalar => Scalar::new().vectorize(op),
        }
    }
}
