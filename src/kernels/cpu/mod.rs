//! What stands around attention in a layer, as single operations for the CPU.
//!
//! Autodiff takes a layer norm apart into a dozen operations, each with its own pass over memory
//! and its own step in the graph. On a CPU device in f32 the functions here run one pass forward and
//! one backward; elsewhere they are Burn's own tensor operations.

pub(super) mod activation;
mod arithmetic;
pub(super) mod attention;
mod gemv;
pub(super) mod host;
pub(super) mod linear;
pub(super) mod memory;
pub(super) mod norm;
mod operation;
mod product;
pub(super) mod rotation;
mod simd;
pub(super) mod threads;

use burn::tensor::{DType, Tensor};

use super::supports;

/// Whether the operations of this module run on the tensor's device and element type.
pub(crate) fn runs_on<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && supports(&tensor.device(), DType::F32)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    /// The CPU devices that are compiled in.
    pub(super) fn cpus() -> Vec<Device> {
        vec![
            #[cfg(feature = "flex")]
            Device::flex(),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            Device::ndarray(),
        ]
    }

    /// Numbers from -1 to 1 without a pattern; not random, since tests share the generator.
    pub(super) fn scattered<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let number = |i: usize| (i as f32 * 12.9898).sin() * 43758.547 % 1.0;
        let numbers = (0..shape.iter().product()).map(number).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    pub(super) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    /// The gradients of `f(inputs).sum()`; of an input that has none, nothing.
    pub(super) fn gradient<const D: usize, const N: usize>(
        inputs: [Tensor<D>; N],
        f: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    ) -> Vec<Vec<f64>> {
        let leaves = inputs.map(|input| input.autodiff().require_grad());
        let gradients = f(leaves.clone()).sum().backward();
        leaves.iter().filter_map(|leaf| leaf.grad(&gradients).map(numbers)).collect()
    }
}
