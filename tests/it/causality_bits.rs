//! Nothing flows from the future, from padding, or from another row, to the last bit.
//!
//! Three probes on a small model: change the future and compare the earlier logits bit for bit;
//! take gradients with respect to future embeddings, which must be exactly 0; compare a padded row
//! with the same row alone. Every probe is also run on masks that are off by one, inverted or
//! missing, and must accuse each of them.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_decoder::attention::{
    AttentionSinks, HeadMapping, Kernel, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig,
    RotaryLayout, RotaryScaling,
};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, LanguageModelInput, NormConfig, NormPlacement, PositionEmbeddingConfig,
    Positions, Request, ResidualLayout,
};
use burn_decoder::mask::Mask;

use crate::backends::is_cpu;

pub const VOCAB_SIZE: usize = 13;
pub const D_MODEL: usize = 12;
const BATCH: usize = 2;
const LENGTH: usize = 7;
const MEMORY: usize = 5;

/// A row alone and in a batch are sums of other shapes: their order may differ.
const ALONE: f64 = 1e-5;

/// Pairs of neighbours, part of the channels, and a stretched context.
fn neighbours() -> RotaryConfig {
    RotaryConfig::new().with_dim(Some(4)).with_layout(RotaryLayout::Interleaved).with_scaling(Some(
        RotaryScaling::Yarn {
            factor: 2.0,
            original_context: 16,
            beta_fast: 4.0,
            beta_slow: 1.0,
            attention_factor: None,
            truncate: true,
        },
    ))
}

/// The layer with another self-attention.
fn with_attention(
    mut layer: DecoderLayerConfig,
    change: impl Fn(MultiHeadAttentionConfig) -> MultiHeadAttentionConfig,
) -> DecoderLayerConfig {
    layer.self_attention = change(layer.self_attention);
    layer
}

