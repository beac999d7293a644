//! The fused kernel as an operation of Burn: against the reference kernel, and its own promises.
//!
//! What all kernels promise is tested for each of them in `attention`.

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use burn_decoder::attention::{
    Alibi, Kernel, MultiHeadAttentionConfig, Request, Score, scaled_dot_product_attention,
};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use proptest::prelude::*;

use crate::fixtures::{Fixtures, GRADIENT, OUTPUT, assert_close, to_f64};

/// Runs the same test on each CPU backend.
macro_rules! on_each_cpu {
    ($( $(#[$attribute:meta])* fn $name:ident($device:ident: Device) $body:block )*) => {
        $(
            mod $name {
                #[allow(unused_imports)]
                use super::*;

                fn run($device: Device) $body

                #[cfg(feature = "ndarray")]
                $(#[$attribute])*
                #[test]
                fn ndarray() {
                    run(Device::ndarray());
                }

                #[cfg(feature = "flex")]
                $(#[$attribute])*
                #[test]
                fn flex() {
                    run(Device::flex());
                }
            }
        )*
    };
}

/// Output and gradients of query, key and value.
type Results = Vec<Vec<f64>>;

/// Query, key, value, and the gradient that arrives at the output.
type Inputs = [Tensor<4>; 4];

fn inputs(
    [batch, heads, kv_heads, queries, keys, head_dim, value_dim]: [usize; 7],
    device: &Device,
    dtype: DType,
) -> Inputs {
    [
        [batch, heads, queries, head_dim],
        [batch, kv_heads, keys, head_dim],
        [batch, kv_heads, keys, value_dim],
        [batch, heads, queries, value_dim],
    ]
    .map(|shape| Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype)))
}

/// Forward and backward, the tensors tracked on the autodiff device that `track` makes.
fn train_on(
    inputs: &Inputs,
    mask: &LoweredMask,
    score: &Score,
    request: &Request,
    track: impl Fn(&Tensor<4>) -> Tensor<4>,
) -> Results {
    let [q, k, v] = [0, 1, 2].map(|i| track(&inputs[i]));
    let bias = score.bias.as_ref().map(&track);
    // a sink a head, tracked as the other tensors are
    let sinks = score.sinks.as_ref().map(|sinks| track(&sinks.clone().unsqueeze()));
    let score = score
        .clone()
        .with_bias(bias.clone())
        .with_sinks(sinks.clone().map(|sinks| sinks.flatten::<1>(0, 3)));
    let output =
        scaled_dot_product_attention(q.clone(), k.clone(), v.clone(), mask, &score, request).output;
    let gradients = (output.clone() * inputs[3].clone().autodiff()).sum().backward();
    let gradient = |x: &Tensor<4>| to_f64(x.grad(&gradients).expect("a gradient").into_data());
    let mut results = vec![to_f64(output.into_data())];
    results.extend([&q, &k, &v].map(gradient));
    results.extend(bias.as_ref().map(gradient));
    results.extend(sinks.as_ref().map(gradient));
    results
}

fn train(inputs: &Inputs, mask: &LoweredMask, request: &Request) -> Results {
    train_scored(inputs, mask, &Score::new(), request)
}

fn train_scored(inputs: &Inputs, mask: &LoweredMask, score: &Score, request: &Request) -> Results {
    train_on(inputs, mask, score, request, |x| x.clone().autodiff().require_grad())
}

fn fused() -> Request {
    Request::new().with_kernel(Kernel::Fused)
}

fn causal(batch: usize, length: usize) -> LoweredMask {
    Mask::look_ahead().lower(&Grid::square(batch, length)).unwrap()
}

const NAMES: [&str; 6] = ["output", "d_query", "d_key", "d_value", "d_bias or d_sinks", "d_sinks"];

/// Differences up to `forward` of the output's largest entry, and up to `backward` of the largest
/// entry of all gradients: one alone may be 0 but for rounding, as that of a bias that is the same
/// for all keys.
fn assert_same(got: &Results, expected: &Results, forward: f64, backward: f64, what: &str) {
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let gradients = expected[1..].iter().fold(0.0f64, |m, values| m.max(largest(values)));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = if i == 0 { forward * largest(expected) } else { backward * gradients };
        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!(
                (got - expected).abs() <= allowed,
                "{what}: {} [{at}] is {got}, expected {expected}; allowed {allowed:e}",
                NAMES[i]
            );
        }
    }
}

