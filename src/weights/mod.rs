//! Weights as they are stored: half precision, and numbers in blocks that share a scale.

pub use crate::kernels::Format;