/// Every kind of layer, each option at least once.
pub fn kinds() -> Vec<(&'static str, LanguageModelConfig)> {
    use Activation::*;
    let layer = |heads, kv_heads, activation| {
        DecoderLayerConfig::new(
            MultiHeadAttentionConfig::new(D_MODEL, heads).with_kv_heads(kv_heads),
            FeedForwardConfig::new(D_MODEL, 19).with_activation(activation),
        )
    };
    let placed = DecoderLayerConfig::with_norm_placement;
    let post = |layer: DecoderLayerConfig| placed(layer, NormPlacement::Post);
    let rms = |layer: DecoderLayerConfig| layer.with_norm(NormConfig::rms_norm());
    let cross = |layer: DecoderLayerConfig| {
        layer.with_cross_attention(Some(MultiHeadAttentionConfig::new(D_MODEL, 2)))
    };
    let layers = vec![
        ("pre, LayerNorm, ReLU", layer(3, None, Relu)),
        ("pre, LayerNorm, squared ReLU", layer(3, None, SquaredRelu)),
        ("pre, LayerNorm, GELU", layer(3, None, Gelu)),
        ("pre, RMSNorm, tanh GELU", rms(layer(3, None, GeluTanh))),
        ("pre, RMSNorm, SwiGLU, grouped heads", rms(layer(6, Some(2), SwiGlu))),
        ("post, LayerNorm, SiLU", post(layer(3, None, Silu))),
        ("post, RMSNorm, GeGLU, one key head", post(rms(layer(3, Some(1), GeGlu)))),
        ("sandwich, RMSNorm, GELU", rms(placed(layer(3, None, Gelu), NormPlacement::Sandwich))),
        ("norms on outputs, SwiGLU", placed(layer(3, None, SwiGlu), NormPlacement::Output)),
        (
            "parallel, LayerNorm, GELU",
            layer(3, None, Gelu).with_residual_layout(ResidualLayout::Parallel),
        ),
        (
            "parallel, one norm, quiet softmax",
            with_attention(layer(3, None, Gelu), |attention| {
                attention.with_sinks(AttentionSinks::Quiet)
            })
            .with_residual_layout(ResidualLayout::ParallelSharedNorm),
        ),
        (
            "rotary, norms of queries and keys, grouped heads",
            with_attention(rms(layer(6, Some(2), SwiGlu)), |attention| {
                attention
                    .with_head_dim(Some(4))
                    .with_rotary(Some(RotaryConfig::new()))
                    .with_qk_norm(Some(QkNormConfig::new(NormConfig::rms_norm())))
            }),
        ),
        (
            "rotary on neighbours, in part, YaRN, interleaved heads, norms across heads",
            with_attention(layer(6, Some(2), Silu), |attention| {
                let norm = NormConfig::RmsNorm { epsilon: 1e-6, unit_offset: true };
                attention
                    .with_head_dim(Some(6))
                    .with_head_mapping(HeadMapping::Interleaved)
                    .with_qk_norm(Some(QkNormConfig::new(norm).with_across_heads(true)))
                    .with_rotary(Some(neighbours()))
            }),
        ),
        (
            "ALiBi, learned sinks",
            with_attention(layer(3, None, Gelu), |attention| {
                attention.with_alibi(true).with_sinks(AttentionSinks::Learned)
            }),
        ),
        ("post, LayerNorm, tanh GeGLU, cross", post(cross(layer(3, None, GeGluTanh)))),
        ("pre, LayerNorm, GELU, cross", cross(layer(3, None, Gelu))),
    ];
    let model = |layer| LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2));
    let mut models: Vec<_> = layers.into_iter().map(|(name, layer)| (name, model(layer))).collect();
    let (_, mut windows) = models[0].clone();
    windows.decoder.windows = vec![Some(3), None];
    windows =
        windows.with_logit_softcap(Some(2.0)).with_embedding_norm(Some(NormConfig::rms_norm()));
    models.insert(0, ("window and full in turn, softcap, embedding norm", windows));
    let (_, mut rotaries) = models[4].clone();
    rotaries.decoder.windows = vec![Some(3), None];
    let rotary = |base| Some(RotaryConfig::new().with_base(base));
    rotaries.decoder.rotaries = vec![rotary(100.0), rotary(5000.0)];
    let rotaries = rotaries.with_positions(None).with_tied_head(true).with_head_bias(true);
    models.insert(4, ("two rotations and windows in turn, tied head with a bias", rotaries));
    models
}

/// All on a CPU. On wgpu the last one stands for all: every new shape is a shader to compile.
fn kinds_on(device: &Device) -> Vec<(&'static str, LanguageModelConfig)> {
    let mut kinds = kinds();
    if !is_cpu(device) {
        kinds.drain(..kinds.len() - 1);
    }
    kinds
}

fn plain() -> LanguageModelConfig {
    kinds().swap_remove(3).1
}

/// The padding of the batch: 7 and 4 tokens, or 0 and 3 padded places in front.
#[derive(Clone, Copy, Debug)]
enum Padding {
    None,
    Right,
    Left,
}

/// A model with its input. Deterministic: the same numbers on every run.
struct Probe {
    model: LanguageModel,
    padding: Padding,
    kernel: Kernel,
    device: Device,
    /// What the input says about the padding; broken on purpose in the tests of the tests.
    padding_mask: Option<Mask>,
    memory_mask: Mask,
    positions: Positions,
}

/// The real tokens of each row.
const LENGTHS: [usize; BATCH] = [LENGTH, 4];
const PADS: [usize; BATCH] = [0, LENGTH - 4];
const MEMORY_LENGTHS: [usize; BATCH] = [MEMORY, 3];

impl Probe {
    fn new(config: &LanguageModelConfig, padding: Padding, device: &Device) -> Self {
        device.seed(11);
        Self {
            model: config.init(device).unwrap(),
            padding,
            kernel: Kernel::Auto,
            device: device.clone(),
            padding_mask: match padding {
                Padding::None => None,
                Padding::Right => Some(Mask::lengths(LENGTHS)),
                Padding::Left => Some(Mask::pad_counts(PADS)),
            },
            memory_mask: Mask::lengths(MEMORY_LENGTHS),
            positions: match padding {
                Padding::None | Padding::Right => Positions::Index,
                Padding::Left => Positions::LeftPadded(PADS.to_vec()),
            },
        }
    }

