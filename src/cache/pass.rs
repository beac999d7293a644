//! A forward pass through the cache: checked, entered, left.

use burn::tensor::{Device, Int, Tensor};

use super::layer::LayerCache;
use super::model::CachedModel;
use super::rows::KnownRows;
use super::samples::Samples;
use super::store::Store;
use super::{KvCache, misuse};
use crate::Result;
use crate::error::CacheMisuse;
use crate::mask::{Grid, LoweredMask, Mask};
use crate::sequence::Batch;

/// A forward pass that fits the cache.
pub(crate) struct CachedPass {
    /// Number of tokens before the new ones.
    pub start: usize,
    /// For each layer the new tokens against the keys that it has kept.
    pub grids: Vec<Grid>,
    /// The batch's mask for the tokens so far.
    pub mask: Option<Mask>,
    /// What is known with this pass, unless it says nothing new.
    said: Option<Batch>,
    rows: usize,
    device: Device,
    /// Of a first pass.
    first: Option<(Vec<LayerCache>, Option<Samples>)>,
    /// Whether the batch's mask meets a token behind a past for the first time.
    mask_is_new: bool,
}

impl KvCache {
    /// Checks a pass against the cache. What an interrupted pass left behind is taken back; else
    /// nothing changes.
    pub(crate) fn begin(
        &mut self,
        model: &impl CachedModel,
        [rows, new]: [usize; 2],
        device: &Device,
        said: Batch,
    ) -> Result<CachedPass> {
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
        let end = start.saturating_add(new);
        if let Some(limit) = self.config.limit.filter(|&limit| end > limit) {
            return misuse(
                CacheMisuse::Length,
                format!("at most {limit} tokens, the limit in CacheConfig"),
                format!("{new} new ones behind {start}"),
            );
        }
        self.check_identity(model)?;
        let mask_is_new = said.mask.is_some() || self.rows.as_ref().is_some_and(|r| r.passes == 1);
        let said = match &self.rows {
            Some(known) => {
                known.check(rows, device)?;
                self.check_values(model, known.passes, rows * new)?;
                known.completed(said)?
            }
            None => Some(said),
        };
        let known = said.as_ref().or(self.rows.as_ref().map(|rows| &rows.known));
        let known = known.expect("a first pass says all that is known");
        known.positions.ids(rows, start, new)?;
        let mask = known.mask.as_ref().map(|mask| mask.up_to(end));
        let first = match &self.rows {
            Some(_) => None,
            None => {
                let samples = (!self.model_is_held).then(|| Samples::of(model));
                Some((self.new_layers(model, known)?, samples))
            }
        };
        let layers = first.as_ref().map_or(&self.layers, |(layers, _)| layers);
        let grids = grids(layers, rows, new)?;
        let device = device.clone();
        Ok(CachedPass { start, grids, mask, said, rows, device, first, mask_is_new })
    }

    /// What is known of the rows in this pass; its mask is that for the whole of them.
    pub(crate) fn known<'a>(&'a self, pass: &'a CachedPass) -> &'a Batch {
        let before = || self.rows.as_ref().map(|rows| &rows.known);
        pass.said.as_ref().or_else(before).expect("a first pass says all that is known")
    }

    /// Takes in what a pass said, and gives the layers' parts for it.
    pub(crate) fn enter(&mut self, pass: CachedPass) -> &mut [LayerCache] {
        let CachedPass { said, rows: batch, device, first, .. } = pass;
        if let Some((layers, samples)) = first {
            let known = said.unwrap_or_default();
            self.layers = layers;
            self.samples = samples;
            let (history, before) = (None, None);
            self.rows =
                Some(KnownRows { device, batch, tokens: 0, known, before, history, passes: 0 });
        } else if let (Some(rows), Some(said)) = (&mut self.rows, said) {
            rows.before = Some(std::mem::replace(&mut rows.known, said));
        }
        &mut self.layers
    }

    /// All tokens, if this pass is one to be checked, and what is known of them.
    pub(crate) fn history_with(&self, new: &Tensor<2, Int>) -> Option<(Tensor<2, Int>, Batch)> {
        let (rows, every) = (self.rows.as_ref()?, self.config.check_every?);
        if !(rows.passes + 1).is_multiple_of(every) {
            return None;
        }
        let [_, tokens] = new.dims();
        let mask = rows.known.mask.as_ref().map(|mask| mask.up_to(rows.tokens + tokens));
        Some((rows.history_with(new.clone()), Batch { mask, ..rows.known.clone() }))
    }

