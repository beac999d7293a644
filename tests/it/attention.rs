//! Scaled dot-product attention: against PyTorch, against plain loops, and its promises.

use burn::tensor::{DType, Device, Distribution, FloatDType, Gradients, Tensor, TensorData};
use burn_decoder::attention::{
    Alibi, AttentionOptions, AttentionOutput, Kernel, scaled_dot_product_attention,
};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use proptest::prelude::*;

use crate::backends::is_cpu;
use crate::fixtures::{
    Fixtures, GRADIENT, LARGE_SCORE_GRADIENT, OUTPUT, Tolerance, assert_close, to_f64,
};
use crate::naive::{self, Array};

/// f64 against f64: only the order of sums differs.
const F64: Tolerance = Tolerance { absolute: 1e-12, relative: 1e-12 };

/// f16 holds 11 bits; inputs, output and nothing else are rounded to it.
const F16: Tolerance = Tolerance { absolute: 2e-3, relative: 2e-3 };

/// bf16 holds 8 bits.
const BF16: Tolerance = Tolerance { absolute: 2e-2, relative: 2e-2 };

/// The kernels that serve training on this device; all must pass the same tests. Elsewhere than on
/// CPUs, Auto is the reference.
fn training_kernels(device: &Device) -> Vec<Kernel> {
    let kernels = [Kernel::Auto, Kernel::Reference, Kernel::Fused];
    kernels[..if is_cpu(device) { 3 } else { 1 }].to_vec()
}

/// The kernels that serve a forward pass without weights on this device.
fn inference_kernels(device: &Device) -> Vec<Kernel> {
    let mut kernels = training_kernels(device);
    kernels.push(Kernel::Backend);
    kernels
}

/// Inputs of one attention, and the gradient that arrives at its output.
#[derive(Clone)]
struct Inputs {
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    upstream: Tensor<4>,
}

/// What came out: data on the host.
struct Results {
    output: Array,
    weights: Option<Array>,
    d_query: Array,
    d_key: Array,
    d_value: Array,
    d_bias: Option<Array>,
    d_sinks: Option<Array>,
}

fn array<const D: usize>(tensor: Tensor<D>) -> Array {
    let mut shape = [1; 4];
    shape[4 - D..].copy_from_slice(&tensor.dims());
    Array::new(shape, to_f64(tensor.into_data()))
}

fn tensor(array: &Array, device: &Device, dtype: DType) -> Tensor<4> {
    let data = TensorData::new(array.values.clone(), array.shape);
    Tensor::from_data(data, (device, dtype))
}

/// Forward and backward on the autodiff twin of the inputs' device.
fn train(inputs: &Inputs, mask: &LoweredMask, options: &AttentionOptions) -> Results {
    let track = |tensor: &Tensor<4>| tensor.clone().autodiff().require_grad();
    let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value].map(track);
    let bias = options.bias.as_ref().map(track);
    let sinks = options.sinks.clone().map(|sinks| sinks.autodiff().require_grad());
    let options = options.clone().with_bias(bias.clone()).with_sinks(sinks.clone());
    let AttentionOutput { output, weights } =
        scaled_dot_product_attention(query.clone(), key.clone(), value.clone(), mask, &options);
    let loss = (output.clone() * inputs.upstream.clone().autodiff()).sum();
    let gradients = loss.backward();
    let gradient = |tensor: &Tensor<4>, gradients: &Gradients| {
        array(tensor.grad(gradients).expect("a gradient reaches every input"))
    };
    Results {
        output: array(output),
        weights: weights.map(array),
        d_query: gradient(&query, &gradients),
        d_key: gradient(&key, &gradients),
        d_value: gradient(&value, &gradients),
        d_bias: bias.map(|bias| gradient(&bias, &gradients)),
        d_sinks: sinks.map(|sinks| array(sinks.grad(&gradients).expect("a gradient of the sinks"))),
    }
}

fn assert_arrays_close(what: &str, got: &Array, expected: &Array, tolerance: Tolerance) {
    let data = |array: &Array| TensorData::new(array.values.clone(), array.shape);
    assert_close(what, data(got), data(expected), tolerance);
}

/// Every cell index of `[a, b, c, d]`.
fn cells([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..a * b * c * d).map(move |i| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
}

/// Whatever is hidden is exactly 0: weights of hidden cells, output and query gradients of dead
/// rows, gradients of keys and values that no query sees. Not -0 or 1e-38: 0.
fn assert_hidden_is_zero(what: &str, results: &Results, hidden: &dyn Fn([usize; 4]) -> bool) {
    let [batch, heads, queries, _] = results.d_query.shape;
    let [_, kv_heads, keys, _] = results.d_key.shape;
    let zero_row = |name: &str, array: &Array, [b, h, row]: [usize; 3]| {
        for i in 0..array.shape[3] {
            let got = array.at([b, h, row, i]);
            assert!(got == 0.0, "{what}: {name} of batch {b}, head {h}, row {row} is {got:e}");
        }
    };
    for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
        for q in 0..queries {
            if (0..keys).all(|k| hidden([b, h, q, k])) {
                zero_row("output", &results.output, [b, h, q]);
                zero_row("query gradient", &results.d_query, [b, h, q]);
            }
            for k in (0..keys).filter(|&k| hidden([b, h, q, k])) {
                if let Some(weights) = &results.weights {
                    let got = weights.at([b, h, q, k]);
                    assert!(got == 0.0, "{what}: hidden weight [{b}, {h}, {q}, {k}] is {got:e}");
                }
            }
        }
    }
    let group = heads / kv_heads;
    for [b, kv, k, _] in cells([batch, kv_heads, keys, 1]) {
        let mut readers =
            (kv * group..(kv + 1) * group).flat_map(|h| (0..queries).map(move |q| [b, h, q, k]));
        if readers.all(hidden) {
            zero_row("key gradient", &results.d_key, [b, kv, k]);
            zero_row("value gradient", &results.d_value, [b, kv, k]);
        }
    }
}

