//! A stack of decoder layers.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::layer_masks::LayerMasks;
use super::pass_view::PassView;
use super::{DecoderLayer, DecoderLayerConfig};
use crate::attention::{Request, RotaryConfig};
use crate::cache::LayerCache;
use crate::error::check_nonzero;
use crate::mask::SequenceMaskConfig;
use crate::norm::Norm;
use crate::sequence::Batch;
use crate::{Error, Result};

/// Configuration of a [`Decoder`].
#[derive(Config, Debug)]
pub struct DecoderConfig {
    /// Every layer's configuration.
    pub layer: DecoderLayerConfig,
    /// Number of layers.
    pub layers: usize,
    /// Which tokens of the own sequence each token may see, whatever the batch: by default itself
    /// and those before it. Not by a pad id: padding is told with each batch.
    #[config(default = "SequenceMaskConfig::new()")]
    pub mask: SequenceMaskConfig,
    /// The window of each layer, beside that of `mask`: how many keys a query sees at most, its own included, of those
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
    /// [`Error::Config`] for zero layers, a window of 0, a mask with a pad id, or if the layer or the
    /// mask refuses its configuration.
    pub fn init(&self, device: &Device) -> Result<Decoder> {
        check_nonzero("DecoderConfig::layers", self.layers)?;
        self.check_mask()?;
        let masks = LayerMasks::new(&self.mask, &self.windows)?;
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
        Ok(Decoder { layers, final_norm: final_norm.transpose()?, masks })
    }

    /// Tokens are not at hand in every pass, and a real token may equal the pad id.
    fn check_mask(&self) -> Result<()> {
        match self.mask.pad_id {
            None => Ok(()),
            Some(pad_id) => Err(Error::Config {
                field: "DecoderConfig::mask, SequenceMaskConfig::pad_id",
                expected: "none: tell padding with each batch, by Batch::with_lengths, \
                           with_pad_counts or with_mask(Mask::padding(..))"
                    .into(),
                got: pad_id.to_string(),
            }),
        }
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
    pub(super) masks: LayerMasks,
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
    /// # Errors
    ///
    /// [`Error::Mask`] if a mask does not fit the batch, [`Error::Positions`] if the positions don't
    /// fit the tokens, [`Error::Input`] if there is cross-attention and no memory or the other way
    /// round.
    ///
    /// # Panics
    ///
    /// If `x` or the memory has another width.
    pub fn forward(&self, x: Tensor<3>, batch: &Batch, request: &Request) -> Result<DecoderOutput> {
        let [rows, queries, _] = x.dims();
        let view = self.view_of_all(batch, [rows, queries])?;
        Ok(self.pass(x, &view, &mut [], request))
    }

    /// All layers for what a view shows; with the keys and values of earlier tokens if `past` holds
    /// them for each layer.
    pub(super) fn pass(
        &self,
        mut x: Tensor<3>,
        view: &PassView,
        past: &mut [LayerCache],
        request: &Request,
    ) -> DecoderOutput {
        let (mut self_weights, mut cross_weights) = (Vec::new(), Vec::new());
        let following = self.layers.iter().skip(1).map(Some).chain([None]);
        let layers = self.layers.iter().zip(following);
        for ((layer, next), part) in layers.zip(self.parts(view, past)) {
            let output = layer.pass(x, part, request);
            if let Some(next) = next {
                next.read_next();
            }
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
}
