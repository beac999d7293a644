//! A training step of a whole model: forward with the loss, backward, and AdamW.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{self, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{self, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn_decoder::attention::{Kernel, MultiHeadAttentionConfig, Request};
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, PositionEmbeddingConfig,
};
use burn_decoder::loss::CrossEntropyConfig;
use burn_decoder::optim::AdamWConfig;

use crate::{By, Case, SEQUENCES};

const VOCAB: usize = 32;
const GPT2_VOCAB: usize = 50_257;
const GPT2_SEQUENCES: usize = 4;

/// What of Burn's is taken instead of this crate's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// Its AdamW.
    pub burns_optimizer: bool,
    /// Its cross-entropy, on all logits.
    pub burns_loss: bool,
}

/// How long the parts of a step took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    pub forward: Duration,
    pub backward: Duration,
    pub optimizer: Duration,
}

impl Phases {
    pub fn total(self) -> Duration {
        self.forward + self.backward + self.optimizer
    }
}

impl Case {
    /// A step of `copy` or `gpt2`, which says how long its parts took.
    ///
    /// # Panics
    ///
    /// For another case, or for one that there is not.
    pub fn training_step(&self, choice: Choice) -> Box<dyn FnMut() -> Phases> {
        let device = &self.device();
        match (self.what.as_str(), self.by) {
            ("copy", By::Ours(kernel)) => self.ours(copy_model(device), VOCAB, kernel, choice),
            ("gpt2", By::Ours(kernel)) => self.ours(gpt2_model(device), GPT2_VOCAB, kernel, choice),
            ("copy", By::Burn) => self.burns(),
            (other, by) => panic!("{other} by {by:?}: expected copy, or gpt2 by this crate"),
        }
    }

    /// Inputs and the tokens that come next, of a vocabulary.
    fn ids(&self, sequences: usize, vocab: usize) -> [Tensor<2, Int>; 2] {
        let shape = [sequences, self.length + 1];
        let random = Distribution::Uniform(0.0, vocab as f64);
        let ids = Tensor::<2, Int>::random(shape, random, &self.device());
        [ids.clone().narrow(1, 0, self.length), ids.narrow(1, 1, self.length)]
    }

    fn ours(
        &self,
        model: LanguageModel,
        vocab: usize,
        kernel: Kernel,
        choice: Choice,
    ) -> Box<dyn FnMut() -> Phases> {
        let sequences = if vocab == VOCAB { SEQUENCES } else { GPT2_SEQUENCES };
        let [inputs, targets] = self.ids(sequences, vocab);
        let request = Request::new().with_kernel(kernel);
        let cross_entropy = CrossEntropyConfig::new().init().expect("settings that fit");
        let on_logits = CrossEntropyLossConfig::new().init(&self.device());
        let tokens = sequences * self.length;
        let loss = move |model: &LanguageModel| {
            if choice.burns_loss {
                let output = model.forward(inputs.clone(), request).expect("tokens");
                let logits = output.logits.reshape([tokens, vocab]);
                return on_logits.forward(logits, targets.clone().reshape([tokens]));
            }
            model
                .loss(inputs.clone(), request, targets.clone(), &cross_entropy)
                .expect("tokens of the vocabulary")
        };
        let optimizer = match choice.burns_optimizer {
            true => optim::AdamWConfig::new().init(),
            false => AdamWConfig::new().init(),
        };
        self.step(model, optimizer, loss)
    }

    fn burns(&self) -> Box<dyn FnMut() -> Phases> {
        let length = self.length;
        let [inputs, targets] = self.ids(SEQUENCES, VOCAB);
        let hidden = generate_autoregressive_mask(SEQUENCES, length, &self.device());
        let cross_entropy = CrossEntropyLossConfig::new().init(&self.device());
        let model = BurnCopy::new(length, &self.device());
        let loss = move |model: &BurnCopy| {
            let logits = model.forward(inputs.clone(), hidden.clone());
            let logits = logits.reshape([SEQUENCES * length, VOCAB]);
            cross_entropy.forward(logits, targets.clone().reshape([SEQUENCES * length]))
        };
        self.step(model, optim::AdamWConfig::new().init(), loss)
    }

    /// The loss, and in training a step of AdamW.
    fn step<M: Module + 'static>(
        &self,
        model: M,
        mut optimizer: ModuleOptimizer,
        loss: impl Fn(&M) -> Tensor<1> + 'static,
    ) -> Box<dyn FnMut() -> Phases> {
        let training = self.training;
        let mut model = Some(model);
        Box::new(move || {
            let current = model.take().expect("the model of the last step");
            let mut phases = Phases::default();
            let start = Instant::now();
            let loss = loss(&current);
            phases.forward = start.elapsed();
            model = Some(if training {
                let gradients = GradientsParams::from_grads(loss.backward(), &current);
                phases.backward = start.elapsed() - phases.forward;
                let stepped = optimizer.step(1e-3, current, gradients);
                phases.optimizer = start.elapsed() - phases.forward - phases.backward;
                stepped
            } else {
                black_box(loss);
                current
            });
            phases
        })
    }
}

/// The copy example's model.
fn copy_model(device: &Device) -> LanguageModel {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(64, 4).with_dropout(0.0),
        FeedForwardConfig::new(64, 256),
    );
    LanguageModelConfig::new(VOCAB, DecoderConfig::new(layer, 2))
        .init(device)
        .expect("a configuration that fits")
}

/// GPT-2 with 124M parameters, without dropout.
fn gpt2_model(device: &Device) -> LanguageModel {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(768, 12).with_dropout(0.0),
        FeedForwardConfig::new(768, 3072).with_activation(Activation::GeluTanh),
    );
    LanguageModelConfig::new(GPT2_VOCAB, DecoderConfig::new(layer, 12))
        .with_positions(Some(PositionEmbeddingConfig::learned(1024)))
        .with_scale_embedding(false)
        .with_embedding_std(Some(0.02))
        .with_tied_head(true)
        .init(device)
        .expect("a configuration that fits")
}

/// The copy example's model from burn-nn's modules.
#[derive(Module, Debug)]
struct BurnCopy {
    tokens: Embedding,
    positions: Embedding,
    layers: TransformerEncoder,
    norm: nn::LayerNorm,
    head: Linear,
}

impl BurnCopy {
    fn new(length: usize, device: &Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(VOCAB, 64).init(device),
            positions: EmbeddingConfig::new(length, 64).init(device),
            layers: TransformerEncoderConfig::new(64, 256, 4, 2)
                .with_dropout(0.0)
                .with_norm_first(true)
                .init(device),
            norm: nn::LayerNormConfig::new(64).init(device),
            head: LinearConfig::new(64, VOCAB).init(device),
        }
    }

    fn forward(&self, ids: Tensor<2, Int>, hidden: Tensor<3, Bool>) -> Tensor<3> {
        let x = self.tokens.forward(ids) + self.positions.weight.val().unsqueeze();
        let x = self.layers.forward(TransformerEncoderInput::new(x).mask_attn(hidden));
        self.head.forward(self.norm.forward(x))
    }
}
