//! Rotary positions, and the other options between projection and attention, against what they are
//! defined to be.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_decoder::Error;
use burn_decoder::attention::{
    Alibi, AttentionSinks, HeadMapping, MultiHeadAttention, MultiHeadAttentionConfig, QkNormConfig,
    Request, RotaryConfig, RotaryLayout, RotaryScaling, Score, scaled_dot_product_attention,
};
use burn_decoder::decoder::{
    Batch, Decoder, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LayerContext, NormConfig,
    Positions,
};
use burn_decoder::mask::{Grid, LoweredMask, Mask};

use crate::backends::{any_device, is_cpu};
use crate::fixtures::{OUTPUT, assert_close};

const BATCH: usize = 2;
const TOKENS: usize = 5;
const D_MODEL: usize = 22;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 6;

fn config() -> MultiHeadAttentionConfig {
    MultiHeadAttentionConfig::new(D_MODEL, HEADS)
        .with_kv_heads(Some(KV_HEADS))
        .with_head_dim(Some(HEAD_DIM))
}

fn numbers<const D: usize>(shape: [usize; D], step: f64, device: &Device) -> Tensor<D> {
    let values = (0..shape.iter().product()).map(|i: usize| (i as f64 * step).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

fn look_ahead() -> LoweredMask {
    Mask::look_ahead().lower(&Grid::square(BATCH, TOKENS)).unwrap()
}

fn attend(layer: &MultiHeadAttention, x: &Tensor<3>) -> Tensor<3> {
    let x = || x.clone();
    layer.forward(x(), x(), x(), &look_ahead(), &Request::new()).output
}

/// `[batch, tokens, heads * head_dim]` as numbers, each head's channels turned by the definition.
fn turned(
    x: Tensor<3>,
    positions: &dyn Fn(usize, usize) -> f64,
    frequency: &dyn Fn(usize) -> f64,
    dim: usize,
    layout: RotaryLayout,
) -> Tensor<3> {
    let (device, shape @ [_, tokens, width]) = (x.device(), x.dims());
    let mut values: Vec<f64> = x.into_data().iter::<f64>().collect();
    for (at, head) in values.chunks_exact_mut(HEAD_DIM).enumerate() {
        let token = at / (width / HEAD_DIM);
        let position = positions(token / tokens, token % tokens);
        for pair in 0..dim / 2 {
            let (i, j) = match layout {
                RotaryLayout::Half => (pair, pair + dim / 2),
                RotaryLayout::Interleaved => (2 * pair, 2 * pair + 1),
            };
            let (sin, cos) = (position * frequency(pair)).sin_cos();
            (head[i], head[j]) = (cos * head[i] - sin * head[j], cos * head[j] + sin * head[i]);
        }
    }
    Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32))
}

/// `[batch, tokens, heads * head_dim]` to `[batch, heads, tokens, head_dim]`.
fn heads(x: Tensor<3>) -> Tensor<4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, width / HEAD_DIM, HEAD_DIM]).swap_dims(1, 2) // [batch, heads, tokens, head_dim]
}

/// The layer by hand, from what becomes of queries and keys.
fn by_hand(
    layer: &MultiHeadAttention,
    x: &Tensor<3>,
    prepare: impl Fn(Tensor<3>, bool) -> Tensor<3>,
    score: Score,
) -> Tensor<3> {
    let query = heads(prepare(layer.query.forward(x.clone()), true));
    let key = heads(prepare(layer.key.forward(x.clone()), false));
    let value = heads(layer.value.forward(x.clone()));
    let output =
        scaled_dot_product_attention(query, key, value, &look_ahead(), &score, &Request::new())
            .output;
    let output = output.swap_dims(1, 2).reshape([BATCH, TOKENS, HEADS * HEAD_DIM]); // [batch, tokens, heads * head_dim]
    layer.output.forward(output)
}

