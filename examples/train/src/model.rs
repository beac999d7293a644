//! The model for burn-train: a step of training, and one of validation.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::{Adaptor, ItemLazy, LossInput};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use burn_decoder::decoder::{LanguageModel, Request};
use burn_decoder::generation::Threads;
use burn_decoder::loss::{CrossEntropy, CrossEntropyConfig};
use burn_decoder::optim::clip_by_global_norm;
use burn_decoder::training::{ForwardPass, TextLoss};

use super::rows::TextBatch;

/// A language model that learns to say the next token.
#[derive(Module, Debug)]
pub struct NextToken {
    pub language: LanguageModel,
    /// What each pass counts: 1 over the passes of a step, whose gradients burn-train adds.
    #[module(skip)]
    share: f64,
    /// The norm that all gradients together are cut to.
    #[module(skip)]
    clip: Option<f64>,
    #[module(skip)]
    cross_entropy: CrossEntropy,
    #[module(skip)]
    threads: Threads,
}

impl NextToken {
    pub fn new(language: LanguageModel, passes_in_a_step: usize, clip: f64) -> Self {
        let clip = (clip > 0.0).then_some(clip);
        let cross_entropy = CrossEntropyConfig::new().init().expect("settings that fit");
        let share = 1.0 / passes_in_a_step as f64;
        Self { language, share, clip, cross_entropy, threads: Threads::Global }
    }

    /// What the threads do in a step; nothing that changes a result.
    #[must_use]
    pub fn with_threads(mut self, threads: Threads) -> Self {
        self.threads = threads;
        self
    }

    /// The mean loss of all tokens, in nats, `[1]`.
    fn loss(&self, batch: &TextBatch) -> Tensor<1> {
        // The tokens are the tokenizer's; a look at them would wait for a GPU.
        let input = batch.rows().asking(Request::new().with_unchecked_tokens());
        let (read, said) = (batch.read.clone(), batch.said.clone());
        let loss = self.language.loss(read, input, said, &self.cross_entropy);
        loss.expect("the rows fit the model")
    }
}

/// What a step of training says.
pub struct TrainingOutput {
    loss: Tensor<1>,
}

/// What a step of validation says.
pub struct ValidationOutput {
    loss: Tensor<1>,
    tokens: usize,
    bytes: usize,
    language: LanguageModel,
}

impl TrainStep for NextToken {
    type Input = TextBatch;
    type Output = TrainingOutput;

    fn step(&self, batch: TextBatch) -> TrainOutput<TrainingOutput> {
        // A module goes to another thread, but is not shared with it.
        let model = self.clone();
        self.threads.run(move || {
            let loss = model.loss(&batch);
            let gradients = (loss.clone() * model.share).backward();
            TrainOutput::new(&model, gradients, TrainingOutput { loss })
        })
    }

    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        self.threads.run(move || {
            let gradients = match self.clip {
                Some(limit) => clip_by_global_norm(gradients, &self, limit),
                None => gradients,
            };
            optimizer.step(learning_rate, self, gradients)
        })
    }
}

impl InferenceStep for NextToken {
    type Input = TextBatch;
    type Output = ValidationOutput;

    fn step(&self, batch: TextBatch) -> ValidationOutput {
        let model = self.clone();
        let loss = self.threads.run(|| model.loss(&batch));
        ValidationOutput {
            loss,
            tokens: batch.said.dims().iter().product(),
            bytes: batch.bytes,
            language: self.language.clone(),
        }
    }
}

impl ItemLazy for TrainingOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self { loss: self.loss.without_autodiff() })
    }
}

impl ItemLazy for ValidationOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(self)
    }
}

impl Adaptor<LossInput> for TrainingOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<LossInput> for ValidationOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

impl Adaptor<TextLoss> for ValidationOutput {
    fn adapt(&self) -> TextLoss {
        TextLoss { loss: self.loss.clone(), tokens: self.tokens, bytes: self.bytes }
    }
}

impl Adaptor<ForwardPass> for ValidationOutput {
    fn adapt(&self) -> ForwardPass {
        let language = self.language.clone();
        let request = || Request::new().with_unchecked_tokens();
        ForwardPass::new(&self.loss.device(), move |tokens| {
            language.forward(tokens, request()).expect("plain rows fit the model").logits
        })
    }
}

impl Adaptor<LanguageModel> for ValidationOutput {
    fn adapt(&self) -> LanguageModel {
        self.language.clone()
    }
}
