//! The checker: how a check is asked for.

use std::fmt;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};

use super::disturb::{self, Felt};
use super::input::ModelInput;
use super::leaks::CheckSettings;
use super::perturb::ModelOutput;
use super::report::Path;
use crate::mask::Mask;

/// Checks any Burn model for information that flows where the promised mask hides it. See the
/// [module](super) for how to use it.
#[must_use = "a check does nothing until it is run"]
pub struct CausalityCheck<'a, I: ModelInput> {
    pub(super) paths: Vec<(Path, Forward<'a, I>)>,
    pub(super) device: Device,
    /// Vocabulary or width.
    pub(super) size: usize,
    pub(super) length: usize,
    pub(super) batch: usize,
    pub(super) mask: Mask,
    pub(super) seed: u64,
    pub(super) gradients: bool,
    pub(super) own_hidden: bool,
    pub(super) prefixes: bool,
    pub(super) memory: Option<Box<dyn Fn(I) -> Tensor<3> + 'a>>,
    pub(super) dead: Option<FindDead<'a, I>>,
    pub(super) settings: CheckSettings,
    pub(super) progress: Option<Box<dyn Fn(usize, usize) + 'a>>,
}

/// From an input on the autodiff device to the weights that move nothing; `None` if there are no
/// gradients.
pub(super) type FindDead<'a, I> = Box<dyn Fn(&[I]) -> Option<Vec<String>> + 'a>;

pub(super) type Forward<'a, I> = Box<dyn Fn(I) -> ModelOutput + 'a>;

impl<I: ModelInput> fmt::Debug for CausalityCheck<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CausalityCheck")
            .field("paths", &self.paths.iter().map(|(path, _)| path).collect::<Vec<_>>())
            .field("device", &self.device)
            .field("size", &self.size)
            .field("length", &self.length)
            .field("batch", &self.batch)
            .field("mask", &self.mask)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl<'a> CausalityCheck<'a, Tensor<2, Int>> {
    /// Checks a model from tokens `[batch, length]` to logits `[batch, length, vocabulary]` (the
    /// last axis may have any size). Ids are drawn from `0..vocabulary`, at least 2.
    pub fn tokens(
        vocabulary: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(Tensor<2, Int>) -> Tensor<3> + 'a,
    ) -> Self {
        Self::new(vocabulary, length, device, forward)
    }

    /// Checks a loss: from tokens `[batch, length]` to the losses in nats `[batch, length - 1]` of
    /// every token but the first, each by what comes before it. Neither may a loss depend on later
    /// tokens (a norm or a softmax over the sequence), nor may it have seen its own token (labels that
    /// are not shifted): the latter by trying every id in a place, which needs a small vocabulary, and
    /// the plain cross-entropy without weights.
    ///
    /// In the report, query `t` is the loss of token `t`; query 0 has none.
    ///
    /// # Panics
    ///
    /// [`CausalityCheck::run`] panics if the losses have another shape.
    pub fn losses(
        vocabulary: usize,
        length: usize,
        device: &Device,
        losses: impl Fn(Tensor<2, Int>) -> Tensor<2> + 'a,
    ) -> Self {
        let mut check = Self::new(vocabulary, length, device, move |tokens| {
            let [batch, _] = tokens.dims();
            let losses = losses(tokens);
            let expected = [batch, length.saturating_sub(1)];
            assert_eq!(losses.dims(), expected, "one loss for every token but the first");
            let none = Tensor::zeros([batch, 1], &losses.device());
            Tensor::cat(vec![none, losses], 1).unsqueeze_dim(2) // [batch, length, 1]
        });
        check.settings.losses = true;
        check
    }
}

impl<'a> CausalityCheck<'a, Tensor<3>> {
    /// Checks a model, or a layer, from embeddings `[batch, length, width]` to outputs
    /// `[batch, length, any]`. Looks by gradients and NaN too.
    pub fn embeddings(
        width: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(Tensor<3>) -> Tensor<3> + 'a,
    ) -> Self {
        Self::new(width, length, device, forward)
    }
}

impl<'a, I: ModelInput> CausalityCheck<'a, I> {
    fn new(
        size: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(I) -> Tensor<3> + 'a,
    ) -> Self {
        let settings = CheckSettings {
            promise_given: false,
            layers: None,
            tolerance: None,
            agreement: 1e-4,
            losses: false,
            disturbed: false,
        };
        Self {
            paths: Vec::new(),
            device: device.clone(),
            size,
            length,
            batch: 8,
            mask: Mask::look_ahead(),
            seed: 0,
            gradients: true,
            own_hidden: false,
            prefixes: false,
            memory: None,
            dead: None,
            settings,
            progress: None,
        }
        .with_any_path(Path::Plain, move |input| (forward(input), None))
    }

    fn with_any_path(mut self, path: Path, forward: impl Fn(I) -> ModelOutput + 'a) -> Self {
        self.paths.push((path, Box::new(forward)));
        self
    }

    /// Holds the model to this mask, on a square grid of the batch, instead of look-ahead. What the
    /// mask hides must not be seen, and what it shows must be.
    pub fn with_promise(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self.settings.promise_given = true;
        self
    }

