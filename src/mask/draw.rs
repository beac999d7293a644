//! Masks drawn: what [`Drawing`] shows, and the picture of it in the terminal.
//!
//! ```text
//! look_ahead & lengths([3])
//! rows: queries, columns: keys; ██ visible, · hidden
//!
//!       t c s
//!       h a a
//!       e t t
//!   the ██· ·
//!   cat ████·
//!   sat ██████
//! ```

use std::fmt::{self, Display, Formatter};

use super::{Grid, LoweredMask, Mask};
use crate::Result;
use crate::picture::{LegendEntry, Paint, Panel, Picture, Raster};

/// Most panels in a drawing; the rows of the batch beyond them are left out.
const MOST_PANELS: usize = 4;

/// Most cells along an axis: in the terminal, and in an SVG.
const MOST_IN_TERMINAL: usize = 32;
const MOST_IN_SVG: usize = 256;

/// A mask on a grid, to be drawn: in the terminal by `Display`, as a file by [`Drawing::to_svg`].
///
/// One panel for each row of the batch and head that the mask tells apart, up to four; choose
/// another by [`Drawing::with_panel`]. Axes too long to draw are drawn in blocks of cells, shaded by
/// how much of them is visible; the legend says so.
#[derive(Clone, Debug)]
pub struct Drawing {
    mask: LoweredMask,
    title: Option<String>,
    query_labels: Vec<String>,
    key_labels: Vec<String>,
    panel: Option<(usize, usize)>,
}

impl Mask {
    /// The mask on a grid, to be drawn under its expression.
    ///
    /// ```
    /// use burn_decoder::mask::{Grid, Mask};
    ///
    /// let drawing = Mask::look_ahead().draw(&Grid::square(1, 3))?.with_labels(["the", "cat", "sat"]);
    /// println!("{drawing}");
    /// let svg = drawing.to_svg();
    /// # assert!(svg.starts_with("<svg"));
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn draw(&self, grid: &Grid) -> Result<Drawing> {
        Ok(self.lower(grid)?.draw().with_title(self.to_string()))
    }
}

impl LoweredMask {
    /// The mask, to be drawn.
    pub fn draw(&self) -> Drawing {
        Drawing {
            mask: self.clone(),
            title: None,
            query_labels: Vec::new(),
            key_labels: Vec::new(),
            panel: None,
        }
    }
}

/// Draws it in the terminal; for labels and SVG see [`LoweredMask::draw`].
impl Display for LoweredMask {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.draw().fmt(f)
    }
}

/// Draws it in the terminal.
impl Display for Drawing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.picture(MOST_IN_TERMINAL).to_terminal(f)
    }
}

impl Drawing {
    /// A line above the panels.
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Labels of the tokens, for queries and keys alike. Positions stand where labels run out.
    pub fn with_labels(self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        self.with_query_labels(labels.clone()).with_key_labels(labels)
    }

    /// Labels of the queries. Positions stand where labels run out.
    pub fn with_query_labels(
        mut self,
        labels: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.query_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Labels of the keys. Positions stand where labels run out.
    pub fn with_key_labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.key_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Draws this row of the batch and this head only.
    ///
    /// # Panics
    ///
    /// If the mask has no such row or head.
    pub fn with_panel(mut self, batch: usize, head: usize) -> Self {
        let [_, heads] = self.mask.batch_and_heads();
        assert!(
            batch < self.mask.grid().batch() && (heads == 1 || head < heads),
            "expected a panel of {} rows of the batch and {heads} heads, got batch {batch}, head \
             {head}",
            self.mask.grid().batch()
        );
        self.panel = Some((batch, head));
        self
    }

    /// The drawing as an SVG file.
    pub fn to_svg(&self) -> String {
        self.picture(MOST_IN_SVG).to_svg()
    }

    fn picture(&self, most: usize) -> Picture {
        let [batch, heads] = self.mask.batch_and_heads();
        let all = || (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let panels = match self.panel {
            Some(panel) => vec![panel],
            None => all().take(MOST_PANELS).collect(),
        };
        let left_out = if self.panel.is_some() { 0 } else { all().count() - panels.len() };
        let panels: Vec<Panel> =
            panels.into_iter().map(|(b, h)| self.draw_panel(b, h, most)).collect();
        let entry =
            |shade, sign, words| LegendEntry { paint: Paint::VISIBLE.faded(shade), sign, words };
        let mut legend = vec![entry(1.0, "██", "visible"), entry(0.0, "·", "hidden")];
        if panels.iter().any(|panel| panel.raster.in_blocks()) {
            legend.push(entry(0.5, "░░ ▒▒ ▓▓", "partly visible"));
        }
        Picture {
            title: self.title.clone().unwrap_or_default(),
            legend,
            panels,
            across: MOST_PANELS,
            note: match left_out {
                0 => String::new(),
                left_out => {
                    format!("{left_out} more panels left out; Drawing::with_panel draws them")
                }
            },
        }
    }

    fn draw_panel(&self, batch: usize, head: usize, most: usize) -> Panel {
        let grid = self.mask.grid();
        let [batches, heads] = self.mask.batch_and_heads();
        let caption = match (batches > 1, heads > 1) {
            (true, true) => format!("batch row {batch}, head {head}"),
            (true, false) => format!("batch row {batch}"),
            (false, true) => format!("head {head}"),
            (false, false) => String::new(),
        };
        let mut hidden = vec![false; grid.keys()];
        let sizes = [grid.queries(), grid.keys()];
        let raster = Raster::of_shades(sizes, most, Paint::VISIBLE, |query, shades| {
            self.mask.hidden_row(batch, head, query, &mut hidden);
            shades.extend(hidden.iter().map(|&hidden| if hidden { 0.0 } else { 1.0 }));
        });
        let label = |labels: &[String], index: usize, position: i64| {
            labels.get(index).cloned().unwrap_or_else(|| position.to_string())
        };
        Panel {
            caption,
            query_labels: (0..grid.queries())
                .step_by(raster.query_step)
                .map(|q| label(&self.query_labels, q, grid.query_position(q)))
                .collect(),
            key_labels: (0..grid.keys())
                .step_by(raster.key_step)
                .map(|k| label(&self.key_labels, k, grid.key_position(k)))
                .collect(),
            raster,
            tips: Vec::new(),
        }
    }
}
