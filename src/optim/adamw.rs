//! AdamW behind Burn's `Optimizer`, and which parameters it decays.

use burn::config::Config;
use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{
    self, AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer,
};
use burn::tensor::{Device, Tensor};

use crate::kernels::{AdamWStep, adamw, runs_on};

/// Configuration of [`AdamW`]: that of Burn's, with its defaults.
#[derive(Config, Debug)]
pub struct AdamWConfig {
    /// How much of the mean gradient is kept with each step.
    #[config(default = 0.9)]
    pub beta_1: f32,
    /// How much of the mean square gradient is kept with each step.
    #[config(default = 0.999)]
    pub beta_2: f32,
    /// Added to the root of the mean square gradient.
    #[config(default = 1e-5)]
    pub epsilon: f32,
    /// How much of a parameter is taken off with each step, times the learning rate.
    #[config(default = 1e-4)]
    pub weight_decay: f32,
    /// Decay only where it goes the way of the step (<https://arxiv.org/abs/2510.12402>). Always by
    /// Burn's optimizer.
    #[config(default = false)]
    pub cautious_weight_decay: bool,
    /// Divide by the largest mean square gradient so far (Reddi et al. 2018). Always by Burn's
    /// optimizer.
    #[config(default = false)]
    pub amsgrad: bool,
    /// Clips each parameter's gradient.
    pub grad_clipping: Option<GradientClippingConfig>,
}

impl AdamWConfig {
    /// The optimizer of single parameters, for
    /// [`ModuleOptimizer::with_group`](burn::optim::ModuleOptimizer::with_group).
    #[must_use]
    pub fn build(&self) -> AdamW {
        let burns = optim::AdamWConfig::new()
            .with_beta_1(self.beta_1)
            .with_beta_2(self.beta_2)
            .with_epsilon(self.epsilon)
            .with_weight_decay(self.weight_decay)
            .with_cautious_weight_decay(self.cautious_weight_decay)
            .with_amsgrad(self.amsgrad)
            .build();
        AdamW { config: self.clone(), burns }
    }

    /// The optimizer of a module, with the same decay for all parameters.
    #[must_use]
    pub fn init(&self) -> ModuleOptimizer {
        let optimizer = ModuleOptimizer::from(self.build());
        match &self.grad_clipping {
            Some(clipping) => optimizer.with_grad_clipping(clipping.init()),
            None => optimizer,
        }
    }

    /// The optimizer of a module, with decay for matrices only: not for norms and biases, and not for
    /// embeddings. See [`without_decay`].
    #[must_use]
    pub fn init_for<M: Module>(&self, module: &M) -> ModuleOptimizer {
        let free = Self { weight_decay: 0.0, ..self.clone() };
        let clipping = self.grad_clipping.as_ref().map(GradientClippingConfig::init);
        self.init().with_group(without_decay(module), free.build(), clipping)
    }
}

/// The parameters that weight decay usually leaves alone, by their paths: vectors (norms, biases) and
/// the tables of embeddings, Burn's and this crate's.
pub fn without_decay<M: Module>(module: &M) -> ParamGroup {
    let mut found = Found::default();
    module.visit(&mut found);
    ParamGroup::from_paths(found.paths)
}

#[derive(Default)]
struct Found {
    /// The names on the way to the parameter, each with the kind of what it is in.
    at: Vec<(String, String)>,
    paths: Vec<String>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.at.push((name.into(), container_type.into()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.at.pop();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        let holder = self.at.last().map(|(_, holder)| holder.as_str());
        let table = matches!(holder, Some("Struct:Embedding" | "Struct:Learned"));
        if D <= 1 || table {
            let names: Vec<&str> = self.at.iter().map(|(name, _)| name.as_str()).collect();
            self.paths.push(names.join("."));
        }
    }
}

/// AdamW (Loshchilov and Hutter 2019): Burn's, in one pass where this crate has a kernel. Built by
/// [`AdamWConfig`].
#[derive(Clone)]
pub struct AdamW {
    config: AdamWConfig,
    burns: optim::AdamW,
}

impl AdamW {
    fn is_plain(&self) -> bool {
        !self.config.amsgrad && !self.config.cautious_weight_decay
    }
}

impl Optimizer for AdamW {
    /// That of Burn's.
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamWState<D>>,
    ) -> (Tensor<D>, Option<AdamWState<D>>) {
        if !self.is_plain() || !runs_on(&parameter) || !runs_on(&gradient) {
            return self.burns.step(learning_rate, parameter, gradient, state);
        }
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => {
                (momentum.time + 1, Some([momentum.moment_1, momentum.moment_2]))
            }
            None => (1, None),
        };
        let decay = learning_rate * f64::from(self.config.weight_decay);
        let step = AdamWStep {
            beta_1: self.config.beta_1,
            beta_2: self.config.beta_2,
            epsilon: self.config.epsilon,
            learning_rate: learning_rate as f32,
            keep: (1.0 - decay) as f32,
            time: time as i32,
        };
        let [parameter, moment_1, moment_2] = adamw(parameter, gradient, moments, step);
        let momentum = AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2: None };
        (parameter, Some(AdamWState { momentum }))
    }

    fn to_device<const D: usize>(state: AdamWState<D>, device: &Device) -> AdamWState<D> {
        optim::AdamW::to_device(state, device)
    }
}