    /// The number of attention layers. Without it a chain of any length is allowed, so that a
    /// window can't be told from look-ahead.
    pub fn with_layers(mut self, layers: usize) -> Self {
        self.settings.layers = Some(layers);
        self
    }

    /// Rows in each forward pass; default 8. More rows need fewer passes and more memory. A promise
    /// that speaks of rows (lengths, documents) needs exactly its own number.
    pub fn with_batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }

    /// The seed of all inputs; default 0.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The largest move that does not count, in place of the measured one (0 where equal runs agree
    /// to the last bit).
    pub fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.settings.tolerance = Some(tolerance);
        self
    }

    /// How far the outputs of another path may differ from the plain one's, as a part of the
    /// largest output; default 1e-4. Half precision needs more.
    pub fn with_agreement(mut self, agreement: f32) -> Self {
        self.settings.agreement = agreement;
        self
    }

    /// Whether to look by gradients where the input can be differentiated; default true.
    pub fn with_gradients(mut self, gradients: bool) -> Self {
        self.gradients = gradients;
        self
    }

    /// Checks the cached path too: the same tokens, fed in pieces through a fresh cache, with the
    /// outputs of all pieces put together again as `[batch, length, any]`. Whether they are those of the
    /// plain path, [`Report::assert_keeps_promise`](super::Report::assert_keeps_promise) says.
    pub fn with_cached(self, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Cached, move |input| (forward(input), None))
    }

    /// Checks the path that returns attention weights too: outputs, and weights
    /// `[batch, heads, length, length]` before dropout (the heads of several layers side by side).
    pub fn with_weights(self, forward: impl Fn(I) -> (Tensor<3>, Tensor<4>) + 'a) -> Self {
        self.with_any_path(Path::Weights, move |input| {
            let (output, weights) = forward(input);
            (output, Some(weights))
        })
    }

    /// Checks the path with dropout on too. Its inputs stand on the autodiff device, where Burn's
    /// dropout acts. Since its outputs are random, gradients are what finds leaks here.
    pub fn with_dropout(self, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Dropout, move |input| (forward(input), None))
    }

    /// Checks any other path that should give the plain one's outputs (fused, another precision).
    pub fn with_path(self, name: impl Into<String>, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Named(name.into()), move |input| (forward(input), None))
    }

    /// Checks a recurrent model's other form too: one position at a time, from a fresh state. It must
    /// give the outputs of the plain path, and what moves what must be the same:
    /// [`Report::assert_keeps_promise`](super::Report::assert_keeps_promise).
    ///
    /// `step` takes the state and one position of each row, `[batch, 1]` or `[batch, 1, width]`, and
    /// returns its output `[batch, 1, any]`.
    pub fn with_steps<S>(
        self,
        fresh: impl Fn() -> S + 'a,
        step: impl Fn(&mut S, I) -> Tensor<3> + 'a,
    ) -> Self {
        let length = self.length;
        self.with_any_path(Path::Steps, move |input| {
            let mut state = fresh();
            let outputs = (0..length).map(|index| step(&mut state, input.position(index)));
            (Tensor::cat(outputs.collect(), 1), None)
        })
    }

    /// Looks at what a cross-attention reads, `[batch, states, width]`, as it is computed beside this
    /// input: every query sees it, so no position of the input may move it.
    pub fn with_memory(mut self, memory: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.memory = Some(Box::new(memory));
        self
    }

    /// Runs the model on prefixes of the input alone too, for models that take rows of any length: what
    /// it says of a prefix must not depend on how much follows.
    pub fn with_prefixes(mut self) -> Self {
        self.prefixes = true;
        self
    }

    /// The output at a position predicts the input at that position (an input that the model shifts to
    /// the right itself), so it must not see it either.
    pub fn with_own_hidden(mut self) -> Self {
        self.own_hidden = true;
        self
    }

    /// Checks the model with disturbed weights too: noise is added to every float tensor of the module,
    /// so that what lies behind a gate or a projection of zero shows. Weights that move nothing even
    /// then are named, and nothing is proven. `forward` is the plain path's, for any such module.
    pub fn with_module<M: Module + 'a>(
        mut self,
        module: &M,
        forward: impl Fn(&M, I) -> Tensor<3> + Clone + 'a,
    ) -> Self {
        let module = disturb::disturbed(module, self.seed);
        let (trained, of_trained) = (module.clone().train(), forward.clone());
        self.dead = Some(Box::new(move |inputs: &[I]| {
            let mut felt = Felt::default();
            for input in inputs {
                let output = of_trained(&trained, input.clone());
                if !output.is_tracked() {
                    return None;
                }
                let weights = output.random_like(Distribution::Uniform(-1.0, 1.0));
                felt.add(&trained, (output * weights.detach()).sum().backward());
            }
            Some(felt.dead())
        }));
        self.settings.disturbed = true;
        self.with_any_path(Path::Disturbed, move |input| (forward(&module, input), None))
    }

    /// Calls `progress(done, expected)` after each forward pass.
    pub fn with_progress(mut self, progress: impl Fn(usize, usize) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }
}
