//! A forward pass through the cache: checked, entered, left.

use burn::tensor::{Device, Int, Tensor};

use super::layer::LayerCache;
use super::rows::Rows;
use super::store::{Room, Store};
use super::{KvCache, misuse};
use crate::Result;
use crate::decoder::{LanguageModel, LanguageModelInput};
use crate::error::CacheMisuse;
use crate::mask::{Grid, LoweredMask, Mask};

/// A forward pass that fits the cache.
pub(crate) struct Pass {
    /// Number of tokens before the new ones.
    pub start: usize,
    /// For each layer the new tokens against the keys that it has kept.
    pub grids: Vec<Grid>,
    /// The caller's, completed by what earlier passes said, its mask cut to the tokens so far.
    pub input: LanguageModelInput,
    /// The mask for the whole of the rows.
    mask: Option<Mask>,
    batch: usize,
    device: Device,
    /// Of a first pass.
    layers: Option<Vec<LayerCache>>,
    /// Whether the input's mask meets a token behind a past for the first time.
    mask_is_new: bool,
}

impl KvCache {
    /// Checks a pass against the cache. Nothing changes.
    pub(crate) fn begin(
        &mut self,
        [batch, new]: [usize; 2],
        device: &Device,
        model: &LanguageModel,
        mut input: LanguageModelInput,
    ) -> Result<Pass> {
        self.heal()?;
        let start = self.tokens();
        if device.is_autodiff() {
            return misuse(
                CacheMisuse::Training,
                "a model for inference, as `model.valid()` gives it".into(),
                "one on a device for training".into(),
            );
        }
        if new == 0 {
            return misuse(CacheMisuse::Length, "at least one new token".into(), "none".into());
        }
        if let Some(limit) = self.config.limit.filter(|&limit| start + new > limit) {
            return misuse(
                CacheMisuse::Length,
                format!("at most {limit} tokens, the limit in CacheConfig"),
                format!("{new} new ones behind {start}"),
            );
        }
        self.check_model(model)?;
        let mask_is_new = input.mask.is_some() || self.rows.as_ref().is_some_and(|r| r.passes == 1);
        if let Some(rows) = &self.rows {
            rows.check(batch, device)?;
            rows.complete(&mut input)?;
        }
        input.positions.ids(batch, start, new)?;
        let layers = self.rows.is_none().then(|| self.new_layers(model, &input)).transpose()?;
        let grids = grids(layers.as_ref().unwrap_or(&self.layers), batch, new)?;
        let mask = input.mask.take();
        input.mask = mask.as_ref().map(|mask| mask.up_to(start + new));
        let device = device.clone();
        Ok(Pass { start, grids, input, mask, batch, device, layers, mask_is_new })
    }

    /// Takes in what a pass said, and gives the layers' parts for it.
    pub(crate) fn enter(&mut self, pass: Pass) -> &mut [LayerCache] {
        let Pass { start, input, mask, batch, device, layers, .. } = pass;
        if let Some(layers) = layers {
            self.layers = layers;
        }
        let before = self.rows.take();
        let (passes, history) = before.map_or((0, None), |rows| (rows.passes, rows.history));
        self.rows = Some(Rows {
            device,
            batch,
            tokens: start,
            mask,
            positions: input.positions,
            memory: input.memory,
            history,
            passes,
        });
        &mut self.layers
    }

    /// All tokens, if this pass is one to be checked.
    pub(crate) fn history_with(&self, new: &Tensor<2, Int>) -> Option<Tensor<2, Int>> {
        let (rows, every) = (self.rows.as_ref()?, self.config.check_every?);
        if !(rows.passes + 1).is_multiple_of(every) {
            return None;
        }
        Some(rows.history_with(new.clone()))
    }

    /// Ends a pass: its tokens now belong to the past, or, if it went wrong, never came.
    pub(crate) fn leave(&mut self, tokens: Tensor<2, Int>, well: bool) {
        let Some(rows) = &mut self.rows else { return };
        if !well && rows.passes == 0 {
            return self.clear();
        }
        if well {
            let [_, new] = tokens.dims();
            if self.config.check_every.is_some() {
                rows.history = Some(rows.history_with(tokens));
            }
            rows.tokens += new;
            rows.passes += 1;
        }
    }

    /// Takes back what a pass has written that broke off.
    fn heal(&mut self) -> Result<()> {
        let tokens = self.tokens();
        for layer in &mut self.layers {
            if layer.own.layout().total() != tokens {
                if !layer.own.can_trim(tokens) {
                    return misuse(
                        CacheMisuse::Interrupted,
                        "every pass to have come to its end".into(),
                        "one that broke off; clear the cache and start again".into(),
                    );
                }
                layer.own.trim(tokens);
            }
        }
        Ok(())
    }

    fn new_layers(
        &self,
        model: &LanguageModel,
        input: &LanguageModelInput,
    ) -> Result<Vec<LayerCache>> {
        let room = Room { capacity: self.config.capacity, limit: self.config.limit };
        let layer = |(model, past)| LayerCache { model, own: Store::new(past, room), memory: None };
        Ok(model.pasts(input)?.map(layer).collect())
    }

    /// An error if the cache belongs to another model.
    pub(super) fn check_model(&self, model: &LanguageModel) -> Result<()> {
        if self.rows.is_none() {
            return Ok(());
        }
        let (expected, got) = (self.layers.len(), model.decoder.layers.len());
        if got != expected {
            return misuse(
                CacheMisuse::Model,
                format!("the model of the first pass, with {expected} layers"),
                format!("one with {got} layers"),
            );
        }
        if !self.layers.iter().map(|layer| layer.model).eq(model.key_parameters()) {
            return misuse(
                CacheMisuse::Model,
                "the model of the first pass".into(),
                "one with other parameters; clear the cache to use it for another model".into(),
            );
        }
        Ok(())
    }
}

/// The grid of each layer. Layers that keep the same part of the past have the same.
fn grids(layers: &[LayerCache], batch: usize, new: usize) -> Result<Vec<Grid>> {
    let mut grids: Vec<Grid> = Vec::with_capacity(layers.len());
    for layer in layers {
        let like = layers.iter().zip(&grids).find(|(known, _)| known.own.is_like(&layer.own));
        grids.push(match like {
            Some((_, grid)) => grid.clone(),
            None => layer.own.grid(batch, new)?,
        });
    }
    Ok(grids)
}

impl Pass {
    /// An error if a token sees others of its row and not itself because of the input's mask: then
    /// its row ended before, as with padding on the right, and can't be continued.
    ///
    /// `model` is the model's own mask on the grid of some layer; `mask` that and the input's.
    pub(crate) fn check_own_keys(
        &self,
        model: impl FnOnce() -> Result<LoweredMask>,
        mask: &LoweredMask,
    ) -> Result<()> {
        if self.start == 0 || !self.mask_is_new || self.input.mask.is_none() {
            return Ok(());
        }
        let model = model()?;
        let (new, keys) = (mask.grid().queries(), mask.grid().keys());
        for (row, query) in (0..self.batch).flat_map(|b| (0..new).map(move |q| (b, q))) {
            let own = keys - new + query;
            let sees = |mask: &LoweredMask, key| mask.is_visible(row, 0, query, key);
            if !sees(mask, own) && sees(&model, own) && (0..own).any(|key| sees(mask, key)) {
                return misuse(
                    CacheMisuse::Mask,
                    "a mask under which new tokens see themselves; pad on the left".into(),
                    format!("one that hides token {} of row {row} from itself", self.start + query),
                );
            }
        }
        Ok(())
    }
}
