//! What the checker does not show, since it changes the tokens of one sequence: that a padded row is
//! the row alone, and that nothing flows from the padding of a memory.
//!
//! Each is also tried on masks that are off by one, inverted or missing, and must accuse them.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_decoder::decoder::{
    Batch, LanguageModel, LanguageModelConfig, PositionEmbeddingConfig, Positions,
};
use burn_decoder::mask::Mask;

use super::kinds::{D_MODEL, VOCAB_SIZE, kinds};
use crate::backends::is_cpu;

const BATCH: usize = 2;
const LENGTH: usize = 7;
const MEMORY: usize = 5;

/// A row alone and in a batch are sums of other shapes: their order may differ.
const ALONE: f64 = 1e-5;

/// The real tokens of each row, and its padding on the left if it is there.
const LENGTHS: [usize; BATCH] = [LENGTH, 4];
const PADS: [usize; BATCH] = [0, LENGTH - 4];
const MEMORY_LENGTHS: [usize; BATCH] = [MEMORY, 3];

#[derive(Clone, Copy, Debug)]
enum Padding {
    Right,
    Left,
}

/// A model with its input. Deterministic: the same numbers on every run.
struct Probe {
    model: LanguageModel,
    padding: Padding,
    device: Device,
    /// What the input says; broken on purpose in the tests of the tests.
    padding_mask: Mask,
    memory_mask: Mask,
    positions: Positions,
}

impl Probe {
    fn new(config: &LanguageModelConfig, padding: Padding, device: &Device) -> Self {
        device.seed(11);
        let (padding_mask, positions) = match padding {
            Padding::Right => (Mask::lengths(LENGTHS), Positions::Index),
            Padding::Left => (Mask::pad_counts(PADS), Positions::LeftPadded(PADS.to_vec())),
        };
        Self {
            model: config.init(device).unwrap(),
            padding,
            device: device.clone(),
            padding_mask,
            memory_mask: Mask::lengths(MEMORY_LENGTHS),
            positions,
        }
    }

    fn tokens(&self) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..BATCH * LENGTH)
            .map(|i| (i * i * 5 + 3 * i + 1) as i64 % VOCAB_SIZE as i64)
            .collect();
        Tensor::from_data(TensorData::new(ids, [BATCH, LENGTH]), &self.device)
    }

    fn memory(&self) -> Tensor<3> {
        let values: Vec<f32> =
            (0..BATCH * MEMORY * D_MODEL).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_data(TensorData::new(values, [BATCH, MEMORY, D_MODEL]), &self.device)
    }

    fn has_memory(&self) -> bool {
        self.model.decoder.layers[0].cross_attention.is_some()
    }

    fn input(&self, memory: Tensor<3>) -> Batch {
        let input = Batch::new()
            .with_mask(self.padding_mask.clone())
            .with_positions(self.positions.clone());
        match self.has_memory() {
            true => input.with_memory(memory, self.memory_mask.clone()),
            false => input,
        }
    }

    /// The largest difference between the second row's real logits in the batch and alone.
    fn difference_alone(&self) -> f64 {
        let row = 1;
        let real = match self.padding {
            Padding::Right => 0..LENGTHS[row],
            Padding::Left => PADS[row]..LENGTH,
        };
        let tokens = self.tokens();
        let together = self.model.forward(tokens.clone(), self.input(self.memory())).unwrap();
        let mut input = Batch::new();
        if self.has_memory() {
            let memory = self.memory().slice([row..row + 1, 0..MEMORY_LENGTHS[row], 0..D_MODEL]);
            input = input.with_memory(memory, Mask::all_visible());
        }
        let alone = tokens.slice([row..row + 1, real.clone()]);
        let alone = self.model.forward(alone, input).unwrap().logits;
        let together = together.logits.slice([row..row + 1, real, 0..VOCAB_SIZE]);
        let difference = (together - alone).abs().max().into_scalar::<f32>();
        if difference.is_nan() { f64::INFINITY } else { difference.into() }
    }

    /// The first padded state of the memory, as (row, key), with which the row's logits change.
    fn leak_from_memory(&self) -> Option<(usize, usize)> {
        let bits = |memory: Tensor<3>| -> Vec<u32> {
            let logits = self.model.forward(self.tokens(), self.input(memory)).unwrap().logits;
            logits.into_data().iter::<f32>().map(f32::to_bits).collect()
        };
        let before = bits(self.memory());
        padded_states().find(|&(row, key)| {
            let place = [row..row + 1, key..key + 1, 0..D_MODEL];
            let other = Tensor::full([1, 1, D_MODEL], 3.0, &self.device);
            bits(self.memory().slice_assign(place, other)) != before
        })
    }

    /// The first padded state of the memory with a gradient of some logit that is not exactly 0.
    fn gradient_from_memory(&self) -> Option<(usize, usize)> {
        let device = self.device.clone().autodiff();
        let model = burn::module::Module::train(self.model.clone());
        let tokens = Tensor::<2, Int>::from_data(self.tokens().into_data(), &device);
        let memory = self.memory().autodiff().require_grad();
        let logits = model.forward(tokens, self.input(memory.clone())).unwrap().logits;
        let weights = Tensor::random(logits.dims(), Distribution::Default, &device);
        let gradients = (logits * weights).sum().backward();
        let gradient = memory.grad(&gradients).unwrap().abs().sum_dim(2);
        let sizes: Vec<f32> = gradient.into_data().iter().collect();
        // NaN counts as not 0.
        padded_states().find(|&(row, key)| sizes[row * MEMORY + key] != 0.0)
    }
}