/// What a request is made of, at random.
#[derive(Clone, Debug)]
struct Case {
    sizes: [usize; 7],
    mask: u8,
    dense: bool,
    padding: bool,
    bias: Option<[bool; 4]>,
    alibi: bool,
    sinks: bool,
    softcap: Option<f64>,
    scale: Option<f64>,
    dropout: Option<(f64, u64)>,
}

impl Case {
    fn check(&self, device: &Device, dtype: DType, forward: f64, backward: f64) {
        let [batch, heads, _, queries, keys, ..] = self.sizes;
        device.seed(7);
        let inputs = inputs(self.sizes, device, dtype);
        let mask = self.mask(device);
        let mut score = Score::new().with_softcap(self.softcap).with_scale(self.scale);
        if let Some(broadcast) = self.bias {
            let mut shape = [batch, heads, queries, keys];
            for (axis, one) in shape.iter_mut().zip(broadcast) {
                *axis = if one { 1 } else { *axis };
            }
            let bias = Tensor::random(shape, Distribution::Default, (device, dtype));
            score = score.with_bias(bias);
        }
        if self.alibi {
            score = score.with_alibi(Alibi::new(heads));
        }
        if self.sinks {
            let sinks = Distribution::Normal(0.0, 2.0);
            score = score.with_sinks(Tensor::random([heads], sinks, (device, dtype)));
        }
        if let Some((probability, seed)) = self.dropout {
            score = score.with_dropout(probability).with_dropout_seed(seed);
        }
        let expected =
            train_scored(&inputs, &mask, &score, &Request::new().with_kernel(Kernel::Reference));
        let got = train_scored(&inputs, &mask, &score, &fused());
        assert_same(&got, &expected, forward, backward, &format!("{self:?}"));
    }

    fn mask(&self, device: &Device) -> LoweredMask {
        let [batch, heads, _, queries, keys, ..] = self.sizes;
        let mut mask = match self.mask {
            0 => Mask::all_visible(),
            1 => Mask::look_ahead(),
            2 => Mask::look_ahead() & Mask::window_keys(5).unwrap(),
            _ => Mask::look_ahead() | Mask::prefix(3),
        };
        if self.padding {
            mask = mask & Mask::lengths((0..batch).map(|b| keys.saturating_sub(2 * b)));
        }
        if self.dense {
            let random: Tensor<4> =
                Tensor::random([1, heads, queries, keys], Distribution::Default, device);
            mask = mask & Mask::from_hidden(&random.lower_scalar(0.3)).unwrap();
        }
        mask.lower(&Grid::bottom_right(batch, queries, keys)).unwrap()
    }
}

fn requests(longest: usize) -> impl Strategy<Value = Case> {
    let sizes =
        (1..=2usize, 1..=2usize, 1..=3usize, 1..=longest, 1..=longest, 1..=19usize, 1..=19usize)
            .prop_map(|(batch, kv_heads, group, queries, keys, head_dim, value_dim)| {
                [batch, kv_heads * group, kv_heads, queries, keys, head_dim, value_dim]
            });
    let rules = (0..4u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let bias = proptest::option::of(any::<[bool; 4]>());
    let scores = (proptest::option::of(0.5..5.0), proptest::option::of(0.1..1.0));
    let dropout = proptest::option::of((0.05..0.9, any::<u64>()));
    (sizes, rules, bias, scores, dropout).prop_map(
        |(sizes, (mask, dense, padding, alibi, sinks), bias, (softcap, scale), dropout)| Case {
            sizes,
            mask,
            dense,
            padding,
            bias,
            alibi,
            sinks,
            softcap,
            scale,
            dropout,
        },
    )
}

fn cases(number: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(number) }
}

