//! Whether the model is still the one that filled the cache.
//!
//! A training step changes the values of a model's parameters, not their identity, and keys that were
//! made before it are wrong after it. To compare all values would cost as much as a pass does. So a
//! cache remembers the model's settings and a few values of every parameter. It compares the settings
//! in every pass, and looks at the values again
//!
//! - at all of them in a pass of many tokens, and before it is saved;
//! - at one of them, each in its turn, in a pass of few tokens.
//!
//! A step that changes all parameters, as that of an optimizer does, is noticed by the next pass. One
//! that changes a few of them is noticed when their turn comes, in as many passes as there are
//! parameters at the latest; one that leaves the remembered values alone is not. To save and load is
//! safe: a file holds a fingerprint of all values.

use std::sync::Arc;

use super::model::CachedModel;

/// Tokens in a pass that costs much more than to look at every parameter.
const MANY_TOKENS: usize = 64;

/// What was seen of each parameter when the cache was filled for the first time.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    settings: u64,
    /// Of each parameter.
    values: Arc<[u64]>,
}

impl Samples {
    pub(super) fn of(model: &impl CachedModel) -> Self {
        let values = (0..model.parameters()).map(|index| model.sample(index)).collect();
        Self { settings: model.settings(), values }
    }

    /// Whether the values that a pass of so many tokens looks at are those that were seen.
    pub(super) fn agree_in(&self, model: &impl CachedModel, pass: usize, tokens: usize) -> bool {
        if tokens >= MANY_TOKENS {
            return self.agree(model);
        }
        let turn = pass % self.values.len().max(1);
        self.settings == model.settings()
            && self.values.get(turn).is_none_or(|&seen| model.sample(turn) == seen)
    }

    /// Whether all values are those that were seen.
    pub(super) fn agree(&self, model: &impl CachedModel) -> bool {
        self.settings == model.settings()
            && self.values.len() == model.parameters()
            && self.values.iter().enumerate().all(|(index, &seen)| model.sample(index) == seen)
    }
}
