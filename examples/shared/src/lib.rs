//! What the examples have in common.

mod backend;

pub use backend::Backend;
