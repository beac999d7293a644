//! Norms, and other statistics, over the right axis and over the wrong one.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// `norm` before a causal attention.
fn before_attention(setup: &Setup, norm: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    Subject::embedded(move |x| layer.forward(norm(x), &mask))
}

/// `x` less its mean, over its standard deviation, along the axes.
fn standardised(x: Tensor<3>, axes: &[usize]) -> Tensor<3> {
    let mean = axes.iter().fold(x.clone(), |x, &axis| x.mean_dim(axis));
    let shape = x.dims();
    let x = x - mean.expand(shape);
    let square = axes.iter().fold(x.clone().powi_scalar(2), |x, &axis| x.mean_dim(axis));
    x / (square + 1e-5).sqrt().expand(shape)
}

/// Rounded to 8 bits by a scale.
fn quantised(x: Tensor<3>, largest: Tensor<3>) -> Tensor<3> {
    let scale = (largest / 127.0).expand(x.dims());
    (x / scale.clone()).round() * scale
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    fn statistic(name: &'static str, build: fn(&Setup) -> Subject) -> Form {
        Form::new(name, |_| First::Cell(0, 1), |_| SequenceStatistics, build)
    }
    fn of_batch(name: &'static str, build: fn(&Setup) -> Subject) -> Form {
        let first = |_: &Setup| First::Rows { row: 0, query: 0, by: |row, other| row != other };
        Form::new(name, first, |_| BatchStatistics, build)
    }
    vec![
        of_batch("batch norm in training", |s| before_attention(s, |x| standardised(x, &[0, 1]))),
        of_batch("one scale of 8 bits for the tensor", |s| {
            before_attention(s, |x| {
                let largest = [0, 1, 2].iter().fold(x.clone().abs(), |x, &axis| x.max_dim(axis));
                quantised(x, largest)
            })
        }),
        statistic("instance norm over time", |s| before_attention(s, |x| standardised(x, &[1]))),
        statistic("layer norm over time too", |s| {
            before_attention(s, |x| standardised(x, &[1, 2]))
        }),
        statistic("group norm over time", |s| {
            let half = s.width / 2;
            before_attention(s, move |x| {
                let groups =
                    [0, half].map(|at| standardised(x.clone().narrow(2, at, half), &[1, 2]));
                Tensor::cat(groups.to_vec(), 2)
            })
        }),
        statistic("root mean square over time", |s| {
            before_attention(s, |x| {
                let size = (x.clone().powi_scalar(2).mean_dim(1) + 1e-5).sqrt();
                x.clone() / size.expand(x.dims())
            })
        }),
        statistic("squeeze and excite over time", |s| {
            let gate = s.square(61);
            before_attention(s, move |x| {
                let open = sigmoid(project(&x.clone().mean_dim(1), &gate));
                x.clone() * open.expand(x.dims())
            })
        }),
        statistic("scaled by the largest and the smallest in time", |s| {
            before_attention(s, |x| {
                let (largest, smallest) = (x.clone().max_dim(1), x.clone().min_dim(1));
                let range = (largest - smallest.clone()).expand(x.dims());
                (x.clone() - smallest.expand(x.dims())) / range
            })
        }),
        statistic("one scale of 8 bits for the row", |s| {
            before_attention(s, |x| quantised(x.clone(), x.abs().max_dim(2).max_dim(1)))
        }),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("layer norm", |s| before_attention(s, |x| standardised(x, &[2]))),
        ("batch norm by kept statistics", |s| {
            let (mean, size) = (s.feature(62, -0.5, 0.5), s.feature(63, 0.5, 2.0));
            before_attention(s, move |x| (x - mean.clone()) / size.clone())
        }),
        ("a norm by running statistics", |s| {
            let past = s.mixing(|to, from| if from <= to { 1.0 / (to + 1) as f32 } else { 0.0 });
            before_attention(s, move |x| {
                let square = mix(&past, &x.clone().powi_scalar(2));
                x / (square + 1e-5).sqrt()
            })
        }),
        ("a scale of 8 bits for each position", |s| {
            before_attention(s, |x| quantised(x.clone(), x.abs().max_dim(2)))
        }),
    ]
}
