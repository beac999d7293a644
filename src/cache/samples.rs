//! Whether the model is still the one that filled the cache.
//!
//! A training step changes the values of a model's parameters, not their identity, and keys that were
//! made before it are wrong after it. To compare all values would cost as much as a pass does. So a
//! cache remembers the model's settings and a few values of every parameter. It compares the settings
//! in every pass, and looks at the values again
//!
//! - of all parameters in a pass of many tokens, and before it is saved;
//! - of one of them, each in its turn, in a pass of few tokens; where such a look waits for a device
//!   (a GPU), in every 16th of those;
//! - never, where whoever fills the cache holds the model as long as that (`KvCache::hold_model`), as
//!   a generation does.
//!
//! A step of an optimizer, which changes all parameters, is noticed by the next look. One that changes
//! a few of them is noticed when their turn comes, in as many looks as there are parameters at the
//! latest; one that leaves the remembered values alone is not. To save and load is safe: a file holds
//! a fingerprint of all values.

use std::sync::Arc;

use super::model::CachedModel;

/// Tokens in a pass that costs much more than to look at every parameter.
const MANY_TOKENS: usize = 64;
/// Passes of few tokens from one look to the next, where it waits for a device.
const DEVICE_INTERVAL: usize = 16;

/// What was seen of the model when the cache was filled for the first time.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    settings: u64,
    /// Of each parameter.
    values: Arc<[u64]>,
}

impl Samples {
    pub(super) fn of(model: &impl CachedModel) -> Self {
        Self { settings: model.settings(), values: model.samples().into() }
    }

    /// Whether what pass number `pass`, of so many tokens, looks at is what was seen.
    pub(super) fn agree_in(&self, model: &impl CachedModel, pass: usize, tokens: usize) -> bool {
        if tokens >= MANY_TOKENS {
            return self.agree(model);
        }
        if self.settings != model.settings() {
            return false;
        }
        let look = match model.is_read_at_once() {
            true => pass,
            false if pass.is_multiple_of(DEVICE_INTERVAL) => pass / DEVICE_INTERVAL,
            false => return true,
        };
        let turn = look % self.values.len().max(1);
        self.values.get(turn).is_none_or(|&seen| model.sample(turn) == seen)
    }

    /// Whether all is what was seen.
    pub(super) fn agree(&self, model: &impl CachedModel) -> bool {
        self.settings == model.settings() && self.values[..] == model.samples()
    }
}
