//! A [`Picture`] as an SVG file: where title, legend, panels and labels lie. A panel is one
//! rectangle for each run of equal cells in a row; where cells say something under the pointer, one
//! for each.

use super::heatmap::{Heatmap, LegendEntry, Picture, short};
use super::raster::{Paint, Raster};
use super::svg::{Anchor, FONT, LETTER, Svg};

/// Lengths in pixels.
const MARGIN: f32 = 16.0;
const LINE: f32 = 16.0;
/// Between labels and their cells.
const GAP: f32 = 4.0;
/// The longer side of a panel, which cells share; their size is whole, so that no seams show between
/// them, and stays within these bounds.
const PANEL: f32 = 512.0;
const CELL: (f32, f32) = (2.0, 20.0);
/// Cells of this size and larger are set apart by thin lines.
const LINED_CELL: f32 = 6.0;
const LONGEST_LABEL: usize = 16;
const LONGEST_LINE: usize = 120;

const AXES: &str = "rows: queries, columns: keys";

fn text_width(text: &str) -> f32 {
    text.chars().count() as f32 * LETTER
}

/// The swatch of an entry, its words, and the space behind them.
fn entry_width(entry: &LegendEntry) -> f32 {
    FONT + GAP + text_width(entry.words) + MARGIN
}

/// Where a panel's parts lie.
struct HeatmapLayout {
    cell: f32,
    /// Room for the labels of the queries, to the left.
    left: f32,
    /// Room for the labels of the keys, above.
    top: f32,
    width: f32,
    height: f32,
}

impl HeatmapLayout {
    fn of(panel: &Heatmap) -> Self {
        let longest = |labels: &[String]| {
            let widths = labels.iter().map(|label| text_width(&short(label, LONGEST_LABEL)));
            (widths.fold(0.0, f32::max) + GAP).ceil()
        };
        let raster = &panel.raster;
        let cell =
            (PANEL / raster.rows.max(raster.columns).max(1) as f32).floor().clamp(CELL.0, CELL.1);
        let (left, top) = (longest(&panel.query_labels), longest(&panel.key_labels));
        let captions =
            text_width(&panel.caption).max(text_width(&panel.scale().unwrap_or_default()));
        Self {
            cell,
            left,
            top,
            width: (left + raster.columns as f32 * cell).max(captions),
            height: 2.0 * LINE + top + raster.rows as f32 * cell,
        }
    }
}

impl Picture {
    /// The picture as an SVG file.
    pub(crate) fn to_svg(&self) -> String {
        let layouts: Vec<HeatmapLayout> = self.panels.iter().map(HeatmapLayout::of).collect();
        let rows_of_panels = || layouts.chunks(self.across.max(1));
        let row_width = |row: &[HeatmapLayout]| row.iter().map(|l| l.width + MARGIN).sum::<f32>();
        let row_height = |row: &[HeatmapLayout]| row.iter().map(|l| l.height).fold(0.0, f32::max);

        let [title, note] = [&self.title, &self.note].map(|line| short(line, LONGEST_LINE));
        let lines = [text_width(&title), text_width(&note), text_width(AXES)];
        let widths = lines.into_iter().chain(rows_of_panels().map(row_width));
        let width = widths.chain(self.legend.iter().map(entry_width)).fold(0.0, f32::max);
        let legend = self.legend_places(width);
        let legend_height = legend.last().map_or(0.0, |&[_, y]| y + LINE);
        let panels_top = MARGIN + LINE + legend_height + 0.5 * LINE;
        let panels_height: f32 = rows_of_panels().map(|row| row_height(row) + MARGIN).sum();
        let note_line = panels_top + panels_height + if note.is_empty() { -MARGIN } else { FONT };

        let name = if self.title.is_empty() { "attention mask" } else { &self.title };
        let mut svg = Svg::new(width + 2.0 * MARGIN, note_line + MARGIN, name);
        svg.text(MARGIN, MARGIN + FONT, Anchor::Start, &title);
        svg.text(MARGIN, MARGIN + LINE + FONT, Anchor::Start, AXES);
        for (entry, [x, y]) in self.legend.iter().zip(legend) {
            let [x, y] = [MARGIN + x, MARGIN + LINE + y];
            svg.swatch([x, y], entry.paint);
            svg.text(x + FONT + GAP, y + FONT - 1.0, Anchor::Start, entry.words);
        }
        let mut y = panels_top;
        for (panels, layouts) in self.panels.chunks(self.across.max(1)).zip(rows_of_panels()) {
            let mut x = MARGIN;
            for (panel, layout) in panels.iter().zip(layouts) {
                svg.panel(panel, layout, x, y);
                x += layout.width + MARGIN;
            }
            y += row_height(layouts) + MARGIN;
        }
        svg.text(MARGIN, note_line, Anchor::Start, &note);
        svg.finish()
    }

