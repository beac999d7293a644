//! The gradient of every option of a layer, against finite differences in f64.
//!
//! Along random directions `d` of all parameters and inputs together, the slope
//! `(f(θ + ε d) - f(θ - ε d)) / 2ε` is compared with the product of `d` and the gradient. One wrong
//! entry of one gradient moves it.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use burn_decoder::attention::{
    AttentionSinks, HeadMapping, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig,
    RotaryLayout, RotaryScaling,
};
use burn_decoder::decoder::{
    Activation, Batch, Decoder, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, NormConfig,
    NormPlacement, Request, ResidualLayout,
};
use burn_decoder::mask::Mask;

use crate::backends::is_cpu;

const D_MODEL: usize = 12;
const BATCH: usize = 2;
const QUERIES: usize = 5;
const KEYS: usize = 7;

/// Half the step of a difference. Its error is about `EPSILON²` times the third derivative (1e4 and
/// more for a norm of small values) from curvature, and `1e-15 / EPSILON` from rounding.
const EPSILON: f64 = 1e-6;

/// Allowed difference, relative to the slope where that is above 1.
const TOLERANCE: f64 = 1e-7;

/// Every option at least once.
fn configs() -> Vec<(&'static str, DecoderConfig)> {
    use Activation::*;
    let attention = |heads| MultiHeadAttentionConfig::new(D_MODEL, heads);
    let layer = |activation| {
        DecoderLayerConfig::new(
            attention(3),
            FeedForwardConfig::new(D_MODEL, 19).with_activation(activation),
        )
    };
    let with_attention = |attention| {
        let mut layer = layer(Gelu);
        layer.self_attention = attention;
        layer
    };
    let unit_offset = NormConfig::RmsNorm { epsilon: 1e-3, unit_offset: true };
    let layers = [
        // ReLU alone has kinks; a difference across one is no slope. Its gradient is PyTorch's.
        ("squared ReLU", layer(SquaredRelu)),
        ("GELU", layer(Gelu)),
        ("tanh GELU", layer(GeluTanh)),
        ("SiLU", layer(Silu)),
        ("SwiGLU", layer(SwiGlu)),
        ("GeGLU", layer(GeGlu)),
        ("tanh GeGLU", layer(GeGluTanh)),
        ("post", layer(Gelu).with_norm_placement(NormPlacement::Post)),
        ("output", layer(Gelu).with_norm_placement(NormPlacement::Output)),
        ("sandwich", layer(Gelu).with_norm_placement(NormPlacement::Sandwich)),
        ("RMSNorm", layer(Gelu).with_norm(NormConfig::rms_norm())),
        ("no shift", layer(Gelu).with_norm(NormConfig::LayerNorm { epsilon: 1e-3, bias: false })),
        ("parallel", layer(Gelu).with_residual_layout(ResidualLayout::Parallel)),
        (
            "parallel, one norm",
            layer(Gelu).with_residual_layout(ResidualLayout::ParallelSharedNorm),
        ),
        ("cross", layer(Gelu).with_cross_attention(Some(attention(2)))),
        (
            "cross, sandwich",
            layer(Gelu)
                .with_cross_attention(Some(attention(2)))
                .with_norm_placement(NormPlacement::Sandwich),
        ),
        ("grouped heads", with_attention(attention(6).with_kv_heads(Some(2)))),
        ("one key head", with_attention(attention(4).with_kv_heads(Some(1)))),
        (
            "interleaved head mapping",
            with_attention(
                attention(6).with_kv_heads(Some(2)).with_head_mapping(HeadMapping::Interleaved),
            ),
        ),
        ("rotary", with_attention(attention(3).with_rotary(Some(RotaryConfig::new())))),
        (
            "rotary on neighbours, in part, scaled",
            with_attention(
                attention(2).with_rotary(Some(
                    RotaryConfig::new()
                        .with_dim(Some(4))
                        .with_layout(RotaryLayout::Interleaved)
                        .with_scaling(Some(RotaryScaling::Linear { factor: 2.0 })),
                )),
            ),
        ),
        ("ALiBi", with_attention(attention(3).with_alibi(true))),
        (
            "norms of queries and keys",
            with_attention(attention(3).with_qk_norm(Some(QkNormConfig::new(unit_offset)))),
        ),
        (
            "norms across heads, rotary",
            with_attention(
                attention(6)
                    .with_kv_heads(Some(2))
                    .with_rotary(Some(RotaryConfig::new()))
                    .with_qk_norm(Some(
                        QkNormConfig::new(NormConfig::layer_norm()).with_across_heads(true),
                    )),
            ),
        ),
        ("quiet softmax", with_attention(attention(3).with_sinks(AttentionSinks::Quiet))),
        ("learned sinks", with_attention(attention(3).with_sinks(AttentionSinks::Learned))),
        ("RMSNorm, 1 + gamma", layer(Gelu).with_norm(unit_offset)),
        (
            "biases here and there",
            DecoderLayerConfig {
                feed_forward: FeedForwardConfig::new(D_MODEL, 19)
                    .with_activation(SwiGlu)
                    .with_up_bias(false),
                ..layer(Gelu)
            },
        ),
        ("head_dim", with_attention(attention(3).with_head_dim(Some(5)))),
        ("no biases", with_attention(attention(3).with_biases(false))),
        (
            "scale, softcap",
            with_attention(attention(3).with_scale(Some(0.7)).with_softcap(Some(0.9))),
        ),
    ];
    let mut configs: Vec<_> =
        layers.into_iter().map(|(name, layer)| (name, DecoderConfig::new(layer, 2))).collect();
    configs.push(("windows", DecoderConfig::new(layer(Gelu), 2).with_windows(vec![Some(2), None])));
    let rotaries = vec![Some(RotaryConfig::new().with_base(100.0)), None];
    configs.push(("rotaries", DecoderConfig::new(layer(Gelu), 2).with_rotaries(rotaries)));
    configs
}

