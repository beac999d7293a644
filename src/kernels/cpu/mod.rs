//! The kernels for the CPU: attention, and what stands around it in a layer, as single operations.
//!
//! Autodiff takes a layer norm apart into a dozen operations, each with its own pass over memory
//! and its own step in the graph. On a CPU device in f32 the functions of `linear`, `norm`,
//! `activation` and `rotation` run one pass forward and one backward; elsewhere they are Burn's own
//! tensor operations.
//!
//! In reading order: `host` (tensors that the CPU can read), `operation` (the operations as Burn sees
//! them); `attention`; `linear` with its `matrix`, `cut`, `product` and `gemv`, `stored` (a
//! projection whose weight lies in `blocks`) and `together` (several of them), `norm`, `activation` and
//! `rotation` with their `arithmetic`; `cross_entropy`, `adamw`, `squares`; `memory`, `simd`, `threads`
//! with `offer` and `ahead`.

pub(super) mod activation;
#[cfg(feature = "optim")]
pub(super) mod adamw;
mod ahead;
mod arithmetic;
pub(super) mod attention;
pub(super) mod blocks;
pub(super) mod cross_entropy;
mod cut;
mod gemv;
pub(super) mod host;
pub(super) mod linear;
#[cfg(target_arch = "x86_64")]
mod many;
mod matrix;
pub(super) mod memory;
pub(super) mod norm;
mod offer;
mod operation;
mod product;
pub(super) mod rotation;
mod simd;
#[cfg(feature = "optim")]
pub(super) mod squares;
pub(super) mod stored;
pub(super) mod threads;
pub(super) mod together;

use burn::tensor::{DType, Tensor};

use super::supports;

/// Whether the operations of this module run on the tensor's device and element type.
pub(crate) fn runs_on<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && supports(&tensor.device(), DType::F32)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::activation::{Function, activate};
    use super::linear::project;
    use super::norm::layer_norm;
    use super::rotation::{Rotation, rotate};
    use super::simd;

    pub(super) use crate::kernels::cpus;

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

    /// Norms, activations and rotations are the same bits on every instruction set, as `arithmetic`
    /// says; sums of products differ by their roundings.
    #[test]
    fn every_instruction_set_gives_the_same() {
        for device in cpus() {
            let x = scattered([2, 37, 64], &device);
            let by_element = |x: Tensor<3>| {
                let gamma = scattered([64], &device.clone().autodiff()) + 1.5;
                let x = layer_norm(x, gamma.clone(), Some(gamma), 1e-5);
                let angle = |side: usize| (0..37 * 16).map(move |i| ((i + 7 * side) as f32).sin());
                let rotation = Rotation {
                    rows: 1,
                    pairs: 16,
                    head_dim: 32,
                    heads: None,
                    interleaved: false,
                    table: [0, 1].map(|side| angle(side).collect()),
                };
                activate(Function::Gelu, rotate(x, rotation))
            };
            let product = |x: Tensor<3>| {
                let weight = scattered([64, 31], &device.clone().autodiff());
                project(x, weight, None).sum_dim(2).expand([2, 37, 64])
            };
            let run = |arch| {
                let x = x.clone();
                simd::tests::on(arch, move || {
                    let one_token = x.clone().narrow(1, 0, 1).expand([2, 37, 64]);
                    let value = numbers(by_element(x.clone().autodiff()));
                    let gradients = gradient([x], |[x]| by_element(x));
                    (value, gradients, numbers(product(one_token.autodiff())))
                })
            };
            let (value, gradients, products) = run(simd::arch());
            for arch in simd::tests::archs() {
                let got = run(arch);
                assert_eq!((&got.0, &got.1), (&value, &gradients), "{arch:?}");
                for (got, expected) in got.2.iter().zip(&products) {
                    assert!((got - expected).abs() < 1e-4, "{arch:?}: {got}, not {expected}");
                }
            }
        }
    }
}