// ---- PyTorch ---------------------------------------------------------------------------------

/// The mask that a case's name describes, as a rule; `None` where only the dense tensor says it.
fn rule(case: &str, fixtures: &Fixtures, keys: usize, device: &Device) -> Option<Mask> {
    let lengths = || -> Vec<usize> {
        fixtures.data(&format!("{case}.lengths")).iter::<i64>().map(|n| n as usize).collect()
    };
    if case == "dead_rows" || case == "per_head_mask" {
        return None;
    }
    let mut rule = Mask::all_visible();
    if case.contains("causal") || case.contains("window3") || case == "all_together" {
        rule = rule & Mask::look_ahead();
    }
    if case.contains("window3") {
        rule = rule & Mask::window_keys(3).unwrap();
    }
    if case.contains("packed") {
        rule = rule & Mask::document_ids(&fixtures.ints(&format!("{case}.segments"), device));
    }
    if case.contains("padding_left") {
        rule = rule & Mask::pad_counts(lengths().into_iter().map(|length| keys - length));
    } else if fixtures.find(&format!("{case}.lengths")).is_some() {
        rule = rule & Mask::lengths(lengths());
    }
    Some(rule)
}

/// The masks of one case: from its rule, and from the dense tensor.
fn masks(
    case: &str,
    fixtures: &Fixtures,
    [batch, queries, keys]: [usize; 3],
    device: &Device,
) -> Vec<(&'static str, LoweredMask)> {
    let grid = if case.contains("top_left") {
        Grid::top_left(batch, queries, keys)
    } else {
        Grid::bottom_right(batch, queries, keys)
    };
    let mut masks = Vec::new();
    if let Some(rule) = rule(case, fixtures, keys, device) {
        masks.push(("rule", rule.lower(&grid).unwrap()));
    }
    if fixtures.find(&format!("{case}.hidden")).is_some() {
        let hidden = fixtures.hidden::<4>(&format!("{case}.hidden"), device);
        masks.push(("dense", Mask::from_hidden(&hidden).unwrap().lower(&grid).unwrap()));
    }
    masks
}

/// Runs `check(case, mask's name, inputs, mask, options)` on every case but the one that only the
/// fused kernel promises.
fn for_each_case(
    device: &Device,
    mut check: impl FnMut(&str, &Fixtures, &str, &Inputs, &LoweredMask, AttentionOptions),
) {
    let fixtures = Fixtures::open("sdpa.safetensors");
    for case in fixtures.cases().iter().filter(|case| *case != "extra_nan_hidden") {
        let of = |name: &str| fixtures.tensor::<4>(&format!("{case}.{name}"), device);
        let inputs = Inputs { query: of("q"), key: of("k"), value: of("v"), upstream: of("g") };
        let [batch, _, queries, _] = inputs.query.dims();
        let keys = inputs.key.dims()[2];
        let number = |name: &str| {
            let name = format!("{case}.{name}");
            fixtures.find(&name).map(|_| fixtures.scalar(&name))
        };
        let bias = fixtures.find(&format!("{case}.bias")).map(|_| of("bias"));
        let options = AttentionOptions::new()
            .with_scale(number("scale"))
            .with_softcap(number("softcap"))
            .with_bias(bias);
        for (name, mask) in masks(case, &fixtures, [batch, queries, keys], device) {
            check(case, &fixtures, name, &inputs, &mask, options.clone());
        }
    }
}

on_each_backend! {
    fn agrees_with_pytorch_in_training(device: Device) {
        for_each_case(&device, |case, fixtures, mask_name, inputs, mask, options| {
            let expected =
                |name: &str| array::<4>(fixtures.tensor(&format!("{case}.{name}"), &device));
            let large = ["visible_below_minus_1e4", "hidden_above_1e4"].contains(&case);
            let gradient = if large { LARGE_SCORE_GRADIENT } else { GRADIENT }.on(&device);
            for kernel in training_kernels(&device) {
                let what = format!("{case}, mask from its {mask_name}, {kernel:?}");
                // Weights asked for or not: Kernel::Auto may choose differently.
                for weights in [false, true] {
                    if weights && kernel == Kernel::Fused {
                        continue;
                    }
                    let options = options.clone().with_kernel(kernel).with_weights(weights);
                    let results = train(inputs, mask, &options);
                    let close = |name: &str, got: &Array, tolerance| {
                        assert_arrays_close(
                            &format!("{what}: {name}"),
                            got,
                            &expected(name),
                            tolerance,
                        );
                    };
                    close("out", &results.output, OUTPUT.on(&device));
                    close("dq", &results.d_query, gradient);
                    close("dk", &results.d_key, gradient);
                    close("dv", &results.d_value, gradient);
                    if let Some(d_bias) = &results.d_bias {
                        close("dbias", d_bias, gradient);
                    }
                    assert_eq!(results.weights.is_some(), weights);
                    if let Some(weights) = &results.weights {
                        close("weights", weights, OUTPUT.on(&device));
                    }
                    if fixtures.find(&format!("{case}.hidden")).is_some() {
                        let hidden = fixtures.data(&format!("{case}.hidden"));
                        let shape = hidden.shape().dims::<4>();
                        let flags = hidden.iter::<bool>().map(|flag| flag as u8 as f64).collect();
                        let hidden = Array::new(shape, flags);
                        assert_hidden_is_zero(&what, &results, &|cell| hidden.at(cell) == 1.0);
                    }
                }
            }
        });
    }

    fn agrees_with_pytorch_at_inference(device: Device) {
        for_each_case(&device, |case, fixtures, mask_name, inputs, mask, options| {
            let expected = array::<4>(fixtures.tensor(&format!("{case}.out"), &device));
            for kernel in inference_kernels(&device) {
                if kernel == Kernel::Backend
                    && (options.bias.is_some() || options.softcap.is_some())
                {
                    continue; // refused, see the tests of refusals
                }
                let options = options.clone().with_kernel(kernel);
                let Inputs { query, key, value, .. } = inputs.clone();
                let attended = scaled_dot_product_attention(query, key, value, mask, &options);
                let what = format!("{case}, mask from its {mask_name}, {kernel:?}: out");
                assert_arrays_close(&what, &array(attended.output), &expected, OUTPUT.on(&device));
            }
        });
    }

    /// ALiBi by slopes and positions, not by the bias that the fixtures also hold.
    fn alibi_agrees_with_pytorch(device: Device) {
        let fixtures = Fixtures::open("sdpa.safetensors");
        for case in ["alibi", "alibi_causal"] {
            let of = |name: &str| fixtures.tensor::<4>(&format!("{case}.{name}"), &device);
            let inputs = Inputs { query: of("q"), key: of("k"), value: of("v"), upstream: of("g") };
            let slopes = to_f64(fixtures.data(&format!("{case}.slopes")));
            let [batch, _, queries, _] = inputs.query.dims();
            let keys = inputs.key.dims()[2];
            let (_, mask) = &masks(case, &fixtures, [batch, queries, keys], &device)[0];
            for kernel in training_kernels(&device) {
                let options = AttentionOptions::new()
                    .with_alibi(Alibi::with_slopes(slopes.clone()))
                    .with_kernel(kernel);
                let results = train(&inputs, mask, &options);
                for (name, got, tolerance) in [
                    ("out", &results.output, OUTPUT),
                    ("dq", &results.d_query, GRADIENT),
                    ("dk", &results.d_key, GRADIENT),
                    ("dv", &results.d_value, GRADIENT),
                ] {
                    let what = format!("{case}, {kernel:?}: {name}");
                    assert_arrays_close(&what, got, &array(of(name)), tolerance.on(&device));
                }
            }
        }
    }
}