on_each_cpu! {
    fn agrees_with_the_reference(device: Device) {
        proptest!(cases(60), |(request in requests(40))| {
            request.check(&device, DType::F32, 2e-6, 1e-5);
        });
    }

    fn agrees_with_the_reference_in_f64(device: Device) {
        proptest!(cases(30), |(request in requests(20))| {
            request.check(&device, DType::F64, 1e-12, 1e-12);
        });
    }

    fn agrees_at_tile_edges(device: Device) {
        for length in [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257] {
            for (queries, keys) in [(length, length), (3, length), (length, 5)] {
                Case {
                    sizes: [1, 2, 1, queries, keys, 64, 64],
                    mask: 1,
                    dense: false,
                    padding: false,
                    bias: None,
                    alibi: false,
                    sinks: false,
                    softcap: None,
                    scale: None,
                    dropout: None,
                }
                .check(&device, DType::F32, 2e-6, 1e-5);
            }
        }
    }

    fn gradients_are_differences(device: Device) {
        // Central differences in f64: the error is of the order step² + rounding / step = 1e-10.
        let step = 1e-5;
        let sizes = [1, 2, 1, 5, 7, 3, 2];
        let inputs = inputs(sizes, &device, DType::F64);
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(1, 5, 7)).unwrap();
        let bias = Tensor::random([1, 2, 1, 7], Distribution::Default, (&device, DType::F64));
        let score = Score::new()
            .with_bias(bias)
            .with_softcap(3.0)
            .with_alibi(Alibi::new(2))
            .with_sinks(Tensor::from_data(TensorData::from([0.4, -0.7]), (&device, DType::F64)))
            .with_dropout(0.3)
            .with_dropout_seed(11);
        let results = train_scored(&inputs, &mask, &score, &fused());
        let loss = |inputs: &Inputs, score: &Score| {
            let [q, k, v, g] = inputs.clone().map(|x| x.autodiff());
            let score = score
                .clone()
                .with_bias(score.bias.clone().map(|x| x.autodiff()))
                .with_sinks(score.sinks.clone().map(|x| x.autodiff()));
            let output = scaled_dot_product_attention(q, k, v, &mask, &score, &fused()).output;
            (output * g).sum().into_scalar::<f64>()
        };
        for which in 0..5 {
            let base = match which {
                0..3 => inputs[which].clone(),
                3 => score.bias.clone().unwrap(),
                _ => score.sinks.clone().unwrap().unsqueeze(),
            };
            let data = to_f64(base.to_data());
            for at in 0..data.len() {
                let moved = |by: f64| {
                    let mut data = data.clone();
                    data[at] += by;
                    let data = TensorData::new(data, base.dims());
                    let moved = Tensor::<4>::from_data(data, (&device, DType::F64));
                    let (mut inputs, mut score) = (inputs.clone(), score.clone());
                    match which {
                        0..3 => inputs[which] = moved,
                        3 => score = score.with_bias(moved.autodiff()),
                        _ => score = score.with_sinks(moved.autodiff().flatten::<1>(0, 3)),
                    }
                    loss(&inputs, &score)
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let got = results[which + 1][at];
                let name = NAMES[which + 1];
                assert!((got - difference).abs() < 1e-8, "{name} [{at}]: {got}, {difference}");
            }
        }
    }

    fn training_and_inference_agree(device: Device) {
        let inputs = inputs([2, 3, 1, 17, 17, 8, 8], &device, DType::F32);
        let mask = causal(2, 17);
        let [q, k, v, _] = inputs.clone();
        let plain = scaled_dot_product_attention(q.clone(), k.clone(), v.clone(), &mask, &Score::new(), &fused());
        let plain = to_f64(plain.output.into_data());
        let trained = train(&inputs, &mask, &fused());
        assert_eq!(trained[0], plain);
        // An autodiff device, but nothing to track.
        let [q, k, v] = [q, k, v].map(|x| x.autodiff());
        let untracked = scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &fused());
        assert_eq!(to_f64(untracked.output.into_data()), plain);
        // What Auto picks.
        assert_eq!(train(&inputs, &mask, &Request::new()), trained);
    }

    fn threads_change_no_bit(device: Device) {
        let inputs = inputs([1, 1, 1, 300, 300, 32, 32], &device, DType::F32);
        let mask = causal(1, 300);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(&inputs, &mask, &fused()))
        };
        let one = with(1);
        assert_eq!(with(2), one);
        assert_eq!(with(3), one);
    }
}

