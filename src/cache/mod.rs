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
//! - `layout`: which token lies in which slot, as arithmetic;
//! - `store`: the keys and values of one layer, written in place;
//! - `layer`: what a layer asks of them; each may keep another part of the past;
//! - `rows`: what is known of the batch;
//! - [`KvCache`]: all of it; `pass`: a pass through it, from the check to the end; `file`.

mod file;
mod layer;
mod layout;
mod pass;
mod rows;
mod store;

use burn::config::Config;

use crate::error::{CacheMisuse, check_nonzero};
use crate::{Error, Result};

pub use layer::LayerCache;
pub(crate) use layer::LayerPass;
pub(crate) use pass::Pass;
use rows::Rows;

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
    /// head_dim` numbers, where the slots are the capacity, doubled as often as was needed. A layer
    /// whose window has `w` keys never has more slots than `2 w` and its sinks, with the longest left
    /// padding before those if there are any.
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
}

fn misuse<T>(misuse: CacheMisuse, expected: String, got: String) -> Result<T> {
    Err(Error::Cache { misuse, expected, got })
}
