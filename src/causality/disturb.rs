//! Dead paths: a gate of zero, or a projection that starts at zero, hides what lies behind it. No
//! change of the input shows a leak there, and training opens the gate.
//!
//! So the model is checked once more with its weights disturbed. And a weight that moves nothing even
//! then, by its gradient, is told: what lies behind it has not been checked.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::perturb::to_host;

/// Noise that is added, as a part of a tensor's own size; for a tensor of zeros, its size.
const NOISE: f64 = 0.1;

/// The module with noise added to every float tensor that is learnt: to zeros too, and to gates that
/// are closed by them.
pub fn disturbed<M: Module>(module: &M, seed: u64) -> M {
    module.clone().map(&mut Disturb { rng: StdRng::seed_from_u64(seed) })
}

struct Disturb {
    rng: StdRng,
}

impl ModuleMapper for Disturb {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let old = to_host(tensor.clone());
            let root = (old.iter().map(|x| x * x).sum::<f64>() / old.len().max(1) as f64).sqrt();
            let size = if root > 0.0 && root.is_finite() { NOISE * root } else { NOISE };
            let noise: Vec<f32> =
                old.iter().map(|_| (size * self.rng.random_range(-1.732..1.732)) as f32).collect();
            let noise = TensorData::new(noise, tensor.dims()).convert_dtype(tensor.dtype());
            let is_learnt = tensor.is_require_grad();
            let noise = Tensor::from_data(noise, &tensor.device());
            let new = tensor.detach() + noise;
            if is_learnt { new.require_grad() } else { new }
        })
    }
}

/// Collects, by their paths, the tensors that are learnt, and whether anything moved by them.
#[derive(Default)]
pub(super) struct Felt {
    gradients: Option<Gradients>,
    path: Vec<String>,
    felt: BTreeMap<String, bool>,
}

impl Felt {
    /// Adds the gradients of one pass.
    pub fn add<M: Module>(&mut self, module: &M, gradients: Gradients) {
        self.gradients = Some(gradients);
        module.visit(self);
    }

    /// The tensors that nothing moved by.
    pub fn dead(self) -> Vec<String> {
        self.felt.into_iter().filter(|(_, felt)| !felt).map(|(name, _)| name).collect()
    }
}

impl ModuleVisitor for Felt {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (tensor, name) = (param.val(), self.path.join("."));
        if !tensor.is_require_grad() {
            return;
        }
        let gradient = self.gradients.as_ref().and_then(|gradients| tensor.grad(gradients));
        let felt = gradient.is_some_and(|gradient| to_host(gradient).iter().any(|&x| x != 0.0));
        *self.felt.entry(name).or_default() |= felt;
    }

    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
}