// ---- Plain loops -----------------------------------------------------------------------------

/// A random attention with everything.
#[derive(Clone, Debug)]
struct Random {
    batch: usize,
    kv_heads: usize,
    group: usize,
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    /// Axes of the dense mask that are not broadcast, and its share of hidden cells in tenths.
    hidden: Option<([bool; 4], u64)>,
    look_ahead: bool,
    scale: Option<f64>,
    softcap: Option<f64>,
    /// Axes of the bias that are not broadcast.
    bias: Option<[bool; 4]>,
    alibi: bool,
    sinks: bool,
    seed: u64,
}

impl Random {
    fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    fn full(&self) -> [usize; 4] {
        [self.batch, self.heads(), self.queries, self.keys]
    }

    fn broadcast(&self, axes: [bool; 4]) -> [usize; 4] {
        std::array::from_fn(|axis| if axes[axis] { self.full()[axis] } else { 1 })
    }

    /// Compares the crate's attention with the loops, forward and backward.
    fn check(
        &self,
        device: &Device,
        dtype: DType,
        kernel: Kernel,
        forward: Tolerance,
        back: Tolerance,
    ) {
        let Self { batch, kv_heads, queries, keys, head_dim, value_dim, seed, .. } = *self;
        let heads = self.heads();
        let random =
            |shape, salt: u64| Array::random(shape, seed.wrapping_mul(31).wrapping_add(salt));
        let query = random([batch, heads, queries, head_dim], 1);
        let key = random([batch, kv_heads, keys, head_dim], 2);
        let value = random([batch, kv_heads, keys, value_dim], 3);
        let upstream = random([batch, heads, queries, value_dim], 4);
        let given_bias = self.bias.map(|axes| random(self.broadcast(axes), 5));
        let sinks = self.sinks.then(|| random([1, 1, 1, heads], 7));

        let grid = Grid::bottom_right(batch, queries, keys);
        let dense = self.hidden.map(|(axes, tenths)| {
            let mut flags = random(self.broadcast(axes), 6);
            flags
                .values
                .iter_mut()
                .for_each(|v| *v = (*v < tenths as f64 / 5.0 - 1.0) as u8 as f64);
            flags
        });
        let mut mask = Mask::all_visible();
        if self.look_ahead {
            mask = mask & Mask::look_ahead();
        }
        if let Some(dense) = &dense {
            let flags: Vec<bool> = dense.values.iter().map(|&flag| flag == 1.0).collect();
            let flags = TensorData::new(flags, dense.shape);
            mask = mask & Mask::from_hidden::<4>(&Tensor::from_data(flags, device)).unwrap();
        }
        let mask = mask.lower(&grid).unwrap();
        let hidden = |cell: [usize; 4]| {
            dense.as_ref().is_some_and(|dense| dense.at(cell) == 1.0)
                || self.look_ahead && cell[3] + queries > cell[2] + keys
        };

        // To the loops, ALiBi is a bias like any other; its gradient is not asked for.
        let slopes: Vec<f64> = (0..heads).map(|h| 0.5 / (h + 1) as f64).collect();
        let mut bias = given_bias.clone();
        if self.alibi {
            let mut both = Array::zeros(self.full());
            for cell in cells(self.full()) {
                let distance = (cell[3] + queries) as f64 - (cell[2] + keys) as f64;
                *both.at_mut(cell) = given_bias.as_ref().map_or(0.0, |bias| bias.at(cell))
                    - slopes[cell[1]] * distance.abs();
            }
            bias = Some(both);
        }
        let expected = naive::attention(
            &naive::Problem {
                query: &query,
                key: &key,
                value: &value,
                scale: self.scale.unwrap_or(1.0 / (head_dim as f64).sqrt()),
                softcap: self.softcap,
                bias: bias.as_ref(),
                sinks: sinks.as_ref().map(|sinks| sinks.values.as_slice()),
                hidden: &hidden,
                factor: &|_| 1.0,
            },
            &upstream,
        );

        let on_device = |array: &Array| tensor(array, device, dtype);
        let inputs = Inputs {
            query: on_device(&query),
            key: on_device(&key),
            value: on_device(&value),
            upstream: on_device(&upstream),
        };
        let options = AttentionOptions::new()
            .with_scale(self.scale)
            .with_softcap(self.softcap)
            .with_bias(given_bias.as_ref().map(on_device))
            .with_alibi(self.alibi.then(|| Alibi::with_slopes(slopes)))
            .with_sinks(sinks.as_ref().map(|sinks| on_device(sinks).flatten::<1>(0, 3)))
            .with_weights(kernel == Kernel::Reference)
            .with_kernel(kernel);
        let results = train(&inputs, &mask, &options);

        let close = |name: &str, got: &Array, expected: &Array, tolerance| {
            assert_arrays_close(&format!("{self:?}, {kernel:?}: {name}"), got, expected, tolerance);
        };
        close("output", &results.output, &expected.output, forward);
        close("d_query", &results.d_query, &expected.d_query, back);
        close("d_key", &results.d_key, &expected.d_key, back);
        close("d_value", &results.d_value, &expected.d_value, back);
        if let Some(weights) = &results.weights {
            close("weights", weights, &expected.weights, forward);
        }
        if let (Some(got), Some(expected), false) = (&results.d_bias, &expected.d_bias, self.alibi)
        {
            close("d_bias", got, expected, back);
        }
        if let (Some(got), Some(expected)) = (&results.d_sinks, &expected.d_sinks) {
            let expected = Array::new([1, 1, 1, heads], expected.clone());
            close("d_sinks", got, &expected, back);
        }
        assert_hidden_is_zero(&format!("{self:?}, {kernel:?}"), &results, &hidden);
    }
}

