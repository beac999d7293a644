//! The cache: keys and values of the past, and where each of them stands.
//!
//! Without a cache a model that has written `n` tokens computes all of them again for the next one.
//! With it, it computes the new tokens alone and looks at the keys and values that it kept:
//!
//! ```text
//! pass 1   tokens 0 .. 5     queries 0 .. 5     keys 0 .. 5
//! pass 2   token  5          query   5          keys 0 .. 6
//! pass 3   tokens 6 .. 9     queries 6 .. 9     keys 0 .. 9
//! ```
//!
//! Any number of tokens may come in one pass. The [`KvCache`] owns more than the tensors: which
//! rows there are, how long they are, how their tokens are numbered, what their masks hide. So the
//! mask and the positions of the next token follow from the cache, and padding, a window, sinks or
//! documents can't be lost on the way.
//!
//! - `Layout`: which token lies in which slot, as arithmetic;
//! - `Store`: the keys and values of one layer, written in place;
//! - [`KvCache`]: all layers, and the rows.

mod file;
mod layout;
mod store;

use burn::config::Config;
use burn::module::ParamId;
use burn::tensor::{Device, Int, Tensor};

use crate::decoder::{LanguageModelInput, Positions};
use crate::error::{CacheMisuse, check_nonzero};
use crate::mask::{Grid, LoweredMask, Mask, Past};
use crate::{Error, Result};

use store::{Room, Store};

/// Configuration of a [`KvCache`].
#[derive(Config, Debug)]
pub struct CacheConfig {
    /// Number of tokens to reserve room for at first, in each row. When it is full, it doubles.
    #[config(default = 256)]
    pub capacity: usize,
    /// The most tokens that a row may have; one more is an error. Without it the cache grows as
    /// long as there is memory.
    pub limit: Option<usize>,
    /// Compares with a forward pass over everything, without the cache, in every so many passes.
    /// For finding mistakes: it costs what the cache saves.
    pub check_every: Option<usize>,
}

impl CacheConfig {
    /// Room for `tokens` tokens in each row, and never more.
    pub fn fixed(tokens: usize) -> Self {
        Self::new().with_capacity(tokens).with_limit(Some(tokens))
    }

    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for no room at all, or for checks in every 0 passes.
    pub fn init(&self) -> Result<KvCache> {
        check_nonzero("CacheConfig::capacity", self.capacity)?;
        check_nonzero("CacheConfig::limit", self.limit.unwrap_or(1))?;
        check_nonzero("CacheConfig::check_every", self.check_every.unwrap_or(1))?;
        Ok(KvCache { config: self.clone(), rows: None, layers: Vec::new() })
    }
}

/// The past of a batch of sequences: keys and values of every layer, positions and masks.
///
/// Belongs to one model and one batch from its first pass on, until [`clear`](Self::clear). Cloning
/// is cheap: the clones share the tensors until one of them is written to.
#[derive(Clone, Debug)]
pub struct KvCache {
    config: CacheConfig,
    rows: Option<Rows>,
    layers: Vec<LayerCache>,
}

/// What is known of the rows of the batch.
#[derive(Clone, Debug)]
struct Rows {
    device: Device,
    batch: usize,
    /// Number of tokens, the same in every row; left padding is in it.
    tokens: usize,
    /// What is hidden beside what the model itself hides.
    mask: Option<Mask>,
    positions: Positions,
    memory: Option<(Tensor<3>, Mask)>,
    /// The tokens themselves, for the checks.
    history: Option<Tensor<2, Int>>,
    passes: usize,
}

/// The part of a [`KvCache`] that belongs to one layer.
#[derive(Clone, Debug)]
pub struct LayerCache {
    /// The parameter that makes the keys: tells models apart.
    model: ParamId,
    own: Store,
    /// Keys and values of the memory, for the cross-attention.
    memory: Option<[Tensor<4>; 2]>,
}

/// A forward pass that fits the cache.
pub(crate) struct Pass {
    /// Number of tokens before the new ones.
    pub start: usize,
    /// The new tokens against the keys that every layer has kept.
    pub grid: Grid,
    /// The caller's, completed by what earlier passes said, its mask cut to the tokens so far.
    pub input: LanguageModelInput,
    /// The mask for the whole of the rows.
    mask: Option<Mask>,
    device: Device,
    /// Of a first pass.
    layers: Option<Vec<LayerCache>>,
    /// Whether the input's mask meets a token behind a past for the first time.
    mask_is_new: bool,
}

