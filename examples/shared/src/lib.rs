//! What the examples have in common: the choice of a backend, and how a program writes.

mod backend;
mod files;
mod output;

pub use backend::Backend;
pub use files::{check_writable, new_folder, replace_file, sync_all, sync_folder};
pub use output::{Output, say};
