//! What a configuration says.

use crate::decoder::LanguageModelConfig;
use crate::import::table::Table;

/// A model, and what its tensors are called.
pub struct Description {
    pub config: LanguageModelConfig,
    pub table: Table,
}