/// A decoder with its inputs, in f64.
struct Point {
    decoder: Decoder,
    x: Tensor<3>,
    memory: Tensor<3>,
}

impl Point {
    fn new(config: &DecoderConfig, device: &Device) -> Self {
        let numbers = |shape: [usize; 3], step: f64| {
            let values: Vec<f64> =
                (0..shape.iter().product()).map(|i: usize| (i as f64 * step).sin()).collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), (device, DType::F64))
        };
        Self {
            decoder: config.init(device).unwrap().map(&mut Widen),
            x: numbers([BATCH, QUERIES, D_MODEL], 0.7),
            memory: numbers([BATCH, KEYS, D_MODEL], 0.9),
        }
    }

    /// The weighted sum of all outputs.
    fn value(&self) -> Tensor<1> {
        // Look-ahead with the last row padded in front, and a memory of which the first row sees 4.
        let mut batch = Batch::new().with_mask(Mask::pad_counts([0, 2]));
        if self.decoder.layers[0].cross_attention.is_some() {
            batch = batch.with_memory(self.memory.clone(), Mask::lengths([4, KEYS]));
        }
        let output = self.decoder.forward(self.x.clone(), &batch, &Request::new()).unwrap().output;
        let weights: Vec<f64> =
            (0..BATCH * QUERIES * D_MODEL).map(|i| (i as f64 * 1.3).cos()).collect();
        let weights = TensorData::new(weights, output.dims());
        let weights = Tensor::<3>::from_data(weights, (&output.device(), DType::F64));
        (output * weights).sum()
    }

    /// The point moved by `step` along direction `seed`.
    fn moved(&self, seed: u64, step: f64) -> Self {
        let mut along = Along { direction: Direction(seed), step };
        let x = along.moved(self.x.clone());
        let memory = along.moved(self.memory.clone());
        Self { decoder: self.decoder.clone().map(&mut along), x, memory }
    }

    /// The slope along direction `seed`, by the gradient.
    fn slope(&self, seed: u64) -> f64 {
        let point = Self {
            decoder: self.decoder.clone().train(),
            x: self.x.clone().autodiff().require_grad(),
            memory: self.memory.clone().autodiff().require_grad(),
        };
        let gradients = point.value().backward();
        let mut dot = Dot { direction: Direction(seed), gradients: &gradients, sum: 0.0 };
        dot.add(&point.x);
        dot.add(&point.memory);
        point.decoder.visit(&mut dot);
        dot.sum
    }
}

/// Numbers between -1 and 1, one after the other; the same ones for the same seed.
#[derive(Clone)]
struct Direction(u64);

impl Direction {
    fn next(&mut self, count: usize) -> Vec<f64> {
        let mut number = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        (0..count).map(|_| number()).collect()
    }
}

struct Along {
    direction: Direction,
    step: f64,
}

impl Along {
    fn moved<const D: usize>(&mut self, tensor: Tensor<D>) -> Tensor<D> {
        let direction = self.direction.next(tensor.shape().num_elements());
        let direction = TensorData::new(direction, tensor.dims());
        tensor.clone() + Tensor::from_data(direction, (&tensor.device(), DType::F64)) * self.step
    }
}

impl ModuleMapper for Along {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| self.moved(tensor))
    }
}

struct Dot<'a> {
    direction: Direction,
    gradients: &'a Gradients,
    sum: f64,
}

impl Dot<'_> {
    fn add<const D: usize>(&mut self, tensor: &Tensor<D>) {
        let direction = self.direction.next(tensor.shape().num_elements());
        // A memory that no layer looks at has no gradient.
        if let Some(gradient) = tensor.grad(self.gradients) {
            let gradient = gradient.into_data();
            assert_eq!(gradient.dtype(), DType::F64);
            self.sum += gradient.iter::<f64>().zip(direction).map(|(a, b)| a * b).sum::<f64>();
        }
    }
}

impl ModuleVisitor for Dot<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(&param.val());
    }
}

/// Parameters in f64.
struct Widen;

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(DType::F64))
    }
}

on_each_backend! {
    fn gradients_are_slopes(device: Device) {
        if !is_cpu(&device) {
            return; // No f64 in WGSL.
        }
        device.seed(7);
        for (name, config) in configs() {
            let point = Point::new(&config, &device);
            for seed in 1..4 {
                let value = |step| point.moved(seed, step).value().into_scalar::<f64>();
                let expected = (value(EPSILON) - value(-EPSILON)) / (2.0 * EPSILON);
                let got = point.slope(seed);
                let difference = (got - expected).abs() / expected.abs().max(1.0);
                assert!(difference < TOLERANCE, "{name}: {got}, expected {expected}");
            }
        }
    }
}