on_each_backend! {
    fn nan_in_hidden_keys_reaches_nothing(device: Device) {
        let fixtures = Fixtures::open("sdpa.safetensors");
        let case = |name: &str| format!("extra_nan_hidden.{name}");
        let inputs = ["q", "k", "v", "g"].map(|name| fixtures.tensor(&case(name), &device));
        let [batch, _, queries, _] = inputs[0].dims();
        let keys = inputs[1].dims()[2];
        let mask = Mask::from_hidden(&fixtures.hidden::<4>(&case("hidden"), &device)).unwrap();
        let mask = mask.lower(&Grid::bottom_right(batch, queries, keys)).unwrap();
        let track = |x: &Tensor<4>| x.clone().autodiff().require_grad();
        let [q, k, v] = [0, 1, 2].map(|i| track(&inputs[i]));
        let output =
            scaled_dot_product_attention(q.clone(), k.clone(), v.clone(), &mask, &Score::new(), &fused()).output;
        let gradients = (output.clone() * inputs[3].clone().autodiff()).sum().backward();
        assert_close("out", output.into_data(), fixtures.data(&case("out")), OUTPUT.on(&device));
        for (name, x) in [("dq", q), ("dk", k), ("dv", v)] {
            let got = x.grad(&gradients).unwrap().into_data();
            assert_close(name, got, fixtures.data(&case(name)), GRADIENT.on(&device));
        }
    }

    /// NaN in padded tokens and in the future, through the projections of a layer: what precedes
    /// them has the same bits as without.
    fn nan_behind_the_mask_passes_no_layer(device: Device) {
        let layer = MultiHeadAttentionConfig::new(24, 3)
            .with_kv_heads(Some(1))
            .with_dropout(0.0)
            .init(&device)
            .unwrap();
        let (batch, length, seen) = (2, 37, 29);
        let x = Tensor::<3>::random([batch, length, 24], Distribution::Default, &device);
        let rest = [0..batch, seen..length, 0..24];
        let nan = Tensor::full([batch, length - seen, 24], f32::NAN, &device);
        let broken = x.clone().slice_assign(rest, nan);
        let run = |x: Tensor<3>, mask: Mask| {
            let mask = mask.lower(&Grid::square(batch, length)).unwrap();
            let output = layer.forward(x.clone(), x.clone(), x, &mask, &fused()).output;
            to_f64(output.slice([0..batch, 0..seen]).into_data())
        };
        let padded = Mask::lengths(vec![seen; batch]);
        for mask in [Mask::look_ahead(), padded.clone(), Mask::look_ahead() & padded] {
            let expected = run(x.clone(), mask.clone());
            assert!(expected.iter().all(|x| x.is_finite()));
            assert_eq!(run(broken.clone(), mask), expected);
        }
    }

    fn the_future_changes_no_bit(device: Device) {
        let length = 130;
        let [q, k, v, _] = inputs([1, 2, 2, length, length, 16, 16], &device, DType::F32);
        let mask = causal(1, length);
        let run = |k: Tensor<4>, v: Tensor<4>, upto: usize| {
            let output = scaled_dot_product_attention(q.clone(), k, v, &mask, &Score::new(), &fused()).output;
            to_f64(output.slice([0..1, 0..2, 0..upto]).into_data())
        };
        for seen in [1, 31, 63, 64, 65, 129] {
            let rest = [0..1, 0..2, seen..length, 0..16];
            let changed = |x: &Tensor<4>| {
                let tail = Tensor::random([1, 2, length - seen, 16], Distribution::Default, &device);
                x.clone().slice_assign(rest.clone(), tail * 1e3)
            };
            let expected = run(k.clone(), v.clone(), seen);
            assert_eq!(run(changed(&k), changed(&v), seen), expected, "{seen} tokens");
        }
    }

    fn views_are_read_as_they_lie(device: Device) {
        let tokens_first = |x: &Tensor<4>| {
            // Stored as [batch, tokens, heads, width], seen as [batch, heads, tokens, width].
            let stored = Tensor::<4>::from_data(x.clone().swap_dims(1, 2).into_data(), &device);
            stored.swap_dims(1, 2)
        };
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 19, 23)).unwrap();
        let plain = inputs([2, 4, 2, 19, 23, 8, 5], &device, DType::F32);
        let views = plain.each_ref().map(tokens_first);
        assert_eq!(train(&views, &mask, &fused()), train(&plain, &mask, &fused()));

        // Columns as rows, and a part of a larger tensor.
        let columns = plain.each_ref().map(|x| {
            Tensor::<4>::from_data(x.clone().swap_dims(2, 3).into_data(), &device).swap_dims(2, 3)
        });
        assert_eq!(train(&columns, &mask, &fused()), train(&plain, &mask, &fused()));
        let parts = plain.each_ref().map(|x| {
            let [batch, heads, rows, width] = x.dims();
            let larger = Tensor::cat(vec![x.clone(), x.clone()], 3);
            let larger = Tensor::cat(vec![larger.clone(), larger], 2);
            larger.slice([0..batch, 0..heads, rows..2 * rows, width..2 * width])
        });
        assert_eq!(train(&parts, &mask, &fused()), train(&plain, &mask, &fused()));
    }

    fn gradient_checkpointing_changes_no_bit(device: Device) {
        let inputs = inputs([1, 2, 2, 33, 33, 8, 8], &device, DType::F32);
        let mask = causal(1, 33);
        let thrifty = device.clone().autodiff().gradient_checkpointing();
        let run = |device: Device| {
            // From parameters through a cheap operation, which is computed again.
            let leaves = [0, 1, 2].map(|i| {
                Tensor::<4>::from_data(inputs[i].to_data(), &device).require_grad()
            });
            let [q, k, v] = leaves.each_ref().map(|x| x.clone() * 0.5);
            let output = scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &fused()).output;
            let gradients = (output.clone() * output).sum().backward();
            leaves.map(|x| to_f64(x.grad(&gradients).unwrap().into_data()))
        };
        assert_eq!(run(thrifty), run(device.autodiff()));
    }

    fn only_asked_gradients_are_computed(device: Device) {
        let all = inputs([1, 2, 2, 9, 9, 4, 4], &device, DType::F32);
        let mask = causal(1, 9);
        let expected = train(&all, &mask, &fused());
        for which in 0..3 {
            let mut tracked = [0, 1, 2].map(|i| all[i].clone().autodiff());
            tracked[which] = tracked[which].clone().require_grad();
            let [q, k, v] = tracked.clone();
            let output = scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &fused()).output;
            let gradients = (output * all[3].clone().autodiff()).sum().backward();
            for (i, x) in tracked.iter().enumerate() {
                let got = x.grad(&gradients).map(|x| to_f64(x.into_data()));
                assert_eq!(got, (i == which).then(|| expected[i + 1].clone()), "{i} of {which}");
            }
        }
    }

    fn an_expanded_gradient_is_read(device: Device) {
        // The gradient of a sum is one number, expanded.
        let [q, k, v, _] = inputs([2, 2, 2, 7, 7, 4, 4], &device, DType::F32);
        let ones = Tensor::ones([2, 2, 7, 4], &device);
        let expected = train(&[q.clone(), k.clone(), v.clone(), ones], &causal(2, 7), &fused());
        let leaf = q.autodiff().require_grad();
        let (k, v) = (k.autodiff(), v.autodiff());
        let output =
            scaled_dot_product_attention(leaf.clone(), k, v, &causal(2, 7), &Score::new(), &fused()).output;
        let gradients = output.sum().backward();
        assert_eq!(to_f64(leaf.grad(&gradients).unwrap().into_data()), expected[1]);
    }
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_is_computed_in_f32() {
    // Inputs of 8 or 11 bits, output and gradients rounded to them: one unit in the last place.
    let device = Device::flex();
    for (dtype, ulp) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
        let half = inputs([1, 2, 1, 33, 33, 16, 16], &device, dtype);
        let mask = causal(1, 33);
        let wide = half.each_ref().map(|x| x.clone().cast(DType::F32));
        let got = train(&half, &mask, &fused());
        assert_same(&got, &train(&wide, &mask, &fused()), ulp, 2.0 * ulp, &format!("{dtype:?}"));
    }
}
