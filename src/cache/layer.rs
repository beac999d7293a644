//! The cache of one layer.

use burn::module::ParamId;
use burn::tensor::Tensor;

use super::CachePrecision;
use super::store::Store;
use crate::kernels::Kept;

/// The part of a [`KvCache`](super::KvCache) that belongs to one layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerCache {
    /// The parameter that makes the keys: tells models apart.
    pub(super) model: ParamId,
    pub(super) precision: CachePrecision,
    pub(super) own: Store,
    /// Keys and values of the memory, for the cross-attention.
    pub(super) memory: Option<[Kept; 2]>,
}

impl LayerCache {
    /// Writes the new keys and values, rounded, and returns all that this pass may see,
    /// `[batch, kv_heads, keys, head_dim]` each.
    pub(crate) fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> [Kept; 2] {
        let coding = self.precision.coding();
        let [key, value] = [key, value].map(|tensor| Kept::new(tensor, coding));
        self.own.append(key, value)
    }

    /// The keys and values of the memory, projected by the first pass that asks.
    pub(crate) fn memory(&mut self, project: impl FnOnce() -> (Tensor<4>, Tensor<4>)) -> [Kept; 2] {
        let coding = self.precision.coding();
        let rounded = || <[_; 2]>::from(project()).map(|tensor| Kept::new(tensor, coding));
        self.memory.get_or_insert_with(rounded).clone()
    }

    pub(super) fn bytes(&self) -> usize {
        let memory = self.memory.iter().flatten();
        self.own.bytes() + memory.map(Kept::bytes).sum::<usize>()
    }

    pub(super) fn select_rows(&mut self, rows: &[usize]) {
        self.own.select_rows(rows);
        self.memory = self.memory.take().map(|m| m.map(|kept| kept.select_rows(rows)));
    }
}
