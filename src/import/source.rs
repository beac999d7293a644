//! The tensors of a checkpoint: named, and read one by one when they are asked for.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::store::{ModuleSnapshot, burn_pack};

use super::stored::Stored;

/// The tensors of a checkpoint.
#[derive(Default)]
pub struct TensorSource {
    /// The file or folder, for messages.
    pub path: String,
    pub tensors: BTreeMap<String, burn_pack::Tensor>,
    /// Those of `tensors` that a projection or an embedding can keep as they are stored.
    pub stored: BTreeMap<String, Stored>,
    /// Tensors in a type that Burn does not have, with it.
    pub foreign: BTreeMap<String, String>,
}

impl TensorSource {
    /// The parameters of another module, called `name` in messages.
    pub fn module(module: &impl Module, name: &str) -> Self {
        let tensors = module.collect(None, None, true).into_iter();
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor)).collect();
        Self { path: name.into(), tensors, ..Self::default() }
    }

    /// Adds a matrix in blocks: f32 for whoever can't keep it as it is.
    pub fn insert_stored(&mut self, name: String, matrix: Stored) {
        self.tensors.insert(name.clone(), matrix.numbers(&name));
        self.stored.insert(name, matrix);
    }

    /// The bytes of one of its tensors, as the checkpoint has them.
    pub fn bytes_of(&self, tensor: &burn_pack::Tensor) -> usize {
        self.stored.get(&tensor.name).map_or_else(|| tensor.byte_len(), Stored::byte_len)
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().chain(self.foreign.keys()).map(String::as_str)
    }
}
