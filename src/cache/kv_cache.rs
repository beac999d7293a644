//! All of the past of a batch.

use super::CacheConfig;
use super::layer::LayerCache;
use super::rows::KnownRows;
use super::samples::Samples;
use crate::error::CacheMisuse;
use crate::{Error, Result};

/// The past of a batch of sequences: keys and values of every layer, positions and masks.
///
/// Belongs to one model and one batch from its first pass on, until [`clear`](Self::clear). Cloning
/// is cheap: the clones share the tensors until one of them is written to.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(super) config: CacheConfig,
    pub(super) rows: Option<KnownRows>,
    pub(super) layers: Vec<LayerCache>,
    /// Of the model that fills it; none if that can't change.
    pub(super) samples: Option<Samples>,
    /// Whether whoever fills it holds the model for as long, so that it can't change meanwhile.
    pub(super) model_is_held: bool,
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
    /// head_dim` numbers of the [precision](CacheConfig::precision), where the slots are the capacity, doubled as often as was needed. A layer
    /// whose window has `w` keys never has more slots than `2 w` and its sinks, with the longest left
    /// padding before those if there are any.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes).sum()
    }

    /// For who holds the model as long as the cache: nothing looks whether its values change, which
    /// on a GPU is a wait.
    pub(crate) fn hold_model(&mut self) {
        self.model_is_held = true;
    }

    /// What a number that was kept may be off by, where it is rounded.
    pub(crate) fn epsilon(&self) -> Option<f64> {
        self.config.precision.epsilon()
    }

    /// Forgets everything: the next pass is a first pass, of any model and batch.
    pub fn clear(&mut self) {
        self.rows = None;
        self.layers.clear();
        self.samples = None;
    }

    /// Goes back to the first `tokens` tokens; to none of them is to [`clear`](Self::clear).
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
        if tokens == 0 {
            // What was said of the rows goes with them: their padding is not that of others.
            self.clear();
            return Ok(());
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

pub(super) fn misuse<T>(misuse: CacheMisuse, expected: String, got: String) -> Result<T> {
    Err(Error::Cache { misuse, expected, got })
}
