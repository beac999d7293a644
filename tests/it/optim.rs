//! AdamW in one pass against Burn's.
#![cfg(feature = "optim")]

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{self, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, PositionEmbeddingConfig,
};
use burn_decoder::loss::CrossEntropyConfig;
use burn_decoder::optim::{AdamWConfig, clip_by_global_norm, without_decay};

use crate::backends::{cpus, is_cpu};

/// Wide enough that parameters are more than one block of the kernel.
fn model(device: &Device) -> LanguageModel {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(32, 2),
        FeedForwardConfig::new(32, 611),
    );
    LanguageModelConfig::new(29, DecoderConfig::new(layer, 1))
        .with_positions(Some(PositionEmbeddingConfig::learned(11)))
        .init(device)
        .unwrap()
}

/// Gradients that are others with each step.
fn gradients(model: &LanguageModel, step: i64, device: &Device) -> GradientsParams {
    let tokens = (Tensor::<1, Int>::arange(0..14, device) * (3 * step + 1)) % 29;
    let tokens = tokens.reshape([2, 7]);
    let targets = (tokens.clone() + step) % 29;
    let cross_entropy = CrossEntropyConfig::new().init().unwrap();
    let loss = model.loss(tokens, Batch::new(), targets, &cross_entropy).unwrap();
    GradientsParams::from_grads(loss.backward(), model)
}

#[derive(Default)]
struct Numbers(Vec<f32>);

impl ModuleVisitor for Numbers {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.extend(param.val().into_data().iter::<f32>());
    }
}

fn numbers(model: &LanguageModel) -> Vec<f32> {
    let mut numbers = Numbers::default();
    model.visit(&mut numbers);
    numbers.0
}

/// Parameters after some steps. The model is kept elsewhere, too, in every second one.
fn train(
    optimizer: &mut ModuleOptimizer,
    start: &LanguageModel,
    steps: std::ops::Range<i64>,
    device: &Device,
) -> LanguageModel {
    let mut model = start.clone();
    for step in steps {
        let kept = (step % 2 == 0).then(|| (model.clone(), numbers(&model)));
        let gradients = gradients(&model, step, device);
        model = optimizer.step(1e-2 / (step + 1) as f64, model, gradients);
        if let Some((kept, before)) = kept {
            assert_eq!(numbers(&kept), before, "what another holds is not written to");
        }
    }
    model
}

/// The same settings for both.
fn pairs() -> Vec<[ModuleOptimizer; 2]> {
    let clipping = Some(GradientClippingConfig::Norm(0.5));
    let ours = AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8);
    let burns = optim::AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8);
    vec![
        [AdamWConfig::new().init(), optim::AdamWConfig::new().init()],
        [
            ours.clone().with_weight_decay(0.1).with_grad_clipping(clipping.clone()).init(),
            burns.clone().with_weight_decay(0.1).with_grad_clipping(clipping).init(),
        ],
        [ours.clone().with_weight_decay(0.0).init(), burns.clone().with_weight_decay(0.0).init()],
        [ours.clone().with_amsgrad(true).init(), burns.clone().with_amsgrad(true).init()],
        [
            ours.with_cautious_weight_decay(true).init(),
            burns.with_cautious_weight_decay(true).init(),
        ],
    ]
}

on_each_backend! {
    /// Bit for bit on a CPU and, since it is Burn's own there, elsewhere.
    fn one_pass_is_burns_optimizer(device: Device) {
        let device = device.autodiff();
        let start = model(&device);
        // On software Vulkan each new operation costs a second: one pair is enough.
        let pairs = pairs().into_iter().take(if is_cpu(&device.clone().inner()) { 9 } else { 1 });
        for (i, [mut ours, mut burns]) in pairs.enumerate() {
            let got = numbers(&train(&mut ours, &start, 0..4, &device));
            let expected = numbers(&train(&mut burns, &start, 0..4, &device));
            assert!(got.iter().all(|x| x.is_finite()));
            assert_eq!(got, expected, "settings {i}");
        }
    }
}