impl KvCache {
    /// Number of tokens in each row, left padding included.
    pub fn tokens(&self) -> usize {
        self.rows.as_ref().map_or(0, |rows| rows.tokens)
    }

    /// Number of rows, or `None` before the first pass.
    pub fn batch(&self) -> Option<usize> {
        self.rows.as_ref().map(|rows| rows.batch)
    }

    /// Number of bytes that the tensors take.
    ///
    /// For a layer that keeps all its past and memories aside, `2 · batch · kv_heads · slots ·
    /// head_dim` numbers, where the slots are the capacity, doubled as often as was needed.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// Forgets everything: the next pass is a first pass, of any model and batch.
    pub fn clear(&mut self) {
        self.rows = None;
        self.layers.clear();
    }

    /// Goes back to the first `tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] if there are fewer, or if a layer with a window has dropped keys that the
    /// next token would see.
    pub fn trim(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.tokens() {
            return misuse(
                CacheMisuse::Trim,
                format!("at most {}, the number of tokens there are", self.tokens()),
                tokens.to_string(),
            );
        }
        if let Some(layer) = self.layers.iter().position(|layer| !layer.own.can_trim(tokens)) {
            return misuse(
                CacheMisuse::Trim,
                format!("a length whose window layer {layer} still holds"),
                format!("{tokens} of {} tokens; start again from the tokens", self.tokens()),
            );
        }
        for layer in &mut self.layers {
            layer.own.trim(tokens);
        }
        if let Some(rows) = &mut self.rows {
            rows.tokens = tokens;
            rows.history = rows.history.take().map(|all| all.narrow(1, 0, tokens));
        }
        Ok(())
    }

    /// A cache of the first `tokens` tokens, to go on from in another way. This one stays.
    ///
    /// # Errors
    ///
    /// As [`trim`](Self::trim).
    pub fn prefix(&self, tokens: usize) -> Result<Self> {
        let mut prefix = self.clone();
        prefix.trim(tokens)?;
        Ok(prefix)
    }

