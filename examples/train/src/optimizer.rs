//! The optimizer and its schedule: AdamW in two groups, a learning rate that warms up and then falls.

use std::sync::Arc;

use burn::lr_scheduler::LrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::lr_scheduler::sequential::SequentialLrSchedulerConfig;
use burn::module::ParamGroup;
use burn::optim::{DynOptimizer, DynState, ModuleOptimizer, StateSink, StateSource};
use burn::tensor::Device;
use burn::tensor::kind::BridgeTensor;
use burn_decoder::optim::AdamWConfig;

use super::args::Settings;
use super::failure::Failure;

/// AdamW; norms, biases and embeddings do not decay. The state that a checkpoint keeps is loaded to
/// `device`.
pub fn optimizer(settings: &Settings, device: &Device) -> ModuleOptimizer {
    let decaying = |decay: f64| {
        AdamWConfig::new()
            .with_beta_2(settings.beta_2 as f32)
            .with_epsilon(1e-8)
            .with_weight_decay(decay as f32)
            .build()
    };
    let left_alone = [r"(gamma|beta|bias|sinks)$", r"(^|\.)embedding\.", r"(^|\.)positions\."];
    let left_alone = ParamGroup::from_any_regexes(left_alone.to_vec());
    let left_alone = left_alone.expect("the patterns are regular expressions");
    let on_device =
        |decay| OnDevice { optimizer: Arc::new(decaying(decay)), device: device.clone() };
    ModuleOptimizer::from(decaying(settings.weight_decay))
        .with_group(ParamGroup::all(), on_device(settings.weight_decay), None)
        .with_group(left_alone, on_device(0.0), None)
}

/// A line up to the highest learning rate, and half a cosine down to the last.
pub fn schedule(settings: &Settings) -> Result<ModuleLrScheduler, Failure> {
    let Settings { warm_up, steps, learning_rate: highest, final_learning_rate: last, .. } =
        *settings;
    let down = CosineAnnealingLrSchedulerConfig::new(highest, steps - warm_up).with_min_lr(last);
    let schedule = if warm_up == 0 {
        down.init()
    } else {
        let first = highest / (warm_up + 1) as f64;
        let up = LinearLrSchedulerConfig::new(first, highest, warm_up);
        let schedulers = vec![LrSchedulerConfig::Linear(up), LrSchedulerConfig::Cosine(down)];
        SequentialLrSchedulerConfig::new(schedulers, vec![warm_up]).init()
    };
    schedule.map_err(Failure::Run)
}

/// An optimizer whose state is loaded to a device of its own. Burn loads it to its default device,
/// which in a binary with several backends may be a GPU that this machine does not have.
struct OnDevice {
    optimizer: Arc<dyn DynOptimizer>,
    device: Device,
}

impl DynOptimizer for OnDevice {
    fn step_dyn(
        &self,
        rank: usize,
        learning_rate: f64,
        tensor: BridgeTensor,
        gradient: BridgeTensor,
        state: Option<DynState>,
    ) -> (BridgeTensor, Option<DynState>) {
        self.optimizer.step_dyn(rank, learning_rate, tensor, gradient, state)
    }

    fn to_device_dyn(&self, state: DynState, device: &Device) -> DynState {
        self.optimizer.to_device_dyn(state, device)
    }

    fn state_flatten(&self, prefix: &str, state: &DynState, out: &mut StateSink) {
        self.optimizer.state_flatten(prefix, state, out);
    }

    fn state_unflatten(
        &self,
        rank: usize,
        prefix: &str,
        source: &mut StateSource,
        _: &Device,
    ) -> Option<DynState> {
        self.optimizer.state_unflatten(rank, prefix, source, &self.device)
    }
}
