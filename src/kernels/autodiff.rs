//! One backward step for all of the crate's operations, on every backend.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::Backend;
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

/// The inputs of an operation, some of which may be missing; the first is always there.
pub(crate) type OperationInputs<B, const N: usize> = [Option<FloatTensor<B>>; N];

/// An operation of up to `N` tensors with its gradient.
pub(crate) trait Operation<B: Backend, const N: usize>:
    Clone + Debug + Send + Sync + 'static
{
    /// Whether a device with gradient checkpointing computes the output again in the backward pass
    /// instead of keeping it.
    const CHEAP: bool;

    /// The output, and what the backward pass needs besides the inputs.
    fn forward(&self, inputs: OperationInputs<B, N>) -> (FloatTensor<B>, Vec<FloatTensor<B>>);

    /// [`forward`](Self::forward) where a backward pass may follow, which will ask for the gradients
    /// `wanted`: an operation that has them at hand keeps them for it.
    fn forward_tracked(
        &self,
        inputs: OperationInputs<B, N>,
        _wanted: [bool; N],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        self.forward(inputs)
    }

    /// The gradients of the inputs, each where `wanted`, from the gradient of the output.
    fn backward(
        &self,
        inputs: OperationInputs<B, N>,
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; N],
    ) -> OperationInputs<B, N>;
}

/// Runs the operation and records its backward step. Returns what it saved, too.
pub(crate) fn record<B: Backend, C: CheckpointStrategy, O: Operation<B, N>, const N: usize>(
    operation: O,
    inputs: OperationInputs<Autodiff<B, C>, N>,
) -> (FloatTensor<Autodiff<B, C>>, Vec<FloatTensor<B>>) {
    let first = inputs[0].as_ref().expect("a first input");
    // A missing input takes the first one's place in the graph; it asks for no gradient.
    let nodes = inputs.each_ref().map(|input| input.as_ref().unwrap_or(first).node());
    let ids = inputs.each_ref().map(|input| input.as_ref().map(|input| input.id()));
    let primitives =
        || inputs.each_ref().map(|input| input.as_ref().map(|input| input.primitive().clone()));
    let step = RecordedStep { operation: operation.clone(), backend: PhantomData::<B> };
    let prep = if O::CHEAP {
        let again =
            Recompute { operation: operation.clone(), inputs: ids, backend: PhantomData::<B> };
        let parents = inputs.iter().flatten();
        step.prepare::<C>(nodes).memory_bound().retro_forward(again).parents(parents)
    } else {
        step.prepare::<C>(nodes).compute_bound()
    };
    match prep.stateful() {
        OpsKind::Tracked(mut prep) => {
            let kept =
                inputs.each_ref().map(|input| input.as_ref().map(|input| prep.checkpoint(input)));
            let wanted = inputs
                .each_ref()
                .map(|input| input.as_ref().is_some_and(|input| input.is_tracked()));
            let (output, saved) = operation.forward_tracked(primitives(), wanted);
            (prep.finish((kept, saved.clone()), output), saved)
        }
        OpsKind::UnTracked(prep) => {
            let (output, saved) = operation.forward(primitives());
            (prep.finish(output), saved)
        }
    }
}

#[derive(Debug)]
struct RecordedStep<B, O> {
    operation: O,
    backend: PhantomData<B>,
}

impl<B: Backend, O: Operation<B, N>, const N: usize> Backward<B, N> for RecordedStep<B, O> {
    type State = ([Option<NodeId>; N], Vec<FloatTensor<B>>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let d_output = grads.consume::<B>(&ops.node);
        let (nodes, saved) = ops.state;
        let wanted = std::array::from_fn(|i| nodes[i].is_some() && ops.parents[i].is_some());
        let inputs = nodes.map(|node| node.map(|node| checkpointer.retrieve_node_output(node)));
        let gradients = self.operation.backward(inputs, saved, d_output, wanted);
        let parents = ops.parents.into_iter().zip(wanted);
        for ((parent, wanted), gradient) in parents.zip(gradients) {
            if let (Some(parent), true, Some(gradient)) = (parent, wanted, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Computes the output of a cheap operation again.
#[derive(Debug)]
struct Recompute<B, O, const N: usize> {
    operation: O,
    inputs: [Option<NodeId>; N],
    backend: PhantomData<B>,
}

impl<B: Backend, O: Operation<B, N>, const N: usize> RetroForward for Recompute<B, O, N> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let inputs =
            self.inputs.map(|node| node.map(|node| states.get_state::<FloatTensor<B>>(&node)));
        states.save(output, self.operation.forward(inputs).0);
    }
}
