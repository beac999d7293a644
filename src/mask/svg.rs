//! A [`Picture`] as an SVG file: one rectangle for each run of equal cells in a row.

use std::fmt::Write;

use super::picture::{Panel, Picture, short};

/// Lengths in pixels.
const MARGIN: f32 = 16.0;
const LINE: f32 = 16.0;
const FONT: f32 = 11.0;
/// Width of a letter of a monospaced font of that size.
const LETTER: f32 = 6.7;
/// The longer side of a panel, which cells share; their size stays within these bounds.
const PANEL: f32 = 512.0;
const CELL: (f32, f32) = (2.0, 20.0);
const LONGEST_LABEL: usize = 16;
const LONGEST_LINE: usize = 120;

const VISIBLE: &str = "#1f5f99";
const HIDDEN: &str = "#e6e6e6";

/// Where a panel's parts lie.
struct Layout {
    cell: f32,
    /// Room for the labels of the queries, to the left.
    left: f32,
    /// Room for the labels of the keys, above.
    top: f32,
    width: f32,
    height: f32,
}

impl Layout {
    fn of(panel: &Panel) -> Self {
        let longest = |labels: &[String]| {
            let letters = labels.iter().map(|label| short(label, LONGEST_LABEL).chars().count());
            letters.max().unwrap_or(0) as f32 * LETTER + 6.0
        };
        let raster = &panel.raster;
        let cell = (PANEL / raster.rows.max(raster.columns).max(1) as f32).clamp(CELL.0, CELL.1);
        let (left, top) = (longest(&panel.query_labels), longest(&panel.key_labels));
        let captions = [Some(&panel.caption).filter(|c| !c.is_empty()), panel.scale().as_ref()]
            .into_iter()
            .flatten()
            .map(|caption| caption.chars().count() as f32 * LETTER)
            .fold(0.0, f32::max);
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
    pub(crate) fn to_svg(&self) -> String {
        let layouts: Vec<Layout> = self.panels.iter().map(Layout::of).collect();
        let legend = "rows: queries, columns: keys";
        let partly = self.panels.iter().any(|panel| panel.raster.in_blocks());
        let lines = [short(&self.title, LONGEST_LINE), short(&self.note, LONGEST_LINE)];
        let text_width = lines.iter().map(|line| line.chars().count() as f32 * LETTER);
        let panels_width: f32 = layouts.iter().map(|layout| layout.width + MARGIN).sum();
        let legend_width = legend.len() as f32 * LETTER + if partly { 320.0 } else { 190.0 };
        let width = text_width.fold(panels_width.max(legend_width), f32::max) + 2.0 * MARGIN;
        let panels_top = MARGIN + 2.5 * LINE;
        let panels_height = layouts.iter().map(|layout| layout.height).fold(0.0, f32::max);
        let height = panels_top + panels_height + MARGIN + LINE;

        let mut svg = Svg::new(width, height, &self.title);
        svg.text(MARGIN, MARGIN + FONT, "start", &lines[0]);
        let legend_line = MARGIN + LINE + FONT;
        svg.text(MARGIN, legend_line, "start", legend);
        let mut x = MARGIN + (legend.len() + 2) as f32 * LETTER;
        let swatches = [("visible", 1.0), ("hidden", 0.0), ("partly visible", 0.5)];
        for (name, shade) in swatches.into_iter().take(if partly { 3 } else { 2 }) {
            svg.rect([x, legend_line - FONT, FONT, FONT], HIDDEN, 1.0);
            if shade > 0.0 {
                svg.rect([x, legend_line - FONT, FONT, FONT], VISIBLE, shade);
            }
            svg.text(x + FONT + 4.0, legend_line, "start", name);
            x += FONT + 18.0 + name.len() as f32 * LETTER;
        }
        let mut x = MARGIN;
        for (panel, layout) in self.panels.iter().zip(&layouts) {
            svg.panel(panel, layout, x, panels_top);
            x += layout.width + MARGIN;
        }
        svg.text(MARGIN, height - MARGIN, "start", &lines[1]);
        svg.finish()
    }
}

/// An SVG file in the making.
struct Svg(String);

impl Svg {
    fn new(width: f32, height: f32, title: &str) -> Self {
        let mut svg = Self(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" font-size=\"{FONT}\" shape-rendering=\"crispEdges\">\n\
             <title>{}</title>\n",
            escape(if title.is_empty() { "attention mask" } else { title })
        ));
        svg.rect([0.0, 0.0, width.round(), height.round()], "#ffffff", 1.0);
        svg
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a string never fails");
    }

    fn rect(&mut self, [x, y, width, height]: [f32; 4], fill: &str, opacity: f32) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{fill}\""
        ));
        if opacity < 1.0 {
            self.push(format_args!(" fill-opacity=\"{opacity:.2}\""));
        }
        self.push(format_args!("/>\n"));
    }

    fn text(&mut self, x: f32, y: f32, anchor: &str, text: &str) {
        if !text.is_empty() {
            self.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" xml:space=\"preserve\">{}\
                 </text>\n",
                escape(text)
            ));
        }
    }

    fn panel(&mut self, panel: &Panel, layout: &Layout, x: f32, y: f32) {
        let cell = layout.cell;
        self.text(x, y + FONT, "start", &panel.caption);
        self.text(x, y + LINE + FONT, "start", &panel.scale().unwrap_or_default());
        let (left, top) = (x + layout.left, y + 2.0 * LINE + layout.top);
        let raster = &panel.raster;
        self.rect(
            [left, top, raster.columns as f32 * cell, raster.rows as f32 * cell],
            HIDDEN,
            1.0,
        );
        for row in 0..raster.rows {
            let mut column = 0;
            for run in raster.row(row).chunk_by(|a, b| a == b) {
                if run[0] > 0.0 {
                    let [x, y] = [left + column as f32 * cell, top + row as f32 * cell];
                    self.rect([x, y, run.len() as f32 * cell, cell], VISIBLE, run[0]);
                }
                column += run.len();
            }
        }
        // As many labels as there is room for.
        let every = (FONT / cell).ceil() as usize;
        let middle = (cell + 0.7 * FONT) / 2.0;
        for (row, label) in panel.query_labels.iter().enumerate().step_by(every) {
            let y = top + row as f32 * cell + middle;
            self.text(left - 4.0, y, "end", &short(label, LONGEST_LABEL));
        }
        for (column, label) in panel.key_labels.iter().enumerate().step_by(every) {
            let x = left + column as f32 * cell + middle;
            self.push(format_args!(
                "<g transform=\"translate({x:.1} {:.1}) rotate(-90)\">",
                top - 4.0
            ));
            self.text(0.0, 0.0, "start", &short(label, LONGEST_LABEL));
            self.push(format_args!("</g>\n"));
        }
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Text as XML wants it: five characters written out, and none that XML has no place for.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
