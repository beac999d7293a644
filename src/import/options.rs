//! How weights are loaded.

use std::fmt;

use burn::tensor::{DType, Device};

use super::stored::Place;
use crate::{Error, Result};

/// The type that parameters get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32, whatever the file holds.
    #[default]
    F32,
    /// That of the file where the device computes in it; f32 elsewhere.
    ///
    /// On the CPU (flex and ndarray) the matrices of projections and embeddings stay as the file has
    /// them, in f32, in half precision or in blocks, as [`weights`](crate::weights) says, and the model
    /// computes in f32: the fastest way to generate, while training asks for [`F32`](Self::F32). On other
    /// devices blocks become f32.
    AsStored,
    /// f64.
    F64,
    /// f16. What lies beyond 65504 becomes infinite.
    F16,
    /// bf16.
    Bf16,
}

impl Precision {
    /// The type for a tensor that is stored as `stored`.
    pub(super) fn dtype(self, stored: DType, device: &Device) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::AsStored if device.supports_dtype(stored) => stored,
            Self::AsStored => DType::F32,
        }
    }

    /// Whether matrices may stay as they are stored.
    pub(super) fn keeps(self) -> bool {
        self == Self::AsStored
    }

    /// An error if this names a type that the device does not have.
    pub(super) fn check(self, device: &Device) -> Result<()> {
        let dtype = self.dtype(DType::F32, device);
        if device.supports_dtype(dtype) {
            return Ok(());
        }
        Err(Error::Config {
            field: "LoadOptions::precision",
            expected: "a type that the device computes in, Precision::F32 for example".into(),
            got: format!("{self:?}"),
        })
    }
}

/// How far a load is. Told after each parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Parameters that are loaded.
    pub parameters: usize,
    /// Parameters in all.
    pub of_parameters: usize,
    /// Their bytes in the checkpoint.
    pub bytes: u64,
    /// Bytes of all parameters in the checkpoint.
    pub of_bytes: u64,
}

/// Told the progress of a load.
pub(super) type Listener = Box<dyn FnMut(Progress) + Send>;

/// How weights are loaded.
///
/// ```
/// use burn_decoder::import::{LoadOptions, Precision};
///
/// let options = LoadOptions::new()
///     .with_precision(Precision::AsStored)
///     .with_progress(|progress| eprint!("\r{} of {} bytes", progress.bytes, progress.of_bytes));
/// ```
#[derive(Default)]
#[must_use]
pub struct LoadOptions {
    pub(super) precision: Precision,
    pub(super) place: Place,
    pub(super) listener: Option<Listener>,
    pub(super) prefix: String,
    pub(super) ignored: Vec<String>,
    pub(super) top_level_key: Option<String>,
}

impl LoadOptions {
    /// Parameters in f32, no progress told, names as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// The type that the parameters get; f32 if not said.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Whether matrices that stay as they are stored (see [`Precision::AsStored`]) are copied, one after
    /// the other, to memory of the process's own. If not said, they stay in the file, mapped: there at
    /// once, shared with other processes, and dropped and read again where memory is short. Copied, they
    /// may be read faster; BENCHMARKS.md has figures.
    pub fn with_weights_in_memory(mut self, in_memory: bool) -> Self {
        self.place = if in_memory { Place::Memory } else { Place::File };
        self
    }

    /// Calls `listener` after each parameter.
    pub fn with_progress(mut self, listener: impl FnMut(Progress) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// The module is a part of what the checkpoint holds: its names begin with `prefix`
    /// (`"decoder."`), and the other tensors belong to other parts.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Tensors whose names begin with one of `prefixes` are not looked at. Without this, a tensor
    /// that no parameter uses is an error.
    pub fn with_ignored<S: Into<String>>(mut self, prefixes: impl IntoIterator<Item = S>) -> Self {
        self.ignored.extend(prefixes.into_iter().map(Into::into));
        self
    }

    /// The entry of a `.pt` file that holds the state dict, if it is not the whole file
    /// (`"state_dict"`).
    pub fn with_top_level_key(mut self, key: impl Into<String>) -> Self {
        self.top_level_key = Some(key.into());
        self
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("precision", &self.precision)
            .field("place", &self.place)
            .field("progress", &self.listener.is_some())
            .field("prefix", &self.prefix)
            .field("ignored", &self.ignored)
            .field("top_level_key", &self.top_level_key)
            .finish()
    }
}