on_each_backend! {
    /// Both layouts, in whole and in part: the definition, on queries and keys.
    fn rotation_is_the_definition(device: Device) {
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        for layout in [RotaryLayout::Half, RotaryLayout::Interleaved] {
            for dim in [None, Some(4)] {
                let rotary =
                    RotaryConfig::new().with_base(50.0).with_dim(dim).with_layout(layout);
                let layer = config().with_rotary(Some(rotary)).init(&device).unwrap();
                let dim = dim.unwrap_or(HEAD_DIM);
                let frequency = |pair| 50f64.powf(-2.0 * pair as f64 / dim as f64);
                let prepare =
                    |x, _| turned(x, &|_, token| token as f64, &frequency, dim, layout);
                let expected = by_hand(&layer, &x, prepare, Score::new());
                let what = format!("{layout:?}, {dim}");
                let got = attend(&layer, &x).into_data();
                assert_close(&what, got, expected.into_data(), OUTPUT.on(&device));
            }
        }
    }

    /// What the stack is told of positions reaches every layer, row by row; the rotations of a stack
    /// may differ from layer to layer.
    fn positions_reach_the_layers(device: Device) {
        let rotary = |base| RotaryConfig::new().with_base(base);
        let layer = DecoderLayerConfig::new(config(), FeedForwardConfig::new(D_MODEL, 7));
        let config = DecoderConfig::new(layer.clone(), 3)
            .with_rotaries(vec![Some(rotary(10.0)), Some(rotary(1000.0)), None]);
        let decoder = config.init(&device).unwrap();
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        let mask = look_ahead();
        let run = |decoder: &Decoder, positions: Option<Positions>| {
            let batch = Batch::new().with_positions(positions.unwrap_or_default());
            let output = decoder.forward(x.clone(), &batch, &Request::new()).unwrap();
            output.output.into_data()
        };
        let plain = run(&decoder, None);
        let index = run(&decoder, Some(Positions::Index));
        assert_close("index", index, plain.clone(), OUTPUT.on(&device));
        // A shift of a row changes no distance; a jump does.
        let listed = |rows: [[usize; TOKENS]; BATCH]| {
            Some(Positions::Listed(rows.iter().map(|row| row.to_vec()).collect()))
        };
        let shifted = run(&decoder, listed([[0, 1, 2, 3, 4], [7, 8, 9, 10, 11]]));
        assert_close("shifted", shifted, plain.clone(), OUTPUT.on(&device));
        let jump = run(&decoder, listed([[0, 1, 2, 3, 4], [0, 1, 2, 5, 9]]));
        let values = |data: &TensorData| data.iter::<f32>().collect::<Vec<_>>();
        let (jump, plain) = (values(&jump), values(&plain));
        let row = TOKENS * D_MODEL;
        let far = |range: std::ops::Range<usize>| {
            range.map(|i| (jump[i] - plain[i]).abs()).fold(0.0, f32::max)
        };
        assert!(far(0..row + 3 * D_MODEL) < 1e-5 && far(row + 3 * D_MODEL..2 * row) > 1e-4);

        // Each layer turns by its own rotation: the same parameters, layer by layer.
        let mut by_layer = x.clone();
        for (index, base) in [Some(10.0), Some(1000.0), None].into_iter().enumerate() {
            let mut layer = layer.clone();
            layer.self_attention.rotary = base.map(rotary);
            let layer = layer.init(&device).unwrap();
            let layer = layer.load_record(decoder.layers[index].clone().into_record());
            by_layer = layer.forward(by_layer, &LayerContext::new(&mask), &Request::new()).output;
        }
        let expected = decoder.final_norm.as_ref().unwrap().forward(by_layer).into_data();
        assert_close("by layer", run(&decoder, None), expected, OUTPUT.on(&device));
    }

    /// YaRN's growth reaches queries and keys: scores grow by its square.
    fn yarn_sharpens(device: Device) {
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        let yarn = |attention_factor| RotaryScaling::Yarn {
            factor: 4.0,
            original_context: 8,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: Some(attention_factor),
            truncate: true,
        };
        let layer = |factor, scale| {
            let rotary = RotaryConfig::new().with_scaling(Some(yarn(factor)));
            config().with_rotary(Some(rotary)).with_scale(scale).init(&device).unwrap()
        };
        let grown = layer(1.5, None);
        let scale = Some(1.5 * 1.5 / (HEAD_DIM as f64).sqrt());
        let scaled = layer(1.0, scale).load_record(grown.clone().into_record());
        let (got, expected) = (attend(&grown, &x), attend(&scaled, &x));
        assert_close("sharper", got.into_data(), expected.into_data(), OUTPUT.on(&device));
    }

    /// Norms over each head, or over all heads, and before the rotation.
    fn norms_come_before_the_rotation(device: Device) {
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        for across_heads in [false, true] {
            let norm = QkNormConfig::new(NormConfig::rms_norm()).with_across_heads(across_heads);
            let config = config().with_rotary(Some(RotaryConfig::new())).with_qk_norm(Some(norm));
            let layer = config.init(&device).unwrap().map(&mut Scatter);
            let prepare = |x: Tensor<3>, is_query: bool| {
                let norm = if is_query { &layer.query_norm } else { &layer.key_norm };
                let norm = norm.as_ref().unwrap();
                let [batch, tokens, width] = x.dims();
                let x = if across_heads {
                    norm.forward(x)
                } else {
                    let x = x.reshape([batch, tokens, width / HEAD_DIM, HEAD_DIM]); // [batch, tokens, heads, head_dim]
                    norm.forward(x).reshape([batch, tokens, width]) // [batch, tokens, heads * head_dim]
                };
                let frequency = |pair| 10_000f64.powf(-2.0 * pair as f64 / HEAD_DIM as f64);
                turned(x, &|_, token| token as f64, &frequency, HEAD_DIM, RotaryLayout::Half)
            };
            let expected = by_hand(&layer, &x, prepare, Score::new());
            let what = format!("across heads: {across_heads}");
            let got = attend(&layer, &x).into_data();
            assert_close(&what, got, expected.into_data(), OUTPUT.on(&device));
        }
    }

    /// Both mappings of query heads, against keys and values repeated by hand.
    fn head_mappings(device: Device) {
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        for mapping in [HeadMapping::Grouped, HeadMapping::Interleaved] {
            let layer = config().with_head_mapping(mapping).init(&device).unwrap();
            let repeat = |x: Tensor<3>| {
                let of = |head: usize| match mapping {
                    HeadMapping::Grouped => head / (HEADS / KV_HEADS),
                    HeadMapping::Interleaved => head % KV_HEADS,
                };
                let x = heads(x);
                Tensor::cat((0..HEADS).map(|head| x.clone().narrow(1, of(head), 1)).collect(), 1)
            };
            let query = heads(layer.query.forward(x.clone()));
            let [key, value] = [&layer.key, &layer.value].map(|p| repeat(p.forward(x.clone())));
            let options = Score::new();
            let output = scaled_dot_product_attention(query, key, value, &look_ahead(), &options, &Request::new());
            let output = output.output.swap_dims(1, 2); // [batch, tokens, heads, head_dim]
            let output = output.reshape([BATCH, TOKENS, HEADS * HEAD_DIM]); // [batch, tokens, heads * head_dim]
            let expected = layer.output.forward(output).into_data();
            let got = attend(&layer, &x).into_data();
            assert_close(&format!("{mapping:?}"), got, expected, OUTPUT.on(&device));
        }
    }

    /// The layer's own ALiBi and sinks are those of the function.
    fn alibi_and_sinks_of_the_layer(device: Device) {
        let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device);
        let plain = |x, _| x;
        let layer = config().with_alibi(true).init(&device).unwrap();
        let options = Score::new().with_alibi(Alibi::new(HEADS));
        let expected = by_hand(&layer, &x, plain, options).into_data();
        assert_close("alibi", attend(&layer, &x).into_data(), expected, OUTPUT.on(&device));

        let scores = numbers([HEADS], 0.9, &device);
        for (sinks, scores) in [
            (AttentionSinks::Quiet, Tensor::zeros([HEADS], &device)),
            (AttentionSinks::Learned, scores),
        ] {
            let mut layer = config().with_sinks(sinks).init(&device).unwrap();
            layer.sinks = layer.sinks.map(|param| param.map(|_| scores.clone()));
            let options = Score::new().with_sinks(scores);
            let expected = by_hand(&layer, &x, plain, options).into_data();
            let got = attend(&layer, &x).into_data();
            assert_close(&format!("{sinks:?}"), got.clone(), expected, OUTPUT.on(&device));
            let without = by_hand(&layer, &x, plain, Score::new()).into_data();
            let differ = got.iter::<f32>().zip(without.iter::<f32>());
            assert!(differ.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-3);
        }
    }

    /// The fused rotation in f32 agrees with tensor operations in f64, and so do its gradients.
    fn both_ways_to_turn_agree(device: Device) {
        if !is_cpu(&device) {
            return; // There is one way there, and no f64 in WGSL.
        }
        let device = device.autodiff();
        for layout in [RotaryLayout::Half, RotaryLayout::Interleaved] {
            let rotary = RotaryConfig::new().with_dim(Some(4)).with_layout(layout);
            let config = config().with_rotary(Some(rotary));
            let narrow = config.init(&device).unwrap();
            let wide = narrow.clone().map(&mut Cast(DType::F64));
            let run = |layer: &MultiHeadAttention, dtype| {
                let x = numbers([BATCH, TOKENS, D_MODEL], 0.7, &device).cast(dtype).detach();
                let x = x.require_grad();
                let output = attend(layer, &x);
                let weights = numbers([BATCH, TOKENS, D_MODEL], 1.3, &device).cast(dtype);
                let gradients = (output.clone() * weights).sum().backward();
                [output.into_data(), x.grad(&gradients).unwrap().into_data()]
            };
            let got = run(&narrow, DType::F32);
            let expected = run(&wide, DType::F64);
            for ((got, expected), what) in got.into_iter().zip(expected).zip(["output", "dx"]) {
                let expected = expected.convert::<f32>();
                assert_close(&format!("{layout:?} {what}"), got, expected, OUTPUT.on(&device));
            }
        }
    }
}