    /// Ends a pass: its tokens now belong to the past, or, if it went wrong, never came.
    pub(crate) fn leave(&mut self, tokens: Tensor<2, Int>, well: bool) {
        let Some(rows) = &mut self.rows else { return };
        if !well && rows.passes == 0 {
            return self.clear();
        }
        if !well {
            rows.take_back();
        } else {
            let [_, new] = tokens.dims();
            rows.before = None;
            if self.config.check_every.is_some() {
                rows.history = Some(rows.history_with(tokens));
            }
            rows.tokens += new;
            rows.passes += 1;
        }
    }

    /// Takes back what a pass has written that broke off.
    pub(super) fn heal(&mut self) -> Result<()> {
        // A first pass that broke off has said what the rows are, but they never came.
        if self.rows.as_ref().is_some_and(|rows| rows.passes == 0) {
            self.clear();
        }
        if let Some(rows) = &mut self.rows {
            rows.take_back();
        }
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

    fn new_layers(&self, model: &impl CachedModel, batch: &Batch) -> Result<Vec<LayerCache>> {
        let room = self.config.room();
        let layers = model.key_parameters().zip(model.pasts(batch)?);
        let precision = self.config.precision;
        precision.check(&model.device())?;
        let layer = |(model, past)| {
            let own = Store::new(past, room);
            LayerCache { model, precision, own, memory: None }
        };
        Ok(layers.map(layer).collect())
    }

    /// An error if the cache belongs to another model.
    pub(super) fn check_identity(&self, model: &impl CachedModel) -> Result<()> {
        if self.rows.is_none() {
            return Ok(());
        }
        let (expected, got) = (self.layers.len(), model.key_parameters().count());
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

    /// An error if values of the model's parameters changed, as far as a pass of so many tokens looks.
    fn check_values(&self, model: &impl CachedModel, pass: usize, tokens: usize) -> Result<()> {
        match &self.samples {
            Some(samples) if !samples.agree_in(model, pass, tokens) => changed(),
            _ => Ok(()),
        }
    }

    /// An error if the cache belongs to another model, or to this one before a change.
    pub(super) fn check_model(&self, model: &impl CachedModel) -> Result<()> {
        self.check_identity(model)?;
        match &self.samples {
            Some(samples) if self.rows.is_some() && !samples.agree(model) => changed(),
            _ => Ok(()),
        }
    }
}

fn changed<T>() -> Result<T> {
    misuse(
        CacheMisuse::Model,
        "the model as it was in the first pass".into(),
        "one whose parameters or settings are others, as after a training step; clear the cache"
            .into(),
    )
}

/// The grid of each layer. Layers that keep the same part of the past have the same.
fn grids(layers: &[LayerCache], rows: usize, new: usize) -> Result<Vec<Grid>> {
    let mut grids: Vec<Grid> = Vec::with_capacity(layers.len());
    for layer in layers {
        let like = layers.iter().zip(&grids).find(|(known, _)| known.own.is_like(&layer.own));
        grids.push(match like {
            Some((_, grid)) => grid.clone(),
            None => layer.own.grid(rows, new)?,
        });
    }
    Ok(grids)
}

impl CachedPass {
    /// Whether it must be seen that new tokens see themselves under the batch's mask.
    pub(crate) fn has_new_mask(&self) -> bool {
        self.start > 0 && self.mask_is_new && self.mask.is_some()
    }

    /// An error if a token sees others of its row and not itself because of the batch's mask: then
    /// its row ended before, as with padding on the right, and can't be continued.
    ///
    /// `own` is the model's own mask on the grid of some layer; `mask` that and the batch's.
    pub(crate) fn check_own_keys(&self, own: &LoweredMask, mask: &LoweredMask) -> Result<()> {
        let (new, keys) = (mask.grid().queries(), mask.grid().keys());
        for (row, query) in (0..self.rows).flat_map(|b| (0..new).map(move |q| (b, q))) {
            let itself = keys - new + query;
            let sees = |mask: &LoweredMask, key| mask.is_visible(row, 0, query, key);
            if !sees(mask, itself) && sees(own, itself) && (0..itself).any(|key| sees(mask, key)) {
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
