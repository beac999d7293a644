//! The loss without logits against Burn's on all of them; and what it holds.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Distribution, Int, Tensor, TensorData};
use burn_decoder::Error;
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, Request,
};
use burn_decoder::loss::{CrossEntropyConfig, OutputHead, Reduction};

use crate::backends::{cpus, tolerance_factor};
use crate::peak;

const VOCAB: usize = 31;
const PAD: i64 = 0;

fn model(device: &Device, tied: bool) -> LanguageModel {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(16, 2),
        FeedForwardConfig::new(16, 23),
    );
    LanguageModelConfig::new(VOCAB, DecoderConfig::new(layer, 1))
        .with_tied_head(tied)
        .with_head_bias(true)
        .with_logit_softcap((!tied).then_some(5.0))
        .init(device)
        .unwrap()
}

/// `[2, 7]`: the second row is padded from its fifth token on.
fn tokens(device: &Device) -> Tensor<2, Int> {
    Tensor::from_ints([[5, 3, 8, 1, 30, 2, 7], [7, 2, 9, 11, PAD, PAD, PAD]], device)
}

fn targets(device: &Device) -> Tensor<2, Int> {
    Tensor::from_ints([[3, 8, 1, 30, 2, 7, 29], [2, 9, 11, PAD, PAD, PAD, PAD]], device)
}

/// The gradients of all parameters, one after the other.
struct Collected<'a>(&'a GradientsParams, Vec<Vec<f64>>);

impl ModuleVisitor for Collected<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.0.get::<D>(param.id).expect("a gradient for each parameter");
        self.1.push(gradient.into_data().iter::<f64>().collect());
    }
}

fn gradients(loss: &Tensor<1>, model: &LanguageModel) -> Vec<Vec<f64>> {
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let mut collected = Collected(&gradients, vec![]);
    model.visit(&mut collected);
    collected.1
}

