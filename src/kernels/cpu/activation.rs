//! The non-linear functions of a feed-forward part, alone or as a gate.
//!
//! | function | value | derivative |
//! |---|---|---|
//! | ReLU | `max(0, x)` | `x > 0` |
//! | squared ReLU | `max(0, x)²` | `2 max(0, x)` |
//! | GELU | `x Φ(x)` | `Φ(x) + x φ(x)` |
//! | GELU, tanh form | `x σ(u)`, `u = √(8/π) (x + 0.044715 x³)` | `σ(u) + x σ(u) (1 - σ(u)) uʹ` |
//! | SiLU | `x σ(x)` | `σ(x) + x σ(x) (1 - σ(x))` |
//!
//! The tanh form is usually written `x/2 (1 + tanh(u/2))`, which is the same function.

use std::f64::consts::PI;

use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Tensor, activation};

use super::arithmetic::{map, normal, sigmoid};
use super::host::{Flat, Host};
use super::operation::HostOperation;
use super::runs_on;
use crate::kernels::autodiff::{Operation, OperationInputs};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Relu,
    SquaredRelu,
    Gelu,
    GeluTanh,
    Silu,
}

/// `f(x)`, element by element.
pub(crate) fn activate<const D: usize>(function: Function, x: Tensor<D>) -> Tensor<D> {
    if !runs_on(&x) {
        return function.of_tensor(x);
    }
    HostOperation::Activate(function).run(x, None::<Tensor<D>>, None::<Tensor<D>>)
}

/// `f(gate) x`, element by element.
pub(crate) fn activate_gated<const D: usize>(
    function: Function,
    gate: Tensor<D>,
    x: Tensor<D>,
) -> Tensor<D> {
    if !runs_on(&x) {
        return function.of_tensor(gate) * x;
    }
    HostOperation::Activate(function).run(gate, Some(x), None::<Tensor<D>>)
}

/// `σ(x)`. Burn's own goes through f32 (0.22.1), so f64 takes `(tanh(x/2) + 1) / 2`.
fn sigmoid_of_tensor<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F64 => ((x * 0.5).tanh() + 1.0) * 0.5,
        _ => activation::sigmoid(x),
    }
}

impl Function {
    /// By Burn's tensor operations.
    fn of_tensor<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::SquaredRelu => activation::relu(x).square(),
            // Not Burn's own, whose derivative is that of the tanh form (0.22.1): off by up to 6e-3
            // in the gradients of PyTorch's decoder layers.
            Self::Gelu => ((x.clone() * 0.5f64.sqrt()).erf() + 1.0) * x * 0.5,
            Self::GeluTanh => {
                // Burn's own cubes by the general power; products do.
                let inner = (x.clone() * x.clone() * 0.044715 + 1.0) * x.clone();
                sigmoid_of_tensor(inner * (8.0 / PI).sqrt()) * x
            }
            Self::Silu => sigmoid_of_tensor(x.clone()) * x,
        }
    }

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu => positive(x),
            Self::SquaredRelu => positive(x) * positive(x),
            Self::Gelu => x * normal(x).0,
            Self::GeluTanh => x * sigmoid(tanh_form(x).0)[0],
            Self::Silu => x * sigmoid(x)[0],
        }
    }

    #[inline(always)]
    fn derivative(self, x: f32) -> f32 {
        const DENSITY: f32 = 0.398_942_3; // 1 / √(2π)
        match self {
            Self::Relu => (x > 0.0) as u32 as f32,
            Self::SquaredRelu => 2.0 * positive(x),
            Self::Gelu => {
                let (cdf, exp) = normal(x);
                cdf + x * DENSITY * exp
            }
            Self::GeluTanh => {
                let (u, slope) = tanh_form(x);
                let [s, rest] = sigmoid(u);
                s + x * s * rest * slope
            }
            Self::Silu => {
                let [s, rest] = sigmoid(x);
                s + x * s * rest
            }
        }
    }
}