fn random_attention() -> impl Strategy<Value = Random> {
    let sizes = (1..4usize, 1..4usize, 1..4usize, 1..8usize, 1..8usize, 1..6usize, 1..6usize);
    let hidden = proptest::option::of((any::<[bool; 4]>(), 0..11u64));
    let options = (
        proptest::option::of(0.05..2.0),
        proptest::option::of(0.5..20.0),
        proptest::option::of(any::<[bool; 4]>()),
        any::<bool>(),
        any::<bool>(),
    );
    (sizes, hidden, any::<bool>(), options, any::<u64>()).prop_map(
        |(sizes, hidden, look_ahead, (scale, softcap, bias, alibi, sinks), seed)| {
            let (batch, kv_heads, group, queries, keys, head_dim, value_dim) = sizes;
            Random {
                batch,
                kv_heads,
                group,
                queries,
                keys,
                head_dim,
                value_dim,
                hidden,
                look_ahead,
                scale,
                softcap,
                bias,
                alibi,
                sinks,
                seed,
            }
        },
    )
}

on_each_backend! {
    /// Any shape, mask, bias, grouping and option, in f64 on CPUs.
    fn agrees_with_plain_loops(device: Device) {
        // Software Vulkan claims f64 too, and multiplies f64 tensors by scalars wrongly.
        let (dtype, forward, back) = if is_cpu(&device) {
            (DType::F64, F64, F64)
        } else {
            (DType::F32, OUTPUT.on(&device), GRADIENT.on(&device))
        };
        let cases = if is_cpu(&device) { 96 } else { 6 };
        let config =
            ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
        proptest!(config, |(random in random_attention())| {
            for kernel in training_kernels(&device) {
                random.check(&device, dtype, kernel, forward, back);
            }
        });
    }

    /// Lengths around the tile sizes of kernels, in f32; twice, for a wgpu that tunes itself.
    fn agrees_with_plain_loops_at_every_length(device: Device) {
        let lengths: &[usize] = if is_cpu(&device) {
            &[1, 2, 7, 16, 17, 31, 32, 33, 64, 65, 127, 128, 129]
        } else {
            &[1, 17, 65]
        };
        for &length in lengths {
            let random = Random {
                batch: 1,
                kv_heads: 1,
                group: 2,
                queries: length,
                keys: length,
                head_dim: 5,
                value_dim: 3,
                hidden: None,
                look_ahead: true,
                scale: None,
                softcap: None,
                bias: None,
                alibi: false,
                sinks: false,
                seed: length as u64,
            };
            for kernel in training_kernels(&device) {
                for _ in 0..2 {
                    random.check(
                        &device,
                        DType::F32,
                        kernel,
                        OUTPUT.on(&device),
                        GRADIENT.on(&device),
                    );
                }
            }
        }
    }
}

// ---- Promises --------------------------------------------------------------------------------

/// Random inputs of `[batch, heads, rows, width]` on `device`.
fn inputs(
    [batch, heads, kv_heads]: [usize; 3],
    [queries, keys]: [usize; 2],
    [head_dim, value_dim]: [usize; 2],
    device: &Device,
    dtype: DType,
) -> Inputs {
    let random = |shape, seed| tensor(&Array::random(shape, seed), device, dtype);
    Inputs {
        query: random([batch, heads, queries, head_dim], 1),
        key: random([batch, kv_heads, keys, head_dim], 2),
        value: random([batch, kv_heads, keys, value_dim], 3),
        upstream: random([batch, heads, queries, value_dim], 4),
    }
}

fn forward(inputs: &Inputs, mask: &LoweredMask, options: &AttentionOptions) -> AttentionOutput<4> {
    let Inputs { query, key, value, .. } = inputs.clone();
    scaled_dot_product_attention(query, key, value, mask, options)
}

