//! The operations around attention, as Burn sees them: one extension for all.

use burn::backend::{
    Backend, Dispatch,
    autodiff::{Autodiff, checkpoint::strategy::CheckpointStrategy},
    tensor::FloatTensor,
};
use burn::tensor::Tensor;

use super::activation::Function;
use super::cross_entropy::TokenLosses;
use super::host::Host;
use super::linear::Projection;
use super::norm::NormOperation;
use super::rotation::Rotation;
use super::stored::StoredWeight;
use crate::kernels::autodiff::{Operation, record};
use crate::kernels::op::Optional;

/// What is done with the tensors.
#[derive(Clone, Debug)]
pub(crate) enum HostOperation {
    /// Of `x`, a weight and perhaps a bias.
    Project(Projection),
    /// Of `x` and perhaps a bias.
    ProjectStored(StoredWeight),
    /// Of `x`, gamma and perhaps beta.
    Normalize(NormOperation),
    /// Of `x`, or of a gate and `x`.
    Activate(Function),
    /// Of `x`.
    Rotate(Rotation),
    /// Of hidden states, a weight and perhaps bias.
    CrossEntropy(TokenLosses),
}

impl HostOperation {
    /// The operation on tensors of f32 on a CPU.
    pub(super) fn run<const D: usize, const E: usize, const F: usize>(
        self,
        first: Tensor<D>,
        second: Option<Tensor<E>>,
        third: Option<Tensor<F>>,
    ) -> Tensor<D> {
        let (second, third) = (Optional::of(second), Optional::of(third));
        Tensor::from_dispatch(Dispatch::host_operation(first.into_dispatch(), second, third, self))
    }
}

extend_cpus! {
    (Autodiff)

    pub(crate) trait HostOperations: Backend {
        fn host_operation(
            first: FloatTensor<Self>,
            #[extension_type] second: Optional<Self>,
            #[extension_type] third: Optional<Self>,
            operation: HostOperation,
        ) -> FloatTensor<Self>;
    }
}

/// Calls `$body` with `$inner` the operation of the variant.
macro_rules! with_inner {
    ($operation:expr, $inner:ident => $body:expr) => {
        match $operation {
            HostOperation::Project($inner) => $body,
            HostOperation::ProjectStored($inner) => $body,
            HostOperation::Normalize($inner) => $body,
            HostOperation::Activate($inner) => $body,
            HostOperation::Rotate($inner) => $body,
            HostOperation::CrossEntropy($inner) => $body,
        }
    };
}

impl<B: Host> HostOperations for B {
    fn host_operation(
        first: FloatTensor<B>,
        second: Optional<B>,
        third: Optional<B>,
        operation: HostOperation,
    ) -> FloatTensor<B> {
        let inputs = [Some(first), second.into_option(), third.into_option()];
        with_inner!(operation, inner => Operation::<B, 3>::forward(&inner, inputs).0)
    }
}

impl<B: Host, C: CheckpointStrategy> HostOperations for Autodiff<B, C> {
    fn host_operation(
        first: FloatTensor<Self>,
        second: Optional<Self>,
        third: Optional<Self>,
        operation: HostOperation,
    ) -> FloatTensor<Self> {
        let inputs = [Some(first), second.into_option(), third.into_option()];
        with_inner!(operation, inner => record::<B, C, _, 3>(inner, inputs).0)
    }
}