on_each_backend! {
    /// To 1e-6 of the largest gradient of a parameter, or of the loss; ten times that on wgpu.
    fn a_model_has_the_same_loss_and_gradients_as_with_logits(device: Device) {
        let tolerance = 1e-6 * tolerance_factor(&device);
        let device = device.autodiff();
        for tied in [true, false] {
            let model = model(&device, tied);
            let batch = || Batch::new().with_lengths([7, 4]);
            let burns = CrossEntropyLossConfig::new()
                .with_pad_tokens(Some(vec![PAD as usize]))
                .init(&device);
            let logits = model.forward(tokens(&device), batch()).unwrap().logits;
            let expected =
                burns.forward(logits.reshape([14, VOCAB]), targets(&device).reshape([14]));
            let expected_gradients = gradients(&expected, &model);
            let expected = expected.into_scalar::<f64>();
            for chunk in [None, Some(3)] {
                let loss =
                    CrossEntropyConfig::new().with_ignored(Some(PAD)).with_chunk(chunk);
                let request = Request::new().with_unchecked_tokens();
                let got = model
                    .loss(
                        tokens(&device),
                        batch().asking(request),
                        targets(&device),
                        &loss.init().unwrap(),
                    )
                    .unwrap();
                let got_gradients = gradients(&got, &model);
                let got = got.into_scalar::<f64>();
                assert!((got - expected).abs() <= tolerance * expected, "{got}, {expected}");
                assert_eq!(got_gradients.len(), expected_gradients.len());
                for (got, expected) in got_gradients.iter().zip(&expected_gradients) {
                    let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
                    for (got, expected) in got.iter().zip(expected) {
                        let close = (got - expected).abs() <= tolerance * largest.max(1e-2);
                        assert!(close, "tied: {tied}, {chunk:?}: {got}, {expected} of {largest}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_target_outside_of_the_vocabulary_is_named() {
    for device in cpus() {
        let loss = CrossEntropyConfig::new().with_ignored(Some(-100)).init().unwrap();
        let forward = |targets: [[i64; 3]; 2]| {
            let head = OutputHead::new(Tensor::zeros([5, 7], &device));
            let hidden = Tensor::<3>::ones([2, 3, 5], &device);
            loss.forward(hidden, head, Tensor::<2, Int>::from_ints(targets, &device))
        };
        let mean = forward([[0, 6, -100], [1, 2, 3]]).unwrap().into_scalar::<f64>();
        assert!((mean - 7f64.ln()).abs() < 1e-6, "{mean}");
        for wrong in [7, -1] {
            match forward([[0, 6, -100], [1, wrong, 3]]) {
                Err(Error::Token { token, row: 1, index: 1, vocab_size: 7 }) => {
                    assert_eq!(token, wrong);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(CrossEntropyConfig::new().with_smoothing(1.0).init().is_err());
    assert!(CrossEntropyConfig::new().with_chunk(Some(0)).init().is_err());
}

/// Sums of many small terms, which half precision would lose.
#[test]
#[cfg(feature = "flex")]
fn half_precision_is_summed_in_f32() {
    let device = Device::flex().autodiff();
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
    let (hidden, weight) = (random([300, 16]), random([16, 4099]));
    let targets = Tensor::<1, Int>::zeros([300], &device);
    let loss = CrossEntropyConfig::new().with_reduction(Reduction::Sum).init().unwrap();
    for dtype in [DType::F16, DType::BF16] {
        let [hidden, weight] =
            [&hidden, &weight].map(|x| x.clone().cast(dtype).detach().require_grad());
        let run = |hidden: Tensor<2>, weight: Tensor<2>| {
            let got = loss.forward(hidden, OutputHead::new(weight), targets.clone()).unwrap();
            assert_eq!(got.dtype(), DType::F32);
            got
        };
        let got = run(hidden.clone(), weight.clone());
        let wide = [&hidden, &weight].map(|x| x.clone().cast(DType::F32).detach().require_grad());
        let expected = run(wide[0].clone(), wide[1].clone());
        let (got_gradients, gradients) = (got.backward(), expected.backward());
        assert_eq!(got.into_scalar::<f32>(), expected.into_scalar::<f32>());
        for (leaf, wide) in [hidden, weight].iter().zip(wide) {
            let got = leaf.grad(&got_gradients).unwrap();
            assert_eq!(got.dtype(), dtype);
            // One rounding, of the sum.
            let expected = wide.grad(&gradients).unwrap().cast(dtype);
            assert_eq!(got.into_data(), expected.into_data());
        }
    }
}

const TOKENS: usize = 1024;
const LARGE_VOCAB: usize = 50_257;
const D_MODEL: usize = 256;

/// Loss and gradients at GPT-2's vocabulary.
fn large_vocabulary(device: &Device, chunked: bool) {
    let device = &device.clone().autodiff();
    let wave = |shape: [usize; 2], step: f32| {
        let number = |i: usize| (i as f32 * step).sin() * 0.5;
        let numbers = (0..shape[0] * shape[1]).map(number).collect();
        Tensor::<2>::from_data(TensorData::new(numbers, shape), device).require_grad()
    };
    let (hidden, embedding) = (wave([TOKENS, D_MODEL], 0.731), wave([LARGE_VOCAB, D_MODEL], 1.237));
    let targets: Vec<i64> = (0..TOKENS).map(|i| (i * 7919 % LARGE_VOCAB) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [TOKENS]), device);
    peak::begin();
    let loss = if chunked {
        let loss = CrossEntropyConfig::new().init().unwrap();
        loss.forward(hidden.clone(), OutputHead::tied(embedding.clone()), targets).unwrap()
    } else {
        let logits = hidden.clone().matmul(embedding.clone().transpose());
        CrossEntropyLossConfig::new().init(device).forward(logits, targets)
    };
    let gradients = loss.backward();
    let of_hidden = hidden.grad(&gradients).unwrap();
    let of_embedding = embedding.grad(&gradients).unwrap();
    peak::end(|| {
        let mut numbers = vec![loss.into_scalar::<f64>()];
        for gradient in [of_hidden, of_embedding] {
            numbers.extend(gradient.into_data().iter::<f64>().step_by(997));
        }
        numbers
    });
}

/// The peak memory of a step at GPT-2's vocabulary is at most half of that with logits, everything
/// counted: parameters, gradients, the program.
#[test]
#[cfg(target_os = "linux")]
fn a_large_vocabulary_costs_at_most_half_of_the_memory() {
    if let Some(case) = peak::case() {
        let (device, chunked) = case.split_once(' ').unwrap();
        return large_vocabulary(&cpus()[device.parse::<usize>().unwrap()], chunked == "true");
    }
    for device in 0..cpus().len() {
        let [with, without] = [false, true].map(|chunked| {
            let test = "loss::a_large_vocabulary_costs_at_most_half_of_the_memory";
            peak::measure(test, &format!("{device} {chunked}"))
        });
        println!("{device}: {} bytes with logits, {} without", with.bytes, without.bytes);
        assert!(2 * without.bytes <= with.bytes, "{} for {}", without.bytes, with.bytes);
        let hidden = 1 + (TOKENS * D_MODEL).div_ceil(997);
        for part in [0..1, 1..hidden, hidden..with.numbers.len()] {
            let [difference, largest] =
                peak::difference(&without.numbers[part.clone()], &with.numbers[part]);
            println!("they differ by {difference:.1e} of {largest:.1e}");
            assert!(difference <= 1e-6 * largest, "{difference} of {largest}");
        }
    }
}