/// The padded states of the memory: (row, key).
fn padded_states() -> impl Iterator<Item = (usize, usize)> {
    (0..BATCH).flat_map(|row| (MEMORY_LENGTHS[row]..MEMORY).map(move |key| (row, key)))
}

/// All kinds that `is_wanted`. On wgpu the last of them stands for all: every new shape is a shader
/// to compile.
fn kinds_on(
    device: &Device,
    is_wanted: impl Fn(&LanguageModelConfig) -> bool,
) -> Vec<(&'static str, LanguageModelConfig)> {
    let mut kinds: Vec<_> = kinds().into_iter().filter(|(_, config)| is_wanted(config)).collect();
    if !is_cpu(device) {
        kinds.drain(..kinds.len() - 1);
    }
    kinds
}

fn has_memory(config: &LanguageModelConfig) -> bool {
    config.decoder.layer.cross_attention.is_some()
}

on_each_backend! {
    fn a_padded_row_is_the_row_alone(device: Device) {
        let allowed = ALONE * crate::backends::tolerance_factor(&device);
        for (kind, config) in kinds_on(&device, |_| true) {
            for padding in [Padding::Right, Padding::Left] {
                for positions in
                    [PositionEmbeddingConfig::sinusoidal(), PositionEmbeddingConfig::learned(LENGTH)]
                {
                    let config = config.clone().with_positions(Some(positions));
                    let difference = Probe::new(&config, padding, &device).difference_alone();
                    assert!(difference <= allowed, "{kind}, {padding:?}: {difference:e}");
                }
            }
        }
    }

    fn nothing_flows_from_a_memorys_padding(device: Device) {
        let kinds = kinds_on(&device, has_memory);
        assert!(!kinds.is_empty());
        for (kind, config) in kinds {
            for padding in [Padding::Right, Padding::Left] {
                let probe = Probe::new(&config, padding, &device);
                // Bits are promised on a CPU, and exact zeros everywhere.
                let moved = if is_cpu(&device) { probe.leak_from_memory() } else { None };
                assert_eq!(moved, None, "{kind}, {padding:?}: (row, key)");
                assert_eq!(probe.gradient_from_memory(), None, "{kind}, {padding:?}: (row, key)");
            }
        }
    }

    /// The probes accuse every broken mask, and positions that count the padding.
    fn what_is_broken_is_caught(device: Device) {
        if !is_cpu(&device) {
            return; // The probes are the same code; once is enough.
        }
        let (_, plain) = kinds().swap_remove(3);
        for (name, padding_mask) in [
            ("off by one", Mask::pad_counts(PADS.map(|pads| pads.saturating_sub(1)))),
            ("inverted", !Mask::pad_counts(PADS)),
            ("missing", Mask::all_visible()),
        ] {
            let probe = Probe { padding_mask, ..Probe::new(&plain, Padding::Left, &device) };
            assert!(probe.difference_alone() > 10.0 * ALONE, "{name}");
        }
        let (_, cross) = kinds().pop().unwrap();
        for (name, memory_mask) in [
            ("off by one", Mask::lengths(MEMORY_LENGTHS.map(|length| MEMORY.min(length + 1)))),
            ("inverted", !Mask::lengths(MEMORY_LENGTHS)),
            ("missing", Mask::all_visible()),
        ] {
            let probe = Probe { memory_mask, ..Probe::new(&cross, Padding::Right, &device) };
            assert!(probe.leak_from_memory().is_some(), "{name}");
            assert!(probe.gradient_from_memory().is_some(), "{name}");
            assert!(probe.difference_alone() > 10.0 * ALONE, "{name}");
        }
        let positions = Positions::Index;
        let probe = Probe { positions, ..Probe::new(&plain, Padding::Left, &device) };
        assert!(probe.difference_alone() > 10.0 * ALONE);
    }
}
