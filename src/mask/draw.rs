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

use burn::tensor::Tensor;

use super::{Grid, LoweredMask, Mask};
use crate::Result;
use crate::picture::{Heatmap, LegendEntry, Paint, Picture, Raster};

/// Most panels in a drawing; the rows of the batch beyond them are left out.
const MOST_PANELS: usize = 4;
const MOST_PANELS_OF_WEIGHTS: usize = 64;

/// Most cells along an axis: in the terminal, and in an SVG.
const MOST_IN_TERMINAL: usize = 32;
const MOST_IN_SVG: usize = 256;

/// A mask on a grid, alone or under attention weights, to be drawn: in the terminal by `Display`, as a file by [`Drawing::to_svg`].
///
/// One panel for each row of the batch and head that the mask tells apart, up to four; choose
/// another by [`Drawing::with_panel`]. Axes too long to draw are drawn in blocks of cells, shaded by
/// how much of them is visible; the legend says so.
#[derive(Clone, Debug)]
#[must_use = "a drawing is shown by Display or to_svg"]
pub struct Drawing {
    mask: LoweredMask,
    title: Option<String>,
    query_labels: Vec<String>,
    key_labels: Vec<String>,
    panel: Option<(usize, usize)>,
    weights: Option<Weights>,
}

/// Attention weights: `[batch, heads, queries, keys]`, row-major.
#[derive(Clone, Debug)]
struct Weights {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl Weights {
    /// Those of one query.
    fn row(&self, batch: usize, head: usize, query: usize) -> &[f32] {
        let [_, heads, queries, keys] = self.shape;
        &self.values[((batch * heads + head) * queries + query) * keys..][..keys]
    }
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
            weights: None,
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
        let [_, heads] = self.batch_and_heads();
        assert!(
            batch < self.mask.grid().batch() && (heads == 1 || head < heads),
            "expected a panel of {} rows of the batch and {heads} heads, got batch {batch}, head \
             {head}",
            self.mask.grid().batch()
        );
        self.panel = Some((batch, head));
        self
    }

    /// Draws attention weights over the mask, a panel for each row of the batch and each head.
    ///
    /// `weights`: `[batch, heads, queries, keys]`, from 0 to 1. A weight over a hidden cell is drawn
    /// like any other: what is grey in the SVG must stay so.
    ///
    /// # Panics
    ///
    /// If the weights do not fit the mask's grid.
    pub fn with_attention_weights(mut self, weights: &Tensor<4>) -> Self {
        let shape @ [batch, _, queries, keys] = weights.dims();
        let grid = self.mask.grid();
        assert!(
            [batch, queries, keys] == [grid.batch(), grid.queries(), grid.keys()],
            "weights: expected [batch {}, heads, queries {}, keys {}], got {shape:?}",
            grid.batch(),
            grid.queries(),
            grid.keys()
        );
        self.weights = Some(Weights { shape, values: weights.to_data().iter::<f32>().collect() });
        self
    }

    /// The drawing as an SVG file.
    pub fn to_svg(&self) -> String {
        self.picture(MOST_IN_SVG).to_svg()
    }

    /// How many rows of the batch and how many heads differ.
    fn batch_and_heads(&self) -> [usize; 2] {
        match &self.weights {
            Some(weights) => [weights.shape[0], weights.shape[1]],
            None => self.mask.batch_and_heads(),
        }
    }

    fn picture(&self, most: usize) -> Picture {
        let [batch, heads] = self.batch_and_heads();
        let all = || (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h)));
        let chosen: Vec<_> = match (self.panel, &self.weights) {
            (Some(panel), _) => vec![panel],
            (None, Some(_)) => all().take(MOST_PANELS_OF_WEIGHTS).collect(),
            (None, None) => all().take(MOST_PANELS).collect(),
        };
        let left_out = if self.panel.is_some() { 0 } else { all().count() - chosen.len() };
        let panels: Vec<Heatmap> =
            chosen.into_iter().map(|(b, h)| self.draw_panel(b, h, most)).collect();
        Picture {
            title: self.title.clone().unwrap_or_default(),
            legend: self.legend(panels.iter().any(|panel| panel.raster.in_blocks())),
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

    fn legend(&self, in_blocks: bool) -> Vec<LegendEntry> {
        let blue = |shade| Paint::VISIBLE.faded(shade);
        let entry = |paint, sign, words| LegendEntry { paint, sign, words };
        if self.weights.is_some() {
            return vec![
                entry(blue(1.0), "██", "weight 1"),
                entry(blue(0.5), "░░ ▒▒ ▓▓", "less"),
                entry(Paint::WHITE, "·", "0"),
                entry(Paint::EMPTY, "", "hidden"),
            ];
        }
        let mut legend =
            vec![entry(blue(1.0), "██", "visible"), entry(Paint::EMPTY, "·", "hidden")];
        if in_blocks {
            legend.push(entry(blue(0.5), "░░ ▒▒ ▓▓", "partly visible"));
        }
        legend
    }

    fn draw_panel(&self, batch: usize, head: usize, most: usize) -> Heatmap {
        let grid = self.mask.grid();
        let [batches, heads] = self.batch_and_heads();
        let caption = match (batches > 1, heads > 1) {
            (true, true) => format!("batch row {batch}, head {head}"),
            (true, false) => format!("batch row {batch}"),
            (false, true) => format!("head {head}"),
            (false, false) => String::new(),
        };
        let visible = |paint| {
            let mut hidden = vec![false; grid.keys()];
            let [_, heads] = self.mask.batch_and_heads();
            let head = if heads == 1 { 0 } else { head };
            Raster::of_shades([grid.queries(), grid.keys()], most, paint, |query, shades| {
                self.mask.hidden_row(batch, head, query, &mut hidden);
                shades.extend(hidden.iter().map(|&hidden| if hidden { 0.0 } else { 1.0 }));
            })
        };
        let (raster, ground) = match &self.weights {
            None => (visible(Paint::VISIBLE), None),
            Some(weights) => {
                let sizes = [grid.queries(), grid.keys()];
                let raster = Raster::of_shades(sizes, most, Paint::VISIBLE, |query, shades| {
                    shades.extend_from_slice(weights.row(batch, head, query));
                });
                (raster, Some(visible(Paint::WHITE)))
            }
        };
        let label = |labels: &[String], index: usize, position: i64| {
            labels.get(index).cloned().unwrap_or_else(|| position.to_string())
        };
        Heatmap {
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
            ground,
            tips: Vec::new(),
        }
    }
}
