//! Positions: counted from the start, or by a length that generation does not know.
//!
//! No changed token shows these leaks, since the length stays; prefixes alone do.

use burn::tensor::{Device, Tensor, TensorData};
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// `of(position, length, feature)`, as `[1, length, width]`.
fn table(
    length: usize,
    width: usize,
    device: &Device,
    of: impl Fn(usize, usize, usize) -> f32,
) -> Tensor<3> {
    let values = (0..length * width).map(|i| of(i / width, length, i % width)).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, [1, length, width]), device)
}

/// A causal layer over `x` and a number for each position and feature.
fn with_table(setup: &Setup, of: fn(usize, usize, usize) -> f32) -> Subject {
    let layer = Attention::new(setup, 1, 2);
    Subject::embedded(move |x| {
        let [_, length, width] = x.dims();
        let positions = table(length, width, &x.device(), of);
        layer.causal(x + positions)
    })
    .with_prefixes()
}

/// The features of each half, turned into each other by an angle that grows with the position.
fn rotated(x: Tensor<3>, angle: impl Fn(usize, usize) -> f32) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let half = width / 2;
    let device = x.device();
    let [cos, sin] = [f32::cos, f32::sin].map(|of: fn(f32) -> f32| {
        let speed = |feature: usize| 0.7f32.powi(feature as i32);
        table(length, half, &device, |position, length, feature| {
            of(angle(position, length) * speed(feature))
        })
        .expand([batch, length, half])
    });
    let (a, b) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let parts = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), a * sin + b * cos];
    Tensor::cat(parts, 2)
}

fn rotary(setup: &Setup, angle: fn(usize, usize) -> f32) -> Subject {
    let layer = Attention::new(setup, 1, 1);
    Subject::embedded(move |x| {
        let length = x.dims()[1];
        let mask = hidden([length, length], &x.device(), |query, key| key > query);
        let [queries, keys, values] = layer.parts(&x);
        layer.over(x, [rotated(queries, angle), rotated(keys, angle), values], &mask)
    })
    .with_prefixes()
}

/// Scores times a number that grows with the position, or with the length.
fn scaled_scores(setup: &Setup, by: fn(usize, usize) -> f32) -> Subject {
    let layer = Attention::new(setup, 1, 2);
    Subject::embedded(move |x| {
        let [batch, length, width] = x.dims();
        let mask = hidden([length, length], &x.device(), |query, key| key > query);
        let [queries, keys, values] = layer.parts(&x);
        let scale = table(length, 1, &x.device(), |position, length, _| by(position, length));
        let queries = queries * scale.expand([batch, length, width]);
        layer.over(x, [queries, keys, values], &mask)
    })
    .with_prefixes()
}

/// An entry of a learned table, by any place in it.
fn learned(place: usize, feature: usize) -> f32 {
    ((place * 31 + feature * 17) as f32 * 0.61).sin()
}

pub fn leaking() -> Vec<Form> {
    fn form(name: &'static str, first: fn(&Setup) -> First, build: fn(&Setup) -> Subject) -> Form {
        Form::new(name, first, |_| Diagnosis::LengthSeen, build)
    }
    // Where the first query sees itself alone, no score of it matters.
    vec![
        form(
            "learned positions from the right",
            |_| First::Cell(0, 1),
            |s| with_table(s, |position, length, feature| learned(length - 1 - position, feature)),
        ),
        form(
            "positions as a part of the length",
            |_| First::Cell(1, 2),
            |s| {
                with_table(s, |position, length, feature| {
                    (position as f32 / length as f32 * (feature + 1) as f32).sin()
                })
            },
        ),
        form(
            "rotary positions by length",
            |_| First::Cell(1, 2),
            |s| rotary(s, |position, length| position as f32 * 4.0 / length as f32),
        ),
        form(
            "scores scaled by the length",
            |_| First::Cell(1, 2),
            |s| scaled_scores(s, |_, length| (length as f32 + 1.0).ln()),
        ),
        form(
            "outputs scaled by the length",
            |_| First::Cell(0, 1),
            |s| {
                let layer = Attention::new(s, 1, 2);
                Subject::embedded(move |x| {
                    let length = x.dims()[1];
                    layer.causal(x) / (length as f32).sqrt()
                })
                .with_prefixes()
            },
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("learned positions", |s| with_table(s, |position, _, feature| learned(position, feature))),
        ("rotary positions", |s| rotary(s, |position, _| position as f32 * 0.4)),
        ("scores scaled by the position", |s| {
            scaled_scores(s, |position, _| (position as f32 + 2.0).ln())
        }),
    ]
}