/// `max(0, x)`, where a NaN stays one.
#[inline(always)]
fn positive(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// `u` of the tanh form and its derivative.
#[inline(always)]
fn tanh_form(x: f32) -> (f32, f32) {
    const ROOT: f32 = 1.595_769; // √(8/π)
    let square = 0.044715 * x * x;
    (ROOT * (x + x * square), ROOT * (1.0 + 3.0 * square))
}

/// Calls `$body` with `$function` a constant, so that each loop is compiled for one function.
macro_rules! for_each_function {
    ($value:expr, $function:ident => $body:expr) => {
        match $value {
            Function::Relu => {
                const $function: Function = Function::Relu;
                $body
            }
            Function::SquaredRelu => {
                const $function: Function = Function::SquaredRelu;
                $body
            }
            Function::Gelu => {
                const $function: Function = Function::Gelu;
                $body
            }
            Function::GeluTanh => {
                const $function: Function = Function::GeluTanh;
                $body
            }
            Function::Silu => {
                const $function: Function = Function::Silu;
                $body
            }
        }
    };
}

impl Function {
    /// `f(x)`
    pub(super) fn of_slice(self, x: &[f32]) -> Vec<f32> {
        for_each_function!(self, F => map([x], |[x]| F.value(x)))
    }

    /// `f(gate) x`
    pub(super) fn of_gated(self, gate: &[f32], x: &[f32]) -> Vec<f32> {
        for_each_function!(self, F => map([gate, x], |[g, x]| F.value(g) * x))
    }
}

/// Of `x`, or of a gate and the `x` that it is multiplied with.
impl<B: Host> Operation<B, 3> for Function {
    const CHEAP: bool = true;

    fn forward(&self, inputs: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let [first, second, _] = inputs.map(|input| input.map(Flat::<B>::new));
        let first = first.expect("x or a gate");
        let output = match &second {
            None => self.of_slice(first.data()),
            Some(x) => self.of_gated(first.data(), x.data()),
        };
        (first.like(output), vec![])
    }

    fn backward(
        &self,
        inputs: OperationInputs<B, 3>,
        _: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; 3],
    ) -> OperationInputs<B, 3> {
        let [first, second, _] = inputs.map(|input| input.map(Flat::<B>::new));
        let first = first.expect("x or a gate");
        let d_output = Flat::<B>::new(d_output);
        let Some(x) = second else {
            let both = [first.data(), d_output.data()];
            let d_x = for_each_function!(*self, F => map(both, |[x, d]| d * F.derivative(x)));
            return [Some(first.like(d_x)), None, None];
        };
        let all = [first.data(), x.data(), d_output.data()];
        let d_gate = wanted[0]
            .then(|| for_each_function!(*self, F => map(all, |[g, x, d]| d * x * F.derivative(g))));
        let d_x =
            wanted[1].then(|| for_each_function!(*self, F => map(all, |[g, _, d]| d * F.value(g))));
        let [d_gate, d_x] = [d_gate, d_x].map(|gradient| gradient.map(|data| x.like(data)));
        [d_gate, d_x, None]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::kernels::cpu::tests::{cpus, gradient, numbers};

    const ALL: [Function; 5] =
        [Function::Relu, Function::SquaredRelu, Function::Gelu, Function::GeluTanh, Function::Silu];

    /// Every 1/64 from -20 to 20, more than one block, and the ends of the range.
    fn inputs(device: &Device, dtype: DType) -> Tensor<2> {
        let mut x: Vec<f64> = (-640..=640).map(|i| i as f64 / 32.0).collect();
        x.extend([0.0, 1e-30, -1e-30, 100.0, -100.0, 1e4, -1e4]);
        let x = x.repeat(20);
        let shape = [2, x.len() / 2];
        Tensor::from_data(TensorData::new(x, shape), (device, dtype))
    }

    /// Value and derivative by the formulas, with the error function of `x/√2`.
    fn exact(function: Function, x: f64, erf: f64) -> (f64, f64) {
        let logistic = |u: f64| (1.0 / (1.0 + (-u).exp()), 1.0 / (1.0 + u.exp()));
        match function {
            Function::Relu => (x.max(0.0), (x > 0.0) as u8 as f64),
            Function::SquaredRelu => (x.max(0.0).powi(2), 2.0 * x.max(0.0)),
            Function::Gelu => {
                let phi = 0.5 * (1.0 + erf);
                (x * phi, phi + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt())
            }
            Function::GeluTanh => {
                let root = (8.0 / PI).sqrt();
                let (s, rest) = logistic(root * (x + 0.044715 * x.powi(3)));
                (x * s, s + x * s * rest * root * (1.0 + 3.0 * 0.044715 * x * x))
            }
            Function::Silu => {
                let (s, rest) = logistic(x);
                (x * s, s + x * s * rest)
            }
        }
    }

    /// As an operation, and by Burn's operations where there is none.
    #[test]
    fn functions_agree_with_their_formulas_in_f64() {
        for (device, function) in cpus().into_iter().flat_map(|d| ALL.map(|f| (d.clone(), f))) {
            let x = inputs(&device, DType::F32);
            let wide = x.clone().cast(DType::F64);
            let erf = numbers((wide * 0.5f64.sqrt()).erf());
            let one = |x| activate(function, x);
            let several = |x| function.of_tensor(x);
            let values = [numbers(one(x.clone())), numbers(several(x.clone()))];
            let slopes =
                [gradient([x.clone()], |[x]| one(x)), gradient([x.clone()], |[x]| several(x))];
            for (i, x) in numbers(x).into_iter().enumerate() {
                let (value, slope) = exact(function, x, erf[i]);
                for (way, (values, slopes)) in values.iter().zip(&slopes).enumerate() {
                    let close = |got: f64, expected: f64, allowed: f64| {
                        let close = (got - expected).abs() <= allowed * (1.0 + expected.abs());
                        assert!(close, "{function:?}({x}), {way}: {got}, expected {expected}");
                    };
                    // Burn's lose digits where 1 + erf or 1 + tanh cancels.
                    close(values[i], value, [5e-7, 5e-6][way]);
                    close(slopes[0][i], slope, [1e-6, 1e-5][way]);
                    if way == 0 && x > -5.0 {
                        // Nothing cancels: even small values are right.
                        assert!(
                            (values[i] - value).abs()
                                <= 3e-6 * value.abs() + f32::MIN_POSITIVE as f64,
                            "{function:?}({x})"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_gate_is_a_product() {
        for device in cpus() {
            let gate = inputs(&device, DType::F32);
            let x = gate.clone().flip([1]);
            for function in ALL {
                let product = |[gate, x]: [Tensor<2>; 2]| activate(function, gate) * x;
                let gated = |[gate, x]: [Tensor<2>; 2]| activate_gated(function, gate, x);
                let both = [gate.clone(), x.clone()];
                assert_eq!(numbers(gated(both.clone())), numbers(product(both.clone())));
                let expected = gradient(both.clone(), product);
                for (got, expected) in gradient(both, gated).iter().zip(&expected) {
                    for (got, expected) in got.iter().zip(expected) {
                        let close = (got - expected).abs() <= 1e-6 * expected.abs();
                        assert!(close, "{function:?}: {got}, expected {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_nan_stays_one() {
        for device in cpus() {
            let x = Tensor::<1>::from_floats([f32::NAN, 1.0], &device);
            for function in ALL {
                let got = numbers(activate(function, x.clone()));
                assert!(got[0].is_nan() && got[1].is_finite(), "{function:?}: {got:?}");
            }
        }
    }
}