/// Parameters that are not the 1 and 0 that norms start from.
struct Scatter;

impl burn::module::ModuleMapper for Scatter {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        param.map(|tensor| {
            let scattered = numbers(tensor.dims(), 0.37, &tensor.device());
            tensor + scattered * 0.3
        })
    }
}

struct Cast(DType);

impl burn::module::ModuleMapper for Cast {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0).detach())
    }
}

#[test]
fn bad_rotations_are_refused() {
    let rotary = RotaryConfig::new;
    let scaled = |scaling| rotary().with_scaling(Some(scaling));
    let yarn = |beta_fast, beta_slow, attention_factor| RotaryScaling::Yarn {
        factor: 4.0,
        original_context: 64,
        beta_fast,
        beta_slow,
        attention_factor,
        truncate: true,
    };
    let llama3 = |high_freq_factor, original_context| RotaryScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor,
        original_context,
    };
    for (rotary, words) in [
        (rotary().with_dim(Some(3)), ["RotaryConfig::dim", "even number of the 6", "got 3"]),
        (rotary().with_dim(Some(8)), ["RotaryConfig::dim", "of the 6 channels", "got 8"]),
        (rotary().with_dim(Some(0)), ["RotaryConfig::dim", "pair up", "got 0"]),
        (rotary().with_base(1.0), ["RotaryConfig::base", "above 1", "got 1"]),
        (rotary().with_base(f64::NAN), ["RotaryConfig::base", "above 1", "NaN"]),
        (scaled(RotaryScaling::Linear { factor: 0.5 }), ["RotaryScaling", "factor", "0.5"]),
        (scaled(RotaryScaling::Ntk { factor: f64::INFINITY }), ["RotaryScaling", "factor", "inf"]),
        (scaled(yarn(1.0, 32.0, None)), ["RotaryScaling", "beta_fast above", "1 and 32"]),
        (scaled(yarn(32.0, 1.0, Some(0.0))), ["RotaryScaling", "attention_factor", "0"]),
        (scaled(llama3(1.0, 64)), ["RotaryScaling", "high_freq_factor above", "1 and 1"]),
        (scaled(llama3(4.0, 0)), ["RotaryScaling", "original_context", "0"]),
    ] {
        let error = config().with_rotary(Some(rotary)).init(&any_device()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word:?} is missing in \"{error}\"");
        }
    }
}
