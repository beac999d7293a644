//! Pictures: panels of coloured cells, queries down and keys across, in the terminal and as SVG.
//!
//! Knows no mask and no model: whoever has a matrix to show makes a [`Picture`] of it. In reading
//! order: `raster` (a matrix in blocks of cells), `heatmap` (with captions, labels and legend),
//! `terminal`; `svg` (the one writer of SVG, the examples' charts included) and `layout` (where
//! everything lies in the file).

mod heatmap;
mod layout;
mod raster;
mod svg;
mod terminal;

pub(crate) use heatmap::{Heatmap, LegendEntry, Picture};
pub(crate) use raster::{Paint, Raster};
