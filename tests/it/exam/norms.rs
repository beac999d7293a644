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

/// Blocks of positions rounded to 8 bits, one scale a feature and block; what belongs to no complete
/// block stays as it is.
fn quantised_blocks(x: Tensor<3>) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let blocks = length / BLOCK;
    if blocks == 0 {
        return x;
    }
    let whole = x.clone().narrow(1, 0, blocks * BLOCK);
    let whole = whole.reshape([batch * blocks, BLOCK, width]); // [batch * blocks, block, width]
    let largest = whole.clone().abs().max_dim(1);
    let whole = quantised(whole, largest).reshape([batch, blocks * BLOCK, width]); // [batch, whole, width]
    match length - blocks * BLOCK {
        0 => whole,
        rest => Tensor::cat(vec![whole, x.narrow(1, blocks * BLOCK, rest)], 1),
    }
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
        Form::new(
            "keys in 8 bits, one scale for a block of positions",
            // Of a single key the softmax is 1.
            |_| First::Cell(1, 2),
            |_| WithinBlocks { keys: BLOCK },
            |s| {
                let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
                Subject::embedded(move |x| {
                    let [queries, keys, values] = layer.parts(&x);
                    layer.over(x, [queries, quantised_blocks(keys), values], &mask)
                })
            },
        ),
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
        ("keys in 8 bits once their block is complete", |s| {
            let layer = Attention::new(s, 1, 2);
            Subject::embedded(move |x| {
                let [queries, keys, values] = layer.parts(&x);
                step_by_step(&x, |i, x| {
                    let none = hidden([1, i + 1], &x.device(), |_, _| false);
                    let [keys, values] =
                        [&keys, &values].map(|all| all.clone().narrow(1, 0, i + 1));
                    let queries = queries.clone().narrow(1, i, 1);
                    layer.over(x, [queries, quantised_blocks(keys), values], &none)
                })
            })
        }),
        ("a scale of 8 bits for each position", |s| {
            before_attention(s, |x| quantised(x.clone(), x.abs().max_dim(2)))
        }),
    ]
}