/// A record goes from either to either, and training goes on as if nothing had happened.
#[test]
fn records_are_those_of_burn() {
    for device in cpus() {
        let device = device.autodiff();
        let start = model(&device);
        let ours = || AdamWConfig::new().init();
        let burns = || optim::AdamWConfig::new().init();
        let expected = numbers(&train(&mut ours(), &start, 0..5, &device));
        let new: [fn() -> ModuleOptimizer; 2] = [ours, burns];
        for (first, second) in [(0, 0), (0, 1), (1, 0)] {
            let mut optimizer = new[first]();
            let middle = train(&mut optimizer, &start, 0..3, &device);
            let bytes = optimizer.into_bytes().unwrap();
            let mut optimizer = new[second]().from_bytes(bytes).unwrap();
            let got = train(&mut optimizer, &middle, 3..5, &device);
            assert_eq!(numbers(&got), expected, "{first} to {second}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for device in cpus() {
        let device = device.autodiff();
        let start = model(&device);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| numbers(&train(&mut AdamWConfig::new().init(), &start, 0..3, &device)))
        };
        assert_eq!(with(1), with(3));
    }
}

/// All gradients of a model one behind the other.
struct Gradients<'a>(&'a GradientsParams, Vec<f64>);

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.0.get::<D>(param.id).expect("a gradient");
        self.1.extend(gradient.into_data().iter::<f64>());
    }
}

/// Against a loop in f64: all by one factor, or none.
#[test]
fn gradients_are_clipped_all_together() {
    for device in cpus() {
        let device = device.autodiff();
        let model = model(&device);
        let numbers = |gradients: &GradientsParams| {
            let mut numbers = Gradients(gradients, vec![]);
            model.visit(&mut numbers);
            numbers.1
        };
        let clipped = |limit| clip_by_global_norm(gradients(&model, 1, &device), &model, limit);
        let before = numbers(&gradients(&model, 1, &device));
        let norm = before.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert_eq!(numbers(&clipped(norm * 1.01)), before);
        let limit = norm / 3.7;
        for (got, before) in numbers(&clipped(limit)).iter().zip(&before) {
            let expected = before * limit / norm;
            // Roundings of the squares' sum, of the factor and of the product in f32.
            assert!((got - expected).abs() <= 2e-6 * expected.abs(), "{got}, not {expected}");
        }
    }
}

/// It shows in the loss, and takes nothing else with it.
#[test]
fn a_norm_that_is_no_number_clips_nothing() {
    for device in cpus() {
        let device = device.autodiff();
        let model = model(&device);
        let mut with_nan = gradients(&model, 1, &device);
        let id = model.embedding.weight.id;
        let gradient = with_nan.remove::<2>(id).unwrap();
        let [tokens, width] = gradient.dims();
        with_nan.register(id, gradient.slice_fill([0..1, 0..1], f32::NAN));
        let before = with_nan.get::<2>(id).unwrap().slice([1..tokens, 0..width]).into_data();
        let after = clip_by_global_norm(with_nan, &model, 1e-3);
        assert_eq!(after.get::<2>(id).unwrap().slice([1..tokens, 0..width]).into_data(), before);
    }
}

/// Without gradients that push, only decay moves a parameter: matrices, nothing else.
#[test]
fn decay_is_for_matrices_only() {
    struct Zeroed<'a>(&'a mut GradientsParams);
    impl ModuleVisitor for Zeroed<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val().inner().zeros_like());
        }
    }
    #[derive(Default)]
    struct ByName {
        at: Vec<String>,
        found: Vec<(String, Vec<f32>)>,
    }
    impl ModuleVisitor for ByName {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.at.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.at.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.at.join("."), param.val().into_data().iter::<f32>().collect()));
        }
    }
    let by_name = |model: &LanguageModel| {
        let mut names = ByName::default();
        model.visit(&mut names);
        names.found
    };
    for device in cpus() {
        let device = device.autodiff();
        let model = model(&device);
        let before = by_name(&model);
        let mut gradients = GradientsParams::new();
        model.visit(&mut Zeroed(&mut gradients));
        let group = without_decay(&model);
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.5).init_for(&model);
        let after = by_name(&optimizer.step(0.1, model, gradients));
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            // Of token and position embedding, the tables are no matrices that multiply.
            let table = name.starts_with("embedding.") || name.starts_with("positions.");
            let matrix = name.ends_with("weight") && !table;
            assert_eq!(group.matches(&0.into(), Some(name)), !matrix, "{name}");
            let expected: Vec<f32> =
                before.iter().map(|x| if matrix { x * (1.0 - 0.05) } else { *x }).collect();
            for (got, expected) in after.iter().zip(&expected) {
                assert!((got - expected).abs() <= 1e-7, "{name}: {got}, expected {expected}");
            }
        }
    }
}
