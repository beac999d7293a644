//! The cache: keys and values of the past, and where each of them stands.
//!
//! Without a cache a model that has written `n` tokens computes all of them again for the next one.
//! With it, it computes the new tokens alone and looks at the keys and values that it kept:
//!
//! ```text
//! pass 1   tokens 0 .. 5     queries 0 .. 5     keys 0 .. 5
//! pass 2   token  5          query   5          keys 0 .. 6
//! pass 3   tokens 6 .. 9     queries 6 .. 9     keys 0 .. 9
//! ```
//!
//! Any number of tokens may come in one pass. The [`KvCache`] owns more than the tensors: which
//! rows there are, how long they are, how their tokens are numbered, what their masks hide. So the
//! mask and the positions of the next token follow from the cache, and padding, a window, sinks or
//! documents can't be lost on the way.
//!
//! - `layout`: which token lies in which slot, as arithmetic;
//! - [`CachePrecision`]: in how many bits they are kept; `buffer`: what is done with them in any;
//! - `store`: the keys and values of one layer, written in place;
//! - `layer`: what a layer asks of them; each may keep another part of the past;
//! - `rows`: what is known of the batch;
//! - `model`: what is asked of the model that fills it; `samples`: whether that is still the same;
//! - [`KvCache`]: all of it; `pass`: a pass through it, from the check to the end; `file`
//!   and `restore`: a cache in a file.

mod buffer;
mod config;
mod file;
mod kv_cache;
mod layer;
mod layout;
mod model;
mod pass;
mod precision;
mod restore;
mod rows;
mod samples;
mod store;

pub use config::CacheConfig;
#[cfg(test)]
pub(crate) use file::{resealed, resealed_as};
pub use kv_cache::KvCache;
pub(crate) use layer::LayerCache;
pub(crate) use model::{CachedModel, KeyShape};
pub(crate) use pass::CachedPass;
pub use precision::CachePrecision;

use kv_cache::misuse;