/// A dense mask of `[batch, queries, keys]` that hides whole rows.
fn dead_rows(
    [batch, queries, keys]: [usize; 3],
    dead: impl Fn(usize, usize) -> bool,
    device: &Device,
) -> LoweredMask {
    let flags = cells([batch, 1, queries, keys]).map(|[b, _, q, _]| dead(b, q)).collect::<Vec<_>>();
    let flags = TensorData::new(flags, [batch, 1, queries, keys]);
    let mask = Mask::from_hidden::<4>(&Tensor::from_data(flags, device)).unwrap();
    mask.lower(&Grid::bottom_right(batch, queries, keys)).unwrap()
}

on_each_backend! {
    fn dead_rows_are_exactly_zero(device: Device) {
        type Dead = fn(usize, usize) -> bool; // of batch entry and query
        let patterns: [(&str, Dead); 6] = [
            ("all", |_, _| true),
            ("first half", |_, q| q < 4),
            ("second half", |_, q| q >= 4),
            ("scattered", |b, q| (b * 7 + q * 5) % 3 == 0),
            ("every fourth", |_, q| q % 4 == 0),
            ("a whole batch entry", |b, _| b == 1),
        ];
        let halves = [DType::F16, DType::BF16].into_iter().filter(|&dtype| {
            // wgpu's half precision depends on the adapter; its f32 results are tested.
            is_cpu(&device) && device.supports_dtype(dtype)
        });
        for dtype in [DType::F32].into_iter().chain(halves) {
            let inputs = inputs([2, 2, 1], [8, 5], [3, 3], &device, dtype);
            for (name, dead) in patterns {
                let mask = dead_rows([2, 8, 5], dead, &device);
                for kernel in training_kernels(&device) {
                    let what = format!("{name}, {dtype:?}, {kernel:?}");
                    let options = AttentionOptions::new().with_kernel(kernel);
                    let results = train(&inputs, &mask, &options);
                    let finite = |array: &Array| array.values.iter().all(|value| value.is_finite());
                    assert!(finite(&results.output) && finite(&results.d_query), "{what}");
                    assert!(finite(&results.d_key) && finite(&results.d_value), "{what}");
                    assert_hidden_is_zero(&what, &results, &|[b, _, q, _]| dead(b, q));
                }
                let options = AttentionOptions::new().with_kernel(Kernel::Backend);
                let output = array(forward(&inputs, &mask, &options).output);
                for cell in cells(output.shape).filter(|&[b, _, q, _]| dead(b, q)) {
                    assert!(
                        output.at(cell) == 0.0,
                        "{name}, {dtype:?}, Backend: {}",
                        output.at(cell)
                    );
                }
            }
        }
    }

    /// Legitimate scores of -2e4 and +2e4 beside a hidden key: the hidden one gets nothing.
    fn extreme_scores_beside_a_hidden_key(device: Device) {
        for score in [-2e4f32, 2e4] {
            let query = Tensor::<4>::from_data([[[[score]]]], &device);
            let key = Tensor::<4>::from_data([[[[1.0], [1.0], [0.0]]]], &device);
            let value = Tensor::<4>::from_data([[[[1.0], [3.0], [1e6]]]], &device);
            let upstream = Tensor::<4>::ones([1, 1, 1, 1], &device);
            let inputs = Inputs { query, key, value, upstream };
            let mask = Mask::lengths([2]).lower(&Grid::bottom_right(1, 1, 3)).unwrap();
            let options = AttentionOptions::new().with_scale(1.0).with_weights(true);
            let results = train(&inputs, &mask, &options);
            let weights = results.weights.unwrap().values;
            assert_close(
                "weights",
                TensorData::from(&weights[..2]),
                TensorData::from([0.5f64, 0.5]),
                OUTPUT,
            );
            assert_eq!(weights[2], 0.0);
            for kernel in inference_kernels(&device) {
                let options = AttentionOptions::new().with_scale(1.0).with_kernel(kernel);
                let output = array(forward(&inputs, &mask, &options).output).values[0];
                assert!((output - 2.0).abs() < 1e-4, "score {score}, {kernel:?}: {output}");
            }
        }
    }

    /// Whatever a bias says about a hidden key, even an infinity, stays unheard.
    fn a_bias_on_a_hidden_key_is_unheard(device: Device) {
        let inputs = inputs([1, 2, 2], [5, 5], [3, 2], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::square(1, 5)).unwrap();
        let quiet = Array::random([1, 2, 5, 5], 9);
        for extreme in [1e9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            // WGSL may assume that there are no infinities and NaNs: asked of CPUs only.
            if !extreme.is_finite() && !is_cpu(&device) {
                continue;
            }
            let mut loud = quiet.clone();
            for cell in cells(loud.shape).filter(|[_, _, q, k]| k > q) {
                *loud.at_mut(cell) = extreme;
            }
            for kernel in training_kernels(&device) {
                for softcap in [None, Some(3.0)] {
                    let run = |bias: &Array| {
                        let options = AttentionOptions::new()
                            .with_softcap(softcap)
                            .with_bias(tensor(bias, &device, DType::F32))
                            .with_weights(kernel != Kernel::Fused)
                            .with_kernel(kernel);
                        train(&inputs, &mask, &options)
                    };
                    let (expected, got) = (run(&quiet), run(&loud));
                    let what = format!("bias {extreme}, {kernel:?}");
                    assert_arrays_close(&what, &got.output, &expected.output, OUTPUT);
                    assert_arrays_close(&what, &got.d_query, &expected.d_query, GRADIENT);
                    let d_bias = got.d_bias.unwrap();
                    assert_arrays_close(&what, &d_bias, &expected.d_bias.unwrap(), GRADIENT);
                    for cell in cells(d_bias.shape).filter(|[_, _, q, k]| k > q) {
                        assert_eq!(d_bias.at(cell), 0.0, "{what}");
                        assert!(got.weights.as_ref().is_none_or(|w| w.at(cell) == 0.0), "{what}");
                    }
                }
            }
        }
    }

    /// A bias of -inf hides like a mask, if clumsily: whole rows of it give 0 and no NaN.
    fn a_bias_of_minus_infinity_is_a_dead_row(device: Device) {
        if !is_cpu(&device) {
            return; // WGSL may assume that there are no infinities.
        }
        let inputs = inputs([1, 2, 2], [3, 5], [3, 2], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 3, 5));
        let mut bias = Array::random([1, 1, 3, 5], 9);
        (0..5).for_each(|k| *bias.at_mut([0, 0, 1, k]) = f64::NEG_INFINITY);
        for kernel in training_kernels(&device) {
            let options = AttentionOptions::new()
                .with_bias(tensor(&bias, &device, DType::F32))
                .with_kernel(kernel);
            let results = train(&inputs, &mask, &options);
            assert_hidden_is_zero(&format!("{kernel:?}"), &results, &|[_, _, q, _]| q == 1);
            let d_bias = results.d_bias.unwrap().values;
            assert!(d_bias[5..10].iter().all(|&gradient| gradient == 0.0), "{kernel:?}: {d_bias:?}");
        }
    }

    /// Query head h reads key/value head h / group, as if each were written out `group` times.
    fn grouped_heads_are_repeated_heads(device: Device) {
        let (kv_heads, group) = (3, 2);
        let inputs = inputs([2, kv_heads * group, kv_heads], [5, 7], [4, 3], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 5, 7)).unwrap();
        let heads = |order: [i64; 6], tensor: &Tensor<4>| {
            tensor.clone().select(1, Tensor::from_data(TensorData::from(order), &device))
        };
        let repeated = |order| Inputs {
            key: heads(order, &inputs.key),
            value: heads(order, &inputs.value),
            ..inputs.clone()
        };
        for kernel in inference_kernels(&device) {
            let options = AttentionOptions::new().with_kernel(kernel);
            let run = |inputs: &Inputs| forward(inputs, &mask, &options).output.into_data();
            let grouped = run(&inputs);
            let consecutive = run(&repeated([0, 0, 1, 1, 2, 2]));
            assert_close(&format!("{kernel:?}"), grouped.clone(), consecutive, OUTPUT.on(&device));
            let interleaved = to_f64(run(&repeated([0, 1, 2, 0, 1, 2])));
            let differ = to_f64(grouped).iter().zip(&interleaved).any(|(a, b)| (a - b).abs() > 0.1);
            assert!(differ, "the two mappings must not look alike");
        }
    }

    fn rank_3_is_rank_4_with_one_head(device: Device) {
        let inputs = inputs([2, 1, 1], [5, 7], [4, 3], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 5, 7)).unwrap();
        let options = AttentionOptions::new().with_weights(true);
        let four = forward(&inputs, &mask, &options);
        let [query, key, value] = [&inputs.query, &inputs.key, &inputs.value]
            .map(|tensor| tensor.clone().squeeze_dim::<3>(1));
        let three = scaled_dot_product_attention(query, key, value, &mask, &options);
        assert_eq!(three.output.dims(), [2, 5, 3]);
        let weights = three.weights.unwrap();
        assert_eq!(weights.dims(), [2, 5, 7]);
        assert_eq!(array(three.output).values, array(four.output).values);
        assert_eq!(array(weights).values, array(four.weights.unwrap()).values);
    }

    /// Views with other strides, as `swap_dims` and `slice` make them, give what copies give.
    fn strides_do_not_matter(device: Device) {
        let inputs = inputs([2, 6, 3], [5, 5], [4, 4], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&Grid::square(2, 5)).unwrap();
        let view = |tensor: &Tensor<4>| {
            let swapped = tensor.clone().swap_dims(1, 2); // [batch, rows, heads, width]
            let copied = Tensor::<4>::from_data(swapped.into_data(), &device);
            copied.swap_dims(1, 2)
        };
        let views = Inputs {
            query: view(&inputs.query),
            key: view(&inputs.key),
            value: view(&inputs.value),
            ..inputs.clone()
        };
        for kernel in inference_kernels(&device) {
            let options = AttentionOptions::new().with_kernel(kernel);
            let run = |inputs: &Inputs| forward(inputs, &mask, &options).output.into_data();
            assert_close(&format!("{kernel:?}"), run(&views), run(&inputs), OUTPUT.on(&device));
        }
    }

    fn weights_sum_to_one_over_the_visible_keys(device: Device) {
        let inputs = inputs([2, 2, 1], [5, 5], [3, 3], &device, DType::F32);
        let mask =
            (Mask::look_ahead() & Mask::pad_counts([0, 2])).lower(&Grid::square(2, 5)).unwrap();
        let options = AttentionOptions::new().with_weights(true);
        let weights = array(forward(&inputs, &mask, &options).weights.unwrap());
        for [b, h, q, _] in cells([2, 2, 5, 1]) {
            let row = (0..5).map(|k| weights.at([b, h, q, k]));
            let hidden = |k| k > q || (b == 1 && k < 2);
            assert!(row.clone().enumerate().all(|(k, weight)| (weight == 0.0) == hidden(k)));
            let expected = if (0..5).all(hidden) { 0.0 } else { 1.0 };
            let sum: f64 = row.sum();
            assert!((sum - expected).abs() < 1e-5, "row [{b}, {h}, {q}] sums to {sum}");
        }
    }

    fn empty_axes_have_results(device: Device) {
        let sizes = [
            ("batch", 0, 5, 7, 3),
            ("queries", 2, 0, 7, 3),
            ("keys", 2, 5, 0, 3),
            ("values", 2, 5, 7, 0),
        ];
        for (name, batch, queries, keys, value_dim) in sizes {
            let zeros =
                |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device).autodiff().require_grad();
            let mask = LoweredMask::all_visible(Grid::bottom_right(batch, queries, keys));
            let options = AttentionOptions::new().with_weights(true);
            let attended = scaled_dot_product_attention(
                zeros([batch, 2, queries, 4]),
                zeros([batch, 2, keys, 4]),
                zeros([batch, 2, keys, value_dim]),
                &mask,
                &options,
            );
            assert_eq!(attended.output.dims(), [batch, 2, queries, value_dim], "{name}");
            assert_eq!(attended.weights.unwrap().dims(), [batch, 2, queries, keys], "{name}");
            assert!(
                to_f64(attended.output.into_data()).iter().all(|&value| value == 0.0),
                "{name}"
            );
        }
    }

    /// Half precision only at the door: scores and softmax are f32, so the difference is one
    /// rounding of inputs and one of outputs, whatever the length.
    fn half_precision_is_computed_in_f32(device: Device) {
        for (dtype, tolerance) in [(DType::F16, F16), (DType::BF16, BF16)] {
            if !is_cpu(&device) || !device.supports_dtype(dtype) {
                continue;
            }
            let inputs = inputs([1, 2, 1], [67, 67], [5, 5], &device, dtype);
            let mask = Mask::look_ahead().lower(&Grid::square(1, 67)).unwrap();
            let in_f32 = |tensor: &Tensor<4>| tensor.clone().cast(FloatDType::F32);
            let wide = Inputs {
                query: in_f32(&inputs.query),
                key: in_f32(&inputs.key),
                value: in_f32(&inputs.value),
                upstream: in_f32(&inputs.upstream),
            };
            let expected = array(forward(&wide, &mask, &AttentionOptions::new()).output);
            for kernel in training_kernels(&device) {
                let options = AttentionOptions::new().with_kernel(kernel);
                let got = forward(&inputs, &mask, &options).output;
                assert_eq!(got.dtype(), dtype);
                assert_arrays_close(
                    &format!("{dtype:?}, {kernel:?}"),
                    &array(got),
                    &expected,
                    tolerance,
                );
            }
        }
    }
}

