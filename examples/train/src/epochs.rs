//! Burn's data loader, an epoch at a time.
//!
//! burn-train reads a loader from its beginning in every epoch, and has it shuffled by a generator
//! whose state no checkpoint keeps. Here a loader of the whole training is cut into its epochs, and
//! each reading gives the next one: which, is known from the number of the epoch alone. The device's
//! random numbers, which dropout draws from, begin from a seed of the epoch's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::tensor::Device;

use super::rows::mix;

/// A loader that gives another part of its items at each reading.
pub struct Epochs<O> {
    /// One for each epoch.
    epochs: Vec<Arc<dyn DataLoader<O>>>,
    /// The epoch that is read next, from 0.
    next: AtomicUsize,
    seed: u64,
    device: Device,
}

impl<O: Send + 'static> Epochs<O> {
    /// Cuts the items of `loader` into `epochs` equal parts, of which the first `done` were read
    /// before.
    pub fn new(
        loader: &Arc<dyn DataLoader<O>>,
        epochs: usize,
        done: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let items = loader.num_items() / epochs;
        let part = |epoch: usize| loader.slice(epoch * items, (epoch + 1) * items);
        Self {
            epochs: (0..epochs).map(part).collect(),
            next: AtomicUsize::new(done),
            seed,
            device: device.clone(),
        }
    }

    fn map(
        &self,
        device: &Device,
        change: impl Fn(&Arc<dyn DataLoader<O>>) -> Arc<dyn DataLoader<O>>,
    ) -> Arc<dyn DataLoader<O>> {
        Arc::new(Self {
            epochs: self.epochs.iter().map(change).collect(),
            next: AtomicUsize::new(self.next.load(Ordering::Relaxed)),
            seed: self.seed,
            device: device.clone(),
        })
    }
}

impl<O: Send + 'static> DataLoader<O> for Epochs<O> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<O> + 'a> {
        let epoch = self.next.fetch_add(1, Ordering::Relaxed);
        self.device.seed(mix(self.seed ^ mix(epoch as u64)));
        self.epochs[epoch].iter()
    }

    fn num_items(&self) -> usize {
        self.epochs[0].num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<O>> {
        self.map(device, |loader| loader.to_device(device))
    }

    /// This part of every epoch.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<O>> {
        self.map(&self.device, |loader| loader.slice(start, end))
    }
}
