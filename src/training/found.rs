//! What a metric stopped a training for.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use burn::train::Interrupter;

/// Why a metric stopped a training, if it did. A handle: its clones tell the same, after the training
/// too.
#[derive(Clone, Debug, Default)]
pub struct Found(Arc<Mutex<Option<String>>>);

impl Found {
    /// The reason.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the first reason, and stops the training.
    pub(super) fn stop(&self, interrupter: &Interrupter, why: impl Display) {
        let mut reason = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = reason.get_or_insert_with(|| why.to_string());
        interrupter.stop(Some(reason));
    }
}