    fn tokens(&self) -> Vec<i64> {
        (0..BATCH * LENGTH).map(|i| (i * i * 5 + 3 * i + 1) as i64 % VOCAB_SIZE as i64).collect()
    }

    fn memory(&self) -> Tensor<3> {
        let values: Vec<f32> =
            (0..BATCH * MEMORY * D_MODEL).map(|i| (i as f32 * 0.37).sin()).collect();
        Tensor::from_data(TensorData::new(values, [BATCH, MEMORY, D_MODEL]), &self.device)
    }

    fn input(&self, memory: Tensor<3>) -> LanguageModelInput {
        let mut input = Batch::new().with_positions(self.positions.clone());
        if let Some(mask) = &self.padding_mask {
            input = input.with_mask(mask.clone());
        }
        if self.has_memory() {
            input = input.with_memory(memory, self.memory_mask.clone());
        }
        input.asking(self.request())
    }

    fn request(&self) -> Request {
        Request::new().with_kernel(self.kernel)
    }

    fn has_memory(&self) -> bool {
        self.model.decoder.layers[0].cross_attention.is_some()
    }

    /// The bits of the logits, `[BATCH, LENGTH, VOCAB_SIZE]`.
    fn bits(&self, tokens: &[i64], memory: Tensor<3>) -> Vec<u32> {
        let tokens = Tensor::<2, Int>::from_data(
            TensorData::new(tokens.to_vec(), [BATCH, LENGTH]),
            &self.device,
        );
        let logits = self.model.forward(tokens, self.input(memory)).unwrap().logits;
        logits.into_data().iter::<f32>().map(f32::to_bits).collect()
    }

    /// Is this a token, or a padded place?
    fn is_real(&self, row: usize, index: usize) -> bool {
        match self.padding {
            Padding::None => true,
            Padding::Right => index < LENGTHS[row],
            Padding::Left => index >= PADS[row],
        }
    }

    /// The first (row, query, key) where changing the token at `key` changes the logits of an
    /// earlier query.
    fn leak_from_the_future(&self) -> Option<(usize, usize, usize)> {
        let tokens = self.tokens();
        let before = self.bits(&tokens, self.memory());
        for key in 1..LENGTH {
            for shift in [1, 5, VOCAB_SIZE as i64 - 1] {
                let mut changed = tokens.clone();
                for row in 0..BATCH {
                    let token = &mut changed[row * LENGTH + key];
                    *token = (*token + shift) % VOCAB_SIZE as i64;
                }
                let after = self.bits(&changed, self.memory());
                for row in 0..BATCH {
                    for query in 0..key {
                        let at = (row * LENGTH + query) * VOCAB_SIZE;
                        if before[at..at + VOCAB_SIZE] != after[at..at + VOCAB_SIZE] {
                            return Some((row, query, key));
                        }
                    }
                }
            }
        }
        None
    }

    /// The first (row, query, key) where a real query's logits change with a padded token, or with
    /// a padded state of the memory; `key` is `LENGTH` and more for the latter.
    fn leak_from_padding(&self) -> Option<(usize, usize, usize)> {
        let tokens = self.tokens();
        let before = self.bits(&tokens, self.memory());
        let leaked = |after: Vec<u32>, row: usize, key: usize| {
            (0..LENGTH).filter(|&query| self.is_real(row, query)).find_map(|query| {
                let at = (row * LENGTH + query) * VOCAB_SIZE;
                (before[at..at + VOCAB_SIZE] != after[at..at + VOCAB_SIZE])
                    .then_some((row, query, key))
            })
        };
        for row in 0..BATCH {
            for key in (0..LENGTH).filter(|&key| !self.is_real(row, key)) {
                let mut changed = tokens.clone();
                changed[row * LENGTH + key] = (changed[row * LENGTH + key] + 1) % VOCAB_SIZE as i64;
                let after = self.bits(&changed, self.memory());
                if let Some(leak) = leaked(after, row, key) {
                    return Some(leak);
                }
            }
            for key in (MEMORY_LENGTHS[row]..MEMORY).filter(|_| self.has_memory()) {
                let place = [row..row + 1, key..key + 1, 0..D_MODEL];
                let other = Tensor::full([1, 1, D_MODEL], 3.0, &self.device);
                let changed = self.memory().slice_assign(place, other);
                let after = self.bits(&tokens, changed);
                if let Some(leak) = leaked(after, row, LENGTH + key) {
                    return Some(leak);
                }
            }
        }
        None
    }

