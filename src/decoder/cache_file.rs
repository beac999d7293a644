//! A cache in a file, for the model that goes on with it.

use std::path::Path;

use super::LanguageModel;
use crate::Result;
use crate::cache::KvCache;

impl KvCache {
    /// Writes the cache to a file in the safetensors format, with a fingerprint of all parameters and
    /// settings of `model` that it depends on. The file is there whole or as it was, also if the
    /// process is killed meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if it belongs to another model than `model`, or if the
    /// file can't be written.
    pub fn save(&self, path: impl AsRef<Path>, model: &LanguageModel) -> Result<()> {
        self.write(path.as_ref(), model)
    }

    /// Reads a cache that [`save`](Self::save) wrote, to go on with `model` on its device.
    ///
    /// # Errors
    ///
    /// [`Error::Cache`](crate::Error::Cache) if the file can't be read, holds no cache or was damaged,
    /// or if any parameter or setting that keys, values or masks depend on is another in `model`.
    pub fn load(path: impl AsRef<Path>, model: &LanguageModel) -> Result<Self> {
        Self::read(path.as_ref(), model)
    }
}
