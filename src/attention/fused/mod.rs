//! The crate's own attention for the CPU: one pass over the visible tiles, forward and backward.

#[allow(dead_code, unused_imports)]
mod kernel;
