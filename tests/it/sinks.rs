//! Learned sinks: a score for each head that takes weight and gives nothing.
//!
//! That outputs and gradients agree with plain loops, on every kernel, is tested in `attention` and
//! `fused`; here stands what a user is promised.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_decoder::attention::{
    AttentionOutput, Kernel, Request, Score, scaled_dot_product_attention,
};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

use crate::backends::{is_cpu, tolerance_factor};
use crate::fixtures::to_f64;
use crate::naive::Array;

const HEADS: usize = 3;
const WIDTH: usize = 5;

/// Rounding of f32 sums of a few hundred terms of order one.
const TOLERANCE: f64 = 2e-6;

/// The kernels that know sinks.
const KERNELS: [Kernel; 2] = [Kernel::Reference, Kernel::Fused];

fn random(rows: usize, heads: usize, seed: u64, device: &Device) -> Tensor<4> {
    let array = Array::random([2, heads, rows, WIDTH], seed);
    Tensor::from_data(TensorData::new(array.values, array.shape), (device, DType::F32))
}

/// Attention of 3 heads over one head of keys and values.
fn attend(
    mask: &LoweredMask,
    score: &Score,
    request: Request,
    device: &Device,
) -> AttentionOutput<4> {
    let (queries, keys) = (mask.grid().queries(), mask.grid().keys());
    scaled_dot_product_attention(
        random(queries, HEADS, 1, device),
        random(keys, 1, 2, device),
        random(keys, 1, 3, device),
        mask,
        score,
        &request,
    )
}

fn sinks(values: [f32; HEADS], device: &Device) -> Tensor<1> {
    Tensor::from_data(values, device)
}

fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what} [{at}]: {got}, expected {expected}");
    }
}

on_each_backend! {
    /// A sink of score s turns weights that sum to 1 into weights times `1 / (1 + exp(s - l))`, with
    /// the logarithm l of the row's sum; so it does the output. One query, a few and many keys, since
    /// kernels take different ways there.
    fn a_sink_takes_its_share(device: Device) {
        let tolerance = TOLERANCE * tolerance_factor(&device);
        for (queries, keys) in [(1, 2), (2, 1300), (17, 19), (131, 131)] {
            let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, queries, keys)).unwrap();
            let values = [0.0, 1.5, -30.0];
            let with = || Score::new().with_sinks(sinks(values, &device));
            let plain = attend(&mask, &Score::new(), Request::new().with_weights(true), &device);
            let sunk = attend(&mask, &with(), Request::new().with_weights(true), &device);
            let [plain_out, plain_weights, sunk_weights] =
                [plain.output, plain.weights.unwrap(), sunk.weights.unwrap()]
                    .map(|x| to_f64(x.into_data()));
            // exp(score) of every cell, from the scores themselves
            let scores = random(queries, HEADS, 1, &device)
                .matmul(random(keys, 1, 2, &device).swap_dims(2, 3))
                / (WIDTH as f64).sqrt();
            let scores = to_f64(scores.into_data());
            let mut expected = plain_out;
            for row in 0..2 * HEADS * queries {
                let cells = row * keys..(row + 1) * keys;
                let sum: f64 = cells
                    .clone()
                    .filter(|&cell| plain_weights[cell] > 0.0)
                    .map(|cell| scores[cell].exp())
                    .sum();
                let sink = f64::from(values[row / queries % HEADS]).exp();
                let share = sum / (sum + sink);
                let got: f64 = sunk_weights[cells].iter().sum();
                assert_close("sum of the weights", &[got], &[share], 2.0 * tolerance);
                expected[row * WIDTH..][..WIDTH].iter_mut().for_each(|x| *x *= share);
            }
            for kernel in KERNELS {
                let output = attend(&mask, &with(), Request::new().with_kernel(kernel), &device).output;
                let what = format!("{queries} queries, {keys} keys, {kernel:?}");
                assert_close(&what, &to_f64(output.into_data()), &expected, 2.0 * tolerance);
            }
        }
    }

    fn a_sink_of_minus_infinity_is_none(device: Device) {
        if !is_cpu(&device) {
            return; // WGSL may assume that there are no infinities.
        }
        let none = [f32::NEG_INFINITY; HEADS];
        for (queries, keys) in [(1, 7), (37, 41)] {
            let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, queries, keys)).unwrap();
            for kernel in KERNELS {
                let request = Request::new().with_kernel(kernel);
                let plain = attend(&mask, &Score::new(), request, &device).output;
                let score = Score::new().with_sinks(sinks(none, &device));
                let sunk = attend(&mask, &score, request, &device).output;
                let [got, expected] = [sunk, plain].map(|x| to_f64(x.into_data()));
                assert_close(&format!("{kernel:?}"), &got, &expected, TOLERANCE);
            }
        }
    }

    /// A query that sees no key stays exactly 0, whatever its sink says, and moves no sink.
    fn a_dead_row_stays_dead(device: Device) {
        for (queries, keys) in [(2, 7), (37, 41)] {
            // The second batch row is all padding.
            let mask = Mask::lengths([keys, 0]).lower(&Grid::bottom_right(2, queries, keys)).unwrap();
            let all_dead = Mask::lengths([0, 0]).lower(&Grid::bottom_right(2, queries, keys)).unwrap();
            for kernel in KERNELS {
                for values in [[0.0; HEADS], [50.0; HEADS], [-50.0; HEADS]] {
                    let run = |mask: &LoweredMask| {
                        let track = |x: Tensor<4>| x.autodiff().require_grad();
                        let query = track(random(queries, HEADS, 1, &device));
                        let sinks = sinks(values, &device).autodiff().require_grad();
                        let score = Score::new().with_sinks(sinks.clone());
                        let output = scaled_dot_product_attention(
                            query.clone(),
                            track(random(keys, 1, 2, &device)),
                            track(random(keys, 1, 3, &device)),
                            mask,
                            &score,
                            &Request::new().with_kernel(kernel),
                        )
                        .output;
                        let gradients = output.clone().sum().backward();
                        [
                            to_f64(output.into_data()),
                            to_f64(query.grad(&gradients).unwrap().into_data()),
                            to_f64(sinks.grad(&gradients).unwrap().into_data()),
                        ]
                    };
                    let what = format!("{kernel:?}, {queries} queries, sinks {values:?}");
                    let [output, d_query, _] = run(&mask);
                    let half = output.len() / 2;
                    assert!(output[..half].iter().any(|&x| x != 0.0), "{what}");
                    assert!(output[half..].iter().all(|&x| x == 0.0), "{what}");
                    assert!(d_query[half..].iter().all(|&x| x == 0.0), "{what}");
                    for got in run(&all_dead) {
                        assert!(got.iter().all(|&x| x == 0.0), "{what}: {got:?}");
                    }
                }
            }
        }
    }
}