    /// The first (query, key) with a gradient of an earlier query's logits to a later embedding, or
    /// (in `LENGTH..`) to padding of the memory, that is not exactly 0.
    fn gradient_from_the_future(&self) -> Option<(usize, usize)> {
        let device = self.device.clone().autodiff();
        let model = burn::module::Module::train(self.model.clone());
        let tokens =
            Tensor::<2, Int>::from_data(TensorData::new(self.tokens(), [BATCH, LENGTH]), &device);
        let embedded = model.embed(tokens, &self.positions).unwrap().detach();
        for query in 0..LENGTH {
            let embedded = embedded.clone().require_grad();
            let memory = self.memory().autodiff().require_grad();
            let logits = model
                .forward_embedded(embedded.clone(), self.input(memory.clone()))
                .unwrap()
                .logits;
            let one = logits.slice([0..BATCH, query..query + 1, 0..VOCAB_SIZE]);
            let weights = Tensor::random(one.dims(), Distribution::Default, &device);
            let gradients = (one * weights).sum().backward();
            // The absolute sum of the gradient at each place; NaN counts as not 0.
            let sizes = |x: Tensor<3>| -> Vec<f32> {
                x.grad(&gradients).unwrap().abs().sum_dim(2).into_data().iter::<f32>().collect()
            };
            let future = sizes(embedded);
            for row in 0..BATCH {
                for key in query + 1..LENGTH {
                    if future[row * LENGTH + key] != 0.0 {
                        return Some((query, key));
                    }
                }
            }
            if self.has_memory() {
                let padding = sizes(memory);
                for row in 0..BATCH {
                    for key in MEMORY_LENGTHS[row]..MEMORY {
                        if padding[row * MEMORY + key] != 0.0 {
                            return Some((query, LENGTH + key));
                        }
                    }
                }
            }
        }
        None
    }

    /// The largest difference between the second row's real logits in the batch and alone.
    fn difference_alone(&self) -> f64 {
        let row = 1;
        let real: Vec<usize> = (0..LENGTH).filter(|&index| self.is_real(row, index)).collect();
        let range = real[0]..real[0] + real.len();
        let tokens = Tensor::<2, Int>::from_data(
            TensorData::new(self.tokens(), [BATCH, LENGTH]),
            &self.device,
        );
        let together = self.model.forward(tokens.clone(), self.input(self.memory())).unwrap();
        let mut input = Batch::new();
        if self.has_memory() {
            let memory = self.memory().slice([row..row + 1, 0..MEMORY_LENGTHS[row], 0..D_MODEL]);
            input = input.with_memory(memory, Mask::all_visible());
        }
        let alone = tokens.slice([row..row + 1, range.clone()]);
        let alone = self.model.forward(alone, input.asking(self.request())).unwrap().logits;
        let together = together.logits.slice([row..row + 1, range, 0..VOCAB_SIZE]);
        let difference = (together - alone).abs().max().into_scalar::<f32>();
        if difference.is_nan() { f64::INFINITY } else { difference.into() }
    }
}

