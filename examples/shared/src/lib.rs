//! What the examples and benches have in common: the choice of a backend, how a program writes, and
//! charts.

mod backend;
pub mod chart;
mod files;
mod output;
// The library's writer of SVG, which is none of its public parts.
#[allow(dead_code)]
#[path = "../../../src/picture/raster.rs"]
mod raster;
#[allow(dead_code)]
#[path = "../../../src/picture/svg.rs"]
mod svg;

pub use backend::Backend;
pub use files::{check_writable, new_folder, replace_file, sync_all, sync_folder};
pub use output::{Output, say};