    /// Where the entries of the legend stand, behind the axes' words and in as many lines as they
    /// need.
    fn legend_places(&self, width: f32) -> Vec<[f32; 2]> {
        let (mut x, mut y) = (text_width(AXES) + MARGIN, 0.0);
        let place = |entry: &LegendEntry| {
            if x > 0.0 && x + entry_width(entry) > width {
                (x, y) = (0.0, y + LINE);
            }
            let place = [x, y];
            x += entry_width(entry);
            place
        };
        self.legend.iter().map(place).collect()
    }
}

impl Svg {
    /// What a cell of this paint looks like, in a frame that shows a white one too.
    fn swatch(&mut self, [x, y]: [f32; 2], paint: Paint) {
        self.rect([x, y, FONT, FONT], Paint { opacity: 1.0, ..Paint::EMPTY }, "");
        if paint.opacity > 0.0 {
            self.rect([x + 1.0, y + 1.0, FONT - 2.0, FONT - 2.0], paint, "");
        }
    }

    /// The cells of a raster that are not empty.
    fn raster(&mut self, raster: &Raster, tips: &[String], [left, top]: [f32; 2], cell: f32) {
        for row in 0..raster.rows {
            let y = top + row as f32 * cell;
            let mut column = 0;
            for run in raster.row(row).chunk_by(|a, b| a == b && tips.is_empty()) {
                let tip = tips.get(row * raster.columns + column);
                if run[0].opacity > 0.0 || tip.is_some() {
                    let place = [left + column as f32 * cell, y, run.len() as f32 * cell, cell];
                    self.rect(place, run[0], tip.map_or("", String::as_str));
                }
                column += run.len();
            }
        }
    }

    fn panel(&mut self, panel: &Heatmap, layout: &HeatmapLayout, x: f32, y: f32) {
        let cell = layout.cell;
        self.text(x, y + FONT, Anchor::Start, &panel.caption);
        self.text(x, y + LINE + FONT, Anchor::Start, &panel.scale().unwrap_or_default());
        let (left, top) = (x + layout.left, y + 2.0 * LINE + layout.top);
        let raster = &panel.raster;
        let [width, height] = [raster.columns, raster.rows].map(|cells| cells as f32 * cell);
        // One pixel wider than the cells: a frame.
        let frame = [left - 1.0, top - 1.0, width + 2.0, height + 2.0];
        self.rect(frame, Paint { opacity: 1.0, ..Paint::EMPTY }, "");
        if let Some(ground) = &panel.ground {
            self.raster(ground, &[], [left, top], cell);
        }
        self.raster(raster, &panel.tips, [left, top], cell);
        if cell >= LINED_CELL {
            for row in 1..raster.rows {
                let y = top + row as f32 * cell;
                self.line([left, y], [left + width, y]);
            }
            for column in 1..raster.columns {
                let x = left + column as f32 * cell;
                self.line([x, top], [x, top + height]);
            }
        }
        // As many labels as there is room for, each within its own line.
        let every = ((FONT + 1.0) / cell).ceil() as usize;
        let middle = (cell + 0.7 * FONT) / 2.0;
        for (row, label) in panel.query_labels.iter().enumerate().step_by(every) {
            let y = top + row as f32 * cell + middle;
            self.text(left - GAP, y, Anchor::End, &short(label, LONGEST_LABEL));
        }
        for (column, label) in panel.key_labels.iter().enumerate().step_by(every) {
            let x = left + column as f32 * cell + middle;
            self.upright_text(x, top - GAP, &short(label, LONGEST_LABEL));
        }
    }
}
