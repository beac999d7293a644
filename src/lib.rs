//! Attention masks, attention and Transformer decoder layers for [Burn](https://burn.dev).
#![deny(missing_docs)]

pub mod attention;
pub mod decoder;
mod error;
mod host;
pub mod mask;
mod ops;

pub use error::{Error, Result};
