//! One backward step for all of the crate's CPU operations, on every CPU backend.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{
        base::Checkpointer, retro_forward::RetroForward, state::BackwardStates,
        strategy::CheckpointStrategy,
    },
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;

use super::cpu::host::Host;

/// An operation of `N` tensors with its gradient, for every CPU backend.
pub(crate) trait Operation<const N: usize>: Clone + Debug + Send + Sync + 'static {
    /// Whether a device with gradient checkpointing computes the output again in the backward pass
    /// instead of keeping it.
    const CHEAP: bool;

    /// The output, and what the backward pass needs besides the inputs.
    fn forward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>);

    /// The gradients of the inputs, each where `wanted`, from the gradient of the output.
    fn backward<B: Host>(
        &self,
        inputs: [FloatTensor<B>; N],
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// Runs the operation and records its backward step.
pub(crate) fn record<B: Host, C: CheckpointStrategy, O: Operation<N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let primitives = inputs.each_ref().map(|input| input.primitive().clone());
    let nodes = inputs.each_ref().map(|input| input.node());
    let step = Step { operation: operation.clone(), backend: PhantomData::<B> };
    let prep = if O::CHEAP {
        let again = Again {
            operation: operation.clone(),
            inputs: inputs.each_ref().map(|input| input.id()),
            backend: PhantomData::<B>,
        };
        step.prepare::<C>(nodes).memory_bound().retro_forward(again).parents(&inputs)
    } else {
        step.prepare::<C>(nodes).compute_bound()
    };
    match prep.stateful() {
        OpsKind::Tracked(mut prep) => {
            let inputs = inputs.each_ref().map(|input| prep.checkpoint(input));
            let (output, saved) = operation.forward::<B>(primitives);
            prep.finish((inputs, saved), output)
        }
        OpsKind::UnTracked(prep) => prep.finish(operation.forward::<B>(primitives).0),
    }
}

#[derive(Debug)]
struct Step<B, O> {
    operation: O,
    backend: PhantomData<B>,
}

impl<B: Host, O: Operation<N>, const N: usize> Backward<B, N> for Step<B, O> {
    type State = ([NodeId; N], Vec<FloatTensor<B>>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let d_output = grads.consume::<B>(&ops.node);
        let (inputs, saved) = ops.state;
        let inputs = inputs.map(|node| checkpointer.retrieve_node_output(node));
        let wanted = ops.parents.each_ref().map(|parent| parent.is_some());
        let gradients = self.operation.backward::<B>(inputs, saved, d_output, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Computes the output of a cheap operation again.
#[derive(Debug)]
struct Again<B, O, const N: usize> {
    operation: O,
    inputs: [NodeId; N],
    backend: PhantomData<B>,
}

impl<B: Host, O: Operation<N>, const N: usize> RetroForward for Again<B, O, N> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let inputs = self.inputs.map(|node| states.get_state::<FloatTensor<B>>(&node));
        states.save(output, self.operation.forward::<B>(inputs).0);
    }
}