// ---- Dropout ---------------------------------------------------------------------------------

/// Attention over values that are unit vectors: the output is the weights as they meet the values.
fn dropped_weights(device: &Device, options: &AttentionOptions) -> (Array, Array) {
    let inputs = inputs([2, 3, 3], [17, 19], [4, 1], device, DType::F32);
    let Inputs { query, key, .. } = inputs;
    let identity = Tensor::<2>::eye(19, device).reshape([1, 1, 19, 19]).repeat(&[2, 3, 1, 1]);
    let [query, key, value] = [query, key, identity].map(|tensor| tensor.autodiff());
    let mask = Mask::look_ahead().lower(&Grid::bottom_right(2, 17, 19)).unwrap();
    let output =
        scaled_dot_product_attention(query.clone(), key.clone(), value.clone(), &mask, options);
    let plain = AttentionOptions::new().with_weights(true).with_kernel(Kernel::Reference);
    let weights = scaled_dot_product_attention(query, key, value, &mask, &plain).weights;
    (array(output.output), array(weights.unwrap()))
}

on_each_backend! {
    /// Each weight is gone or grown by 1 / (1 - p), and the share that is gone is about p.
    fn dropout_drops_weights(device: Device) {
        let probability = 0.3;
        for kernel in training_kernels(&device) {
            for seed in [Some(7), None] {
                let options = AttentionOptions::new()
                    .with_dropout(probability)
                    .with_dropout_seed(seed)
                    .with_kernel(kernel);
                let (dropped, weights) = dropped_weights(&device, &options);
                let (mut gone, mut visible) = (0.0, 0.0);
                for (dropped, weight) in dropped.values.iter().zip(&weights.values) {
                    let grown = weight / (1.0 - probability);
                    let close = (dropped - grown).abs() <= 1e-4 * grown;
                    assert!(
                        *dropped == 0.0 || close,
                        "{kernel:?}, seed {seed:?}: {weight} to {dropped}"
                    );
                    if *weight > 0.0 {
                        visible += 1.0;
                        gone += (*dropped == 0.0) as u8 as f64;
                    }
                }
                // Five standard deviations of that many tosses: for unseeded runs, one false alarm in
                // two million.
                let deviation = (probability * (1.0 - probability) / visible).sqrt();
                let share = gone / visible;
                assert!((share - probability).abs() < 5.0 * deviation, "{kernel:?}: {share} gone");
            }
        }
    }

    /// The same seed drops the same weights, forward and backward, whoever computes.
    fn a_seed_decides_dropout(device: Device) {
        let options = AttentionOptions::new().with_dropout(0.4);
        let seeded = |seed| options.clone().with_dropout_seed(Some(seed));
        let (expected, _) =
            dropped_weights(&device, &seeded(3).with_kernel(Kernel::Reference).with_weights(true));
        for kernel in training_kernels(&device) {
            let (got, _) = dropped_weights(&device, &seeded(3).with_kernel(kernel));
            assert_arrays_close(&format!("{kernel:?}"), &got, &expected, OUTPUT.on(&device));
            let (other, _) = dropped_weights(&device, &seeded(4).with_kernel(kernel));
            assert_ne!(other, got);
        }
    }

    /// What was dropped, read off one run, explains output and gradients of another.
    fn dropout_agrees_with_plain_loops(device: Device) {
        let (probability, grid) = (0.4, Grid::bottom_right(2, 17, 19));
        let inputs = inputs([2, 3, 3], [17, 19], [4, 5], &device, DType::F32);
        let mask = Mask::look_ahead().lower(&grid).unwrap();
        for kernel in training_kernels(&device) {
            let options = AttentionOptions::new()
                .with_dropout(probability)
                .with_dropout_seed(Some(11))
                .with_kernel(kernel);
            let (dropped, _) = dropped_weights(&device, &options);
            let results = train(&inputs, &mask, &options);
            let expected = naive::attention(
                &naive::Problem {
                    query: &array(inputs.query.clone()),
                    key: &array(inputs.key.clone()),
                    value: &array(inputs.value.clone()),
                    scale: 0.5,
                    softcap: None,
                    bias: None,
                    sinks: None,
                    hidden: &|[_, _, q, k]| k > q + 2,
                    factor: &|cell| {
                        if dropped.at(cell) == 0.0 { 0.0 } else { 1.0 / (1.0 - probability) }
                    },
                },
                &array(inputs.upstream.clone()),
            );
            let close = |name: &str, got: &Array, expected: &Array| {
                assert_arrays_close(
                    &format!("{kernel:?}: {name}"),
                    got,
                    expected,
                    GRADIENT.on(&device),
                );
            };
            close("output", &results.output, &expected.output);
            close("d_query", &results.d_query, &expected.d_query);
            close("d_key", &results.d_key, &expected.d_key);
            close("d_value", &results.d_value, &expected.d_value);
        }
    }

    fn returned_weights_are_those_before_dropout(device: Device) {
        let options = AttentionOptions::new().with_weights(true);
        let inputs = inputs([1, 2, 2], [5, 7], [3, 3], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 5, 7));
        let plain = train(&inputs, &mask, &options);
        let dropping =
            train(&inputs, &mask, &options.clone().with_dropout(0.5).with_dropout_seed(1));
        assert_eq!(dropping.weights, plain.weights);
        assert_ne!(dropping.output, plain.output);
    }

    /// Off an autodiff device there is nothing to train, and nothing is dropped.
    fn inference_drops_nothing(device: Device) {
        let inputs = inputs([1, 2, 2], [5, 7], [3, 3], &device, DType::F32);
        let mask = LoweredMask::all_visible(Grid::bottom_right(1, 5, 7));
        for kernel in inference_kernels(&device) {
            let options = AttentionOptions::new().with_kernel(kernel);
            let run = |options: &AttentionOptions| array(forward(&inputs, &mask, options).output);
            assert_eq!(run(&options.clone().with_dropout(0.9)), run(&options), "{kernel:?}");
        }
    }
}

