//! Layers over the axis of positions: transforms, and perceptrons.

use burn::tensor::Tensor;
use burn::tensor::activation::gelu;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// `x` plus positions mixed by fixed weights.
fn mixed(setup: &Setup, mixing: Tensor<3>) -> Subject {
    let inner = setup.square(81);
    Subject::embedded(move |x| x.clone() + mix(&mixing, &project(&x, &inner)))
}

/// The real part of a Fourier transform over positions and features: `cos cos - sin sin`.
fn fourier(setup: &Setup) -> Subject {
    let table = |size: usize, of: fn(f64) -> f64| {
        let setup = Setup { length: size, ..setup.clone() };
        setup.mixing(|a, b| of(std::f64::consts::TAU * (a * b) as f64 / size as f64) as f32)
    };
    let (n, width) = (setup.length, setup.width);
    let [of_cos, of_sin] = [f64::cos, f64::sin].map(|of| (table(n, of), table(width, of)));
    let scale = ((n * width) as f64).sqrt().recip();
    Subject::embedded(move |x| {
        let [real, imaginary] = [&of_cos, &of_sin].map(|(over_time, over_width)| {
            let [batch, _, width] = x.dims();
            mix(over_time, &x).matmul(over_width.clone().expand([batch, width, width]))
        });
        x.clone() + (real - imaginary) * scale
    })
}

/// A perceptron over positions, for each feature by itself.
fn mixer(setup: &Setup, is_open: impl Fn(usize, usize) -> bool + Copy) -> Subject {
    let (up, down) = (setup.random_mixing(82, is_open), setup.random_mixing(83, is_open));
    Subject::embedded(move |x| x.clone() + mix(&down, &gelu(mix(&up, &x))))
}

/// Half of the features, mixed over positions, gate the others.
fn spatial_gate(setup: &Setup, is_open: impl Fn(usize, usize) -> bool) -> Subject {
    let mixing = setup.random_mixing(84, is_open);
    let (value, gate, output) = (setup.square(85), setup.square(86), setup.square(87));
    Subject::embedded(move |x| {
        let gate = mix(&mixing, &project(&x, &gate)) + 1.0;
        x.clone() + project(&(project(&x, &value) * gate), &output)
    })
}

/// A convolution as long as the sequence, its lags counted on a circle of `around` positions.
fn long_convolution(setup: &Setup, around: usize) -> Subject {
    let n = setup.length;
    let lags = setup.random_mixing(88, |_, _| true).into_data().try_to_vec::<f32>().unwrap();
    mixed(
        setup,
        setup.mixing(|to, from| {
            let lag = (to + around - from) % around;
            if lag < n { lags[lag] } else { 0.0 }
        }),
    )
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, cause, build| Form::new(name, |_| First::Cell(0, 1), cause, build);
    vec![
        form("Fourier mixing", |_| PositionsMixed, fourier),
        form("perceptron over positions", |_| PositionsMixed, |s| mixer(s, |_, _| true)),
        form("spatial gate", |_| PositionsMixed, |s| spatial_gate(s, |_, _| true)),
        form("long convolution on a circle", |_| PositionsMixed, |s| long_convolution(s, s.length)),
        form(
            "spatial gate, transposed",
            |_| ReversedScan,
            |s| spatial_gate(s, |to, from| from >= to),
        ),
        form(
            "mean of the sequence",
            |_| SequenceStatistics,
            |s| {
                let share = 1.0 / s.length as f32;
                mixed(s, s.mixing(|_, _| share))
            },
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("a triangular perceptron over positions", |s| mixer(s, |to, from| from <= to)),
        ("a triangular spatial gate", |s| spatial_gate(s, |to, from| from <= to)),
        ("a long convolution, padded", |s| long_convolution(s, 2 * s.length)),
        ("a mean of the past", |s| {
            mixed(s, s.mixing(|to, from| if from <= to { 1.0 / (to + 1) as f32 } else { 0.0 }))
        }),
    ]
}
