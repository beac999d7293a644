//! Panels under one title and legend.

use super::raster::{Paint, Raster};

/// Panels of cells, and what explains them.
pub(crate) struct Picture {
    /// A line above; may be empty.
    pub(crate) title: String,
    /// What the colours stand for.
    pub(crate) legend: Vec<LegendEntry>,
    pub(crate) panels: Vec<Heatmap>,
    /// The number of panels side by side.
    pub(crate) across: usize,
    /// A line below; may be empty.
    pub(crate) note: String,
}

/// What a colour stands for.
pub(crate) struct LegendEntry {
    pub(crate) paint: Paint,
    /// The same in the terminal; empty if it can't show it.
    pub(crate) sign: &'static str,
    pub(crate) words: &'static str,
}

/// One matrix: rows are queries, columns are keys.
pub(crate) struct Heatmap {
    /// A line above; may be empty.
    pub(crate) caption: String,
    /// One for each row of the raster.
    pub(crate) query_labels: Vec<String>,
    /// One for each column of the raster.
    pub(crate) key_labels: Vec<String>,
    pub(crate) raster: Raster,
    /// Painted first in an SVG; of the same size.
    pub(crate) ground: Option<Raster>,
    /// What an SVG says of the cell under the pointer, `[rows, columns]`; may be empty.
    pub(crate) tips: Vec<String>,
}

impl Heatmap {
    /// What a drawn cell stands for, where that is more than one cell.
    pub(super) fn scale(&self) -> Option<String> {
        let Raster { query_step, key_step, .. } = self.raster;
        self.raster
            .in_blocks()
            .then(|| format!("each drawn cell is {query_step} queries x {key_step} keys"))
    }
}

/// A label fit for one short line: no control characters, and not long.
pub(super) fn short(label: &str, most: usize) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = label.chars().take(most).map(printable).collect();
    if label.chars().nth(most).is_some() {
        short.pop();
        short.push('…');
    }
    short
}
