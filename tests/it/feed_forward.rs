//! The small parts of a layer against their formulas: activations, gates, norms.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_decoder::decoder::{Activation, FeedForwardConfig, NormConfig};

use crate::backends::is_cpu;
use crate::fixtures::{OUTPUT, Tolerance, assert_close};

/// f64 all the way: what stays is the rounding of f64.
const DOUBLE: Tolerance = Tolerance { absolute: 1e-12, relative: 1e-12 };

const X: [f64; 5] = [-3.0, -0.5, 0.0, 1.0, 2.5];

/// The functions at `X`, by the standard normal distribution function to 16 digits
/// (Φ(-3) = 0.0013498980316301, Φ(-0.5) = 0.3085375387259869, Φ(1) = 0.8413447460685429,
/// Φ(2.5) = 0.9937903346742238) and by the other formulas.
fn at_x(activation: Activation) -> [f64; 5] {
    let gelu =
        [-0.0040496940948903, -0.1542687693629935, 0.0, 0.8413447460685429, 2.4844758366855595];
    let tanh_gelu = X.map(|x| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        0.5 * x * (1.0 + inner.tanh())
    });
    let silu = X.map(|x| x / (1.0 + (-x).exp()));
    match activation {
        Activation::Relu => X.map(|x| x.max(0.0)),
        Activation::SquaredRelu => X.map(|x| x.max(0.0).powi(2)),
        Activation::Gelu | Activation::GeGlu => gelu,
        Activation::GeluTanh | Activation::GeGluTanh => tanh_gelu,
        Activation::Silu | Activation::SwiGlu => silu,
    }
}

const ALL: [Activation; 8] = [
    Activation::Relu,
    Activation::SquaredRelu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::SwiGlu,
    Activation::GeGlu,
    Activation::GeGluTanh,
];

/// `factor` times the identity.
fn diagonal(factor: f32, device: &Device) -> Linear {
    let weight = Tensor::<2>::eye(X.len(), device) * factor;
    Linear { weight: Param::from_tensor(weight), bias: None }
}

on_each_backend! {
    /// up = 3, gate = 1, down = 2: gated parts give 2 f(x) 3x, plain ones 2 f(x) with up = 1.
    fn activations_and_gates(device: Device) {
        for activation in ALL {
            let config = FeedForwardConfig::new(X.len(), X.len())
                .with_activation(activation)
                .with_biases(false);
            let mut part = config.init(&device).unwrap();
            assert_eq!(part.gate.is_some(), activation.is_gated());
            part.down = diagonal(2.0, &device);
            part.up = diagonal(if activation.is_gated() { 3.0 } else { 1.0 }, &device);
            part.gate = part.gate.map(|_| diagonal(1.0, &device));
            let x = Tensor::<3>::from_data(TensorData::from([[X]]).convert::<f32>(), &device);
            let f = at_x(activation);
            let expected: [f64; 5] = std::array::from_fn(|i| {
                2.0 * f[i] * if activation.is_gated() { 3.0 * X[i] } else { 1.0 }
            });
            let got = part.forward(x).into_data();
            let expected = TensorData::from([[expected]]);
            assert_close(&format!("{activation:?}"), got, expected, OUTPUT.on(&device));
        }
    }

    fn norms(device: Device) {
        let double = is_cpu(&device);
        let (dtype, tolerance) =
            if double { (DType::F64, DOUBLE) } else { (DType::F32, OUTPUT.on(&device)) };
        let n = X.len() as f64;
        let mean = X.iter().sum::<f64>() / n;
        let variance = X.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let mean_square = X.iter().map(|x| x * x).sum::<f64>() / n;
        for (config, expected) in [
            (NormConfig::layer_norm(), X.map(|x| (x - mean) / (variance + 1e-5).sqrt())),
            (NormConfig::rms_norm(), X.map(|x| x / (mean_square + 1e-6).sqrt())),
        ] {
            use burn::module::Module;
            let norm = config.init(X.len(), &device).unwrap();
            let norm = norm.map(&mut Cast(dtype));
            let x = Tensor::<2>::from_data(TensorData::from([X, X]), (&device, dtype));
            let got = norm.forward(x).into_data();
            let expected = TensorData::from([expected, expected]);
            assert_close(&config.to_string(), got, expected, tolerance);
        }
    }
}

/// Parameters in another precision.
struct Cast(DType);

impl burn::module::ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
