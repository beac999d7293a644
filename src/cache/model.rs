//! What a cache asks of the model that fills it. The cache knows no model; a model gives this.

use burn::module::ParamId;
use burn::tensor::{DType, Device};

use crate::Result;
use crate::mask::Past;
use crate::sequence::Batch;

/// A model whose layers keep keys and values.
pub(crate) trait CachedModel {
    /// Where its parameters are.
    fn device(&self) -> Device;

    /// For each layer the parameter that makes its keys: tells models apart.
    fn key_parameters(&self) -> impl Iterator<Item = ParamId>;

    /// For each layer what it keeps.
    fn key_shapes(&self) -> Vec<KeyShape>;

    /// The width of the memory that its layers read, if they do.
    fn memory_width(&self) -> Option<usize>;

    /// For each layer how much of its past rows like these need.
    fn pasts(&self, batch: &Batch) -> Result<Vec<Past>>;

    /// A number that changes with every setting that keys, values or masks depend on.
    fn settings(&self) -> u64;

    /// For each parameter that keys and values depend on a number that changes with a few of its
    /// values.
    fn samples(&self) -> Vec<u64>;

    /// The number at `index` of [`samples`](Self::samples).
    fn sample(&self, index: usize) -> u64;

    /// Whether to read a few values costs nothing beside a pass: nothing waits for a device.
    fn is_read_at_once(&self) -> bool;

    /// A number that changes with every value that keys, values or masks depend on, parameters and
    /// configuration: the same for the same model on every device.
    fn fingerprint(&self) -> u64;
}

/// The keys and values of one layer, of the own sequence and of a memory: number of heads, width of a
/// head, and what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyShape {
    pub own: [usize; 2],
    pub memory: Option<[usize; 2]>,
    pub dtype: DType,
}