    /// Makes row `i` what row `rows[i]` was: reorders, repeats (for the beams of a search, or for
    /// several samples of one prompt) and drops (finished) rows.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`] for no rows at all, or for a row that there is not.
    pub fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
        let batch = self.batch().unwrap_or(0);
        if rows.is_empty() || rows.iter().any(|&row| row >= batch) {
            return misuse(
                CacheMisuse::Rows,
                format!("at least one of the rows 0 to {}", batch.saturating_sub(1)),
                format!("{rows:?}"),
            );
        }
        if rows.iter().copied().eq(0..batch) {
            return Ok(());
        }
        for layer in &mut self.layers {
            layer.select_rows(rows);
        }
        if let Some(state) = &mut self.rows {
            state.select(rows);
        }
        Ok(())
    }

    /// Checks a pass against the cache. Nothing changes.
    pub(crate) fn begin(
        &mut self,
        [batch, new]: [usize; 2],
        device: &Device,
        model: Vec<(ParamId, Past)>,
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
        self.check_model(&model)?;
        let mask_is_new = input.mask.is_some() || self.rows.as_ref().is_some_and(|r| r.passes == 1);
        if let Some(rows) = &self.rows {
            rows.check(batch, device)?;
            rows.complete(&mut input)?;
        }
        input.positions.ids(batch, start, new)?;
        let layers = self.rows.is_none().then(|| self.new_layers(&model));
        let grid = match layers.as_ref().unwrap_or(&self.layers).first() {
            Some(layer) => layer.own.grid(batch, new)?,
            None => Grid::square(batch, new),
        };
        let mask = input.mask.take();
        input.mask = mask.as_ref().map(|mask| mask.up_to(start + new));
        Ok(Pass { start, grid, input, mask, device: device.clone(), layers, mask_is_new })
    }

    /// Takes in what a pass said, and gives the layers' parts for it.
    pub(crate) fn enter(&mut self, pass: Pass) -> &mut [LayerCache] {
        let Pass { start, grid, input, mask, device, layers, .. } = pass;
        if let Some(layers) = layers {
            self.layers = layers;
        }
        let before = self.rows.take();
        let (passes, history) = before.map_or((0, None), |rows| (rows.passes, rows.history));
        self.rows = Some(Rows {
            device,
            batch: grid.batch(),
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

    fn new_layers(&self, layers: &[(ParamId, Past)]) -> Vec<LayerCache> {
        let room = Room { capacity: self.config.capacity, limit: self.config.limit };
        let layer = |&(model, past): &(ParamId, Past)| LayerCache {
            model,
            own: Store::new(past, room),
            memory: None,
        };
        layers.iter().map(layer).collect()
    }

    fn check_model(&self, layers: &[(ParamId, Past)]) -> Result<()> {
        if self.rows.is_none() {
            return Ok(());
        }
        if layers.len() != self.layers.len() {
            return misuse(
                CacheMisuse::Model,
                format!("the model of the first pass, with {} layers", self.layers.len()),
                format!("one with {} layers", layers.len()),
            );
        }
        let same = |(cache, layer): (&LayerCache, &(ParamId, Past))| cache.model == layer.0;
        if !self.layers.iter().zip(layers).all(same) {
            return misuse(
                CacheMisuse::Model,
                "the model of the first pass".into(),
                "one with other parameters; clear the cache to use it for another model".into(),
            );
        }
        Ok(())
    }
}

impl Pass {
    /// An error if a token sees others of its row and not itself because of the input's mask: then
    /// its row ended before, as with padding on the right, and can't be continued.
    ///
    /// `mask` is the model's own; `lowered` that and the input's.
    pub(crate) fn check_own_keys(&self, mask: &Mask, lowered: &LoweredMask) -> Result<()> {
        if self.start == 0 || !self.mask_is_new || self.input.mask.is_none() {
            return Ok(());
        }
        let model = mask.lower(&self.grid)?;
        let (new, keys) = (self.grid.queries(), self.grid.keys());
        for (row, query) in (0..self.grid.batch()).flat_map(|b| (0..new).map(move |q| (b, q))) {
            let own = keys - new + query;
            let sees = |mask: &LoweredMask, key| mask.is_visible(row, 0, query, key);
            if !sees(lowered, own) && sees(&model, own) && (0..own).any(|key| sees(lowered, key)) {
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

impl Rows {
    fn check(&self, batch: usize, device: &Device) -> Result<()> {
        if batch != self.batch {
            return misuse(
                CacheMisuse::Batch,
                format!("{} rows, as in the first pass", self.batch),
                batch.to_string(),
            );
        }
        if *device != self.device {
            return misuse(
                CacheMisuse::Device,
                format!("tensors on {:?}, as in the first pass", self.device),
                format!("{device:?}"),
            );
        }
        Ok(())
    }

    /// What the input leaves out has been said by an earlier pass.
    fn complete(&self, input: &mut LanguageModelInput) -> Result<()> {
        if input.memory.is_some() && self.passes > 0 {
            return misuse(
                CacheMisuse::Memory,
                "none, since the first pass gave it and its keys are kept".into(),
                "states".into(),
            );
        }
        if input.mask.is_none() {
            input.mask = self.mask.clone();
        }
        if input.positions == Positions::Index {
            input.positions = self.positions.clone();
        }
        if input.memory.is_none() {
            input.memory = self.memory.clone();
        }
        Ok(())
    }

    fn history_with(&self, new: Tensor<2, Int>) -> Tensor<2, Int> {
        match &self.history {
            Some(history) => Tensor::cat(vec![history.clone(), new], 1),
            None => new,
        }
    }

    fn select(&mut self, rows: &[usize]) {
        self.mask = self.mask.as_ref().map(|mask| mask.select_rows(rows));
        self.positions = self.positions.select_rows(rows);
        self.memory = self
            .memory
            .take()
            .map(|(states, mask)| (store::select(states, rows), mask.select_rows(rows)));
        self.history = self.history.take().map(|history| store::select(history, rows));
        self.batch = rows.len();
    }
}

impl LayerCache {
    /// Writes the new keys and values and returns all that this pass may see,
    /// `[batch, kv_heads, keys, head_dim]` each.
    pub(crate) fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [key, value] = self.own.append(key, value);
        (key, value)
    }

    /// The keys and values of the memory, projected by the first pass that asks.
    pub(crate) fn memory(
        &mut self,
        project: impl FnOnce() -> (Tensor<4>, Tensor<4>),
    ) -> (Tensor<4>, Tensor<4>) {
        let [key, value] = self.memory.get_or_insert_with(|| project().into());
        (key.clone(), value.clone())
    }

    fn bytes(&self) -> usize {
        let memory = self.memory.iter().flatten();
        self.own.bytes() + memory.map(store::bytes).sum::<usize>()
    }

    fn select_rows(&mut self, rows: &[usize]) {
        self.own.select_rows(rows);
        self.memory = self.memory.take().map(|m| m.map(|tensor| store::select(tensor, rows)));
    }
}

fn misuse<T>(misuse: CacheMisuse, expected: String, got: String) -> Result<T> {
    Err(Error::Cache { misuse, expected, got })
}
