//! How much a cache may hold.

use burn::config::Config;

use super::store::Room;
use super::{CachePrecision, KvCache};
use crate::Result;
use crate::error::check_nonzero;

/// Tokens that room is made for before they come, at most.
const MOST_RESERVED: usize = 1024;

/// Configuration of a [`KvCache`].
#[derive(Config, Debug)]
pub struct CacheConfig {
    /// Number of tokens to reserve room for at first, in each row; of more than 1024 only 1024, since
    /// they may never come. When the room is full, it doubles.
    #[config(default = 256)]
    pub capacity: usize,
    /// The most tokens that a row may have; one more is an error. Without it the cache grows as
    /// long as there is memory.
    pub limit: Option<usize>,
    /// In what precision keys and values are kept, those of a memory included.
    #[config(default = "CachePrecision::AsComputed")]
    pub precision: CachePrecision,
    /// Compares with a forward pass over everything, without the cache, in every so many passes.
    /// For finding mistakes: it costs what the cache saves. That pass rounds no keys, so that the
    /// difference that is allowed grows with what `precision` takes away.
    pub check_every: Option<usize>,
}

impl CacheConfig {
    /// Room for `tokens` tokens in each row, and never more. What is reserved grows with them.
    pub fn fixed(tokens: usize) -> Self {
        Self::new().with_capacity(tokens).with_limit(Some(tokens))
    }

    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for no room at all, or for checks in every 0 passes.
    pub fn init(&self) -> Result<KvCache> {
        check_nonzero("CacheConfig::capacity", self.capacity)?;
        check_nonzero("CacheConfig::limit", self.limit.unwrap_or(1))?;
        check_nonzero("CacheConfig::check_every", self.check_every.unwrap_or(1))?;
        Ok(KvCache {
            config: self.clone(),
            rows: None,
            layers: Vec::new(),
            samples: None,
            model_is_held: false,
        })
    }

    pub(super) fn room(&self) -> Room {
        Room { capacity: self.capacity.min(MOST_RESERVED), limit: self.limit }
    }
}
