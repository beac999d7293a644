//! burn-train's strategies in a training that goes on: they keep what they have seen in memory, so
//! they are told of the epochs before the checkpoint first, from the logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;
use burn::train::{EarlyStoppingStrategy, MetricEarlyStoppingStrategy};

/// Checkpoints as if the training had never been killed.
pub struct ResumedCheckpointing<S> {
    strategy: S,
    seen: usize,
}

impl<S> ResumedCheckpointing<S> {
    pub fn new(strategy: S) -> Self {
        Self { strategy, seen: 0 }
    }
}

impl<S: CheckpointingStrategy> CheckpointingStrategy for ResumedCheckpointing<S> {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let mut actions = Vec::new();
        for before in self.seen + 1..epoch {
            // What was saved then is saved; what a killed process did not come to delete is deleted.
            let done = self.strategy.checkpointing(before, store);
            actions.extend(done.into_iter().filter(|action| *action != CheckpointingAction::Save));
        }
        self.seen = epoch;
        actions.extend(self.strategy.checkpointing(epoch, store));
        actions
    }
}

/// Stops early as if the training had never been killed, and tells of it.
#[derive(Clone)]
pub struct ResumedStopping {
    strategy: MetricEarlyStoppingStrategy,
    seen: usize,
    stopped: Arc<AtomicBool>,
}

impl ResumedStopping {
    /// The strategy, and whether it has stopped the training.
    pub fn new(strategy: MetricEarlyStoppingStrategy) -> (Self, Arc<AtomicBool>) {
        let stopped = Arc::new(AtomicBool::new(false));
        (Self { strategy, seen: 0, stopped: stopped.clone() }, stopped)
    }
}

impl EarlyStoppingStrategy for ResumedStopping {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        for before in self.seen + 1..epoch {
            self.strategy.should_stop(before, store);
        }
        self.seen = epoch;
        let stop = self.strategy.should_stop(epoch, store);
        self.stopped.fetch_or(stop, Ordering::Relaxed);
        stop
    }
}