// ---- Refusals --------------------------------------------------------------------------------

/// The text of the panic that `run` ends in.
fn refusal(run: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let payload = std::panic::catch_unwind(run).expect_err("expected a panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string())).unwrap()
}

on_each_backend! {
    fn refusals_say_what_was_expected_and_what_came(device: Device) {
        let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
        let run = |shapes: [[usize; 4]; 3], grid: Grid, options: AttentionOptions| {
            let [query, key, value] = shapes.map(zeros);
            let mask = LoweredMask::all_visible(grid);
            refusal(std::panic::AssertUnwindSafe(|| {
                scaled_dot_product_attention(query, key, value, &mask, &options);
            }))
        };
        let (q, k, v) = ([2, 4, 5, 3], [2, 2, 7, 3], [2, 2, 7, 6]);
        let grid = || Grid::bottom_right(2, 5, 7);
        let options = AttentionOptions::new;

        let cases = [
            (run([q, [2, 3, 7, 3], [2, 3, 7, 6]], grid(), options()), "divides the 4 heads, got 3"),
            (run([q, [2, 2, 7, 5], v], grid(), options()), "[batch, kv_heads, keys, head_dim]"),
            (run([q, k, [2, 2, 6, 6]], grid(), options()), "key"),
            (
                run([q, k, v], Grid::bottom_right(2, 5, 8), options()),
                "expected a grid of batch 2, 5 queries, 7 keys, got batch 2, 5 queries, 8 keys",
            ),
            (
                run([q, k, v], grid(), options().with_bias(zeros([2, 3, 5, 7]))),
                "broadcasts to [2, 4, 5, 7], got [2, 3, 5, 7]",
            ),
            (
                run([q, k, v], grid(), options().with_alibi(Alibi::new(3))),
                "expected 4 slopes, one a head, got 3",
            ),
            (
                run([q, k, v], grid(), options().with_sinks(Tensor::zeros([2], &device))),
                "sinks: expected 4 scores, one a head, got 2",
            ),
            (run([q, k, v], grid(), options().with_softcap(0.0)), "above 0, got 0"),
            (run([q, k, v], grid(), options().with_scale(f64::NAN)), "finite number, got NaN"),
            (run([q, k, v], grid(), options().with_dropout(1.0)), "[0, 1), got 1"),
            (
                run([q, k, v], grid(), options().with_kernel(Kernel::Backend).with_weights(true)),
                "got a request for weights",
            ),
            (
                run([q, k, v], grid(), options().with_kernel(Kernel::Backend).with_softcap(2.0)),
                "got a softcap",
            ),
            (
                run(
                    [q, k, v],
                    grid(),
                    options()
                        .with_kernel(Kernel::Backend)
                        .with_sinks(Tensor::zeros([4], &device)),
                ),
                "got sinks",
            ),
        ];
        for (text, expected) in cases {
            assert!(text.contains(expected), "expected {expected:?} in {text:?}");
        }

        let tracked =
            || Tensor::<4>::random([1, 1, 2, 2], Distribution::Default, &device.clone().autodiff());
        let mask = LoweredMask::all_visible(Grid::square(1, 2));
        let text = refusal(std::panic::AssertUnwindSafe(|| {
            let options = options().with_kernel(Kernel::Backend);
            scaled_dot_product_attention(tracked(), tracked(), tracked(), &mask, &options);
        }));
        assert!(text.contains("autodiff"), "{text}");
    }
}
