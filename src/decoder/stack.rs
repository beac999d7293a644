//! A stack of decoder layers.

use std::collections::BTreeMap;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{DecoderInput, DecoderLayer, DecoderLayerConfig, Norm};
use crate::Result;
use crate::attention::{PassAngles, RotaryConfig};
use crate::cache::LayerPass;
use crate::error::check_nonzero;
use crate::mask::{LoweredMask, Mask};

/// Configuration of a [`Decoder`].
#[derive(Config, Debug)]
pub struct DecoderConfig {
    /// Every layer's configuration.
    pub layer: DecoderLayerConfig,
    /// Number of layers.
    pub layers: usize,
    /// The window of each layer: how many keys a query sees at most, its own included, of those
    /// that the mask leaves visible. Begins again where it is shorter than the stack:
    /// `[Some(4096), None]` alternates, `[]` is no window in any layer.
    #[config(default = "Vec::new()")]
    pub windows: Vec<Option<usize>>,
    /// The rotary positions of each layer's self-attention, where they differ: begins again where it
    /// is shorter than the stack (Gemma 3 turns windowed layers by another base than full ones). If
    /// empty, every layer has those of `layer`.
    #[config(default = "Vec::new()")]
    pub rotaries: Vec<Option<RotaryConfig>>,
}

impl DecoderConfig {
    /// Builds the stack with random parameters.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for zero layers, a window of 0, or if the layer
    /// refuses its configuration.
    pub fn init(&self, device: &Device) -> Result<Decoder> {
        check_nonzero("DecoderConfig::layers", self.layers)?;
        for window in self.windows.iter().flatten() {
            check_nonzero("DecoderConfig::windows", *window)?;
        }
        let layer = |index: usize| {
            let mut layer = self.layer.clone();
            if !self.rotaries.is_empty() {
                layer.self_attention.rotary = self.rotaries[index % self.rotaries.len()];
            }
            layer.init(device)
        };
        let layers = (0..self.layers).map(layer).collect::<Result<_>>()?;
        let final_norm = self.layer.norm_placement.has_final_norm();
        let final_norm = final_norm.then(|| self.layer.norm.init(self.layer.d_model(), device));
        Ok(Decoder { layers, final_norm: final_norm.transpose()?, windows: self.windows.clone() })
    }
}

/// Output of a [`Decoder`].
#[derive(Clone, Debug)]
pub struct DecoderOutput {
    /// `[batch, queries, d_model]`
    pub output: Tensor<3>,
    /// The self-attention weights of each layer, `[batch, heads, queries, keys]`; empty if not
    /// asked for.
    pub self_weights: Vec<Tensor<4>>,
    /// The cross-attention weights of each layer, `[batch, heads, queries, keys of the memory]`;
    /// empty if not asked for or if there is no cross-attention.
    pub cross_weights: Vec<Tensor<4>>,
}

/// Decoder layers one after the other. Built by [`DecoderConfig`].
#[derive(Module, Debug)]
pub struct Decoder {
    /// The layers, first to last.
    pub layers: Vec<DecoderLayer>,
    /// Ends a stack whose last sum would otherwise stay as it is: all but post-norm.
    pub final_norm: Option<Norm>,
    #[module(skip)]
    windows: Vec<Option<usize>>,
}

impl Decoder {
    /// Applies all layers, and the final norm if there is one.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, queries, d_model]`
    /// - memory: `[batch, keys, memory_dim]`
    /// - output: `[batch, queries, d_model]`
    ///
    /// # Panics
    ///
    /// As [`DecoderLayer::forward`] does.
    pub fn forward(&self, input: DecoderInput) -> DecoderOutput {
        self.forward_cached(input, None)
    }

    /// The same, where the keys and values of earlier tokens may come from a cache: one part of it
    /// for each layer, with a mask that takes the place of the input's.
    pub(crate) fn forward_cached(
        &self,
        input: DecoderInput,
        cache: Option<Vec<LayerPass>>,
    ) -> DecoderOutput {
        let DecoderInput { mut x, mask, positions, memory, weights, kernel } = input;
        let mut angles = PassAngles::new(positions, mask.grid());
        let (mut self_weights, mut cross_weights) = (Vec::new(), Vec::new());
        let windows = if cache.is_some() { Vec::new() } else { self.narrowed(mask) };
        let mut masks = windows.iter().map(|narrowed| narrowed.as_ref().unwrap_or(mask)).cycle();
        let mut passes = cache.into_iter().flatten();
        for layer in &self.layers {
            let (mask, cache) = match passes.next() {
                Some(LayerPass { cache, mask }) => (mask, Some(cache)),
                None => (masks.next().unwrap_or(mask), None),
            };
            let input = DecoderInput { x, mask, positions, memory, weights, kernel };
            let output = layer.forward_cached(input, &mut angles, cache);
            self_weights.extend(output.self_weights);
            cross_weights.extend(output.cross_weights);
            x = output.output;
        }
        let output = match &self.final_norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        DecoderOutput { output, self_weights, cross_weights }
    }

    /// The mask of each window in turn, where it is another one than `mask`. Layers of the same
    /// window share one, and with it the dense tensor that a kernel may have made of it.
    fn narrowed(&self, mask: &LoweredMask) -> Vec<Option<LoweredMask>> {
        let mut known = BTreeMap::new();
        let mut narrow = |window: usize| {
            let lower = || mask.and(&window_rule(window)).expect("a window fits every grid");
            known.entry(window).or_insert_with(lower).clone()
        };
        self.windows.iter().map(|window| window.map(&mut narrow)).collect()
    }

    /// The window of a layer, if it has one.
    pub(super) fn window(&self, layer: usize) -> Option<usize> {
        *self.windows.get(layer % self.windows.len().max(1))?
    }
}

/// What a window leaves visible. How far ahead a query sees is the mask's to say.
pub(super) fn window_rule(keys: usize) -> Mask {
    Mask::look_around(keys - 1, usize::MAX)
}