on_each_backend! {
    fn the_future_cannot_be_felt(device: Device) {
        if !is_cpu(&device) {
            return; // Bits are promised on a CPU; elsewhere the checks below on gradients hold.
        }
        for (kind, config) in kinds() {
            for padding in [Padding::None, Padding::Right, Padding::Left] {
                for kernel in [Kernel::Auto, Kernel::Reference] {
                    let probe = Probe { kernel, ..Probe::new(&config, padding, &device) };
                    let leak = probe.leak_from_the_future();
                    assert_eq!(leak, None, "{kind}, {padding:?}, {kernel:?}: (row, query, key)");
                    let leak = probe.leak_from_padding();
                    assert_eq!(leak, None, "{kind}, {padding:?}, {kernel:?}: (row, query, key)");
                }
            }
        }
    }

    fn no_gradient_reaches_the_future(device: Device) {
        let first = if is_cpu(&device) { 0 } else { 2 };
        for (kind, config) in kinds_on(&device) {
            for padding in [Padding::None, Padding::Right, Padding::Left].into_iter().skip(first) {
                let probe = Probe::new(&config, padding, &device);
                let leak = probe.gradient_from_the_future();
                assert_eq!(leak, None, "{kind}, {padding:?}: (query, key)");
            }
        }
    }

    fn a_padded_row_is_the_row_alone(device: Device) {
        let allowed = ALONE * crate::backends::tolerance_factor(&device);
        for (kind, config) in kinds_on(&device) {
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

    /// The probes accuse every broken look-ahead.
    fn a_broken_look_ahead_is_caught(device: Device) {
        if !is_cpu(&device) {
            return; // The probes are the same code; once is enough.
        }
        for (name, mask) in [
            ("off by one", Mask::look_around(LENGTH, 1)),
            ("inverted", !Mask::look_ahead()),
            ("missing", Mask::all_visible()),
        ] {
            for (kind, config) in kinds() {
                for padding in [Padding::None, Padding::Right, Padding::Left] {
                    let probe =
                        Probe::new(&config.clone().with_mask(mask.clone()), padding, &device);
                    assert!(probe.leak_from_the_future().is_some(), "{name}, {kind}, {padding:?}");
                    let gradient = probe.gradient_from_the_future();
                    assert!(gradient.is_some(), "{name}, {kind}, {padding:?}");
                }
            }
        }
    }

    /// So they do every broken padding mask, and the row alone shows it too.
    fn a_broken_padding_mask_is_caught(device: Device) {
        if !is_cpu(&device) {
            return;
        }
        for (name, mask) in [
            ("off by one", Mask::pad_counts(PADS.map(|pads| pads.saturating_sub(1)))),
            ("inverted", !Mask::pad_counts(PADS)),
            ("missing", Mask::all_visible()),
        ] {
            let probe = Probe {
                padding_mask: Some(mask),
                ..Probe::new(&plain(), Padding::Left, &device)
            };
            assert!(probe.leak_from_padding().is_some(), "{name}");
            assert!(probe.difference_alone() > 10.0 * ALONE, "{name}");
        }
        for (name, mask) in [
            ("off by one", Mask::lengths(MEMORY_LENGTHS.map(|length| MEMORY.min(length + 1)))),
            ("inverted", !Mask::lengths(MEMORY_LENGTHS)),
            ("missing", Mask::all_visible()),
        ] {
            let (_, cross) = kinds().pop().unwrap();
            let probe =
                Probe { memory_mask: mask, ..Probe::new(&cross, Padding::Right, &device) };
            assert!(probe.leak_from_padding().is_some(), "{name}");
            assert!(probe.gradient_from_the_future().is_some(), "{name}");
            assert!(probe.difference_alone() > 10.0 * ALONE, "{name}");
        }
    }

    /// And positions that count the padding.
    fn positions_that_count_padding_are_caught(device: Device) {
        if !is_cpu(&device) {
            return;
        }
        let probe = Probe::new(&plain(), Padding::Left, &device);
        let broken = Probe { positions: Positions::Index, ..probe };
        assert!(broken.difference_alone() > 10.0 * ALONE);
    }
}
