//! The writer of SVG files: rectangles, lines and text.

use std::fmt::{Arguments, Write};

use super::raster::Paint;

/// Height of the letters, in pixels.
pub(super) const FONT: f32 = 11.0;
/// Width of a letter of a monospaced font of that size.
pub(super) const LETTER: f32 = 6.7;

/// An SVG file in the making.
pub(super) struct Svg(String);

impl Svg {
    /// A white page. The title is what screen readers say.
    pub(super) fn new(width: f32, height: f32, title: &str) -> Self {
        let mut svg = Self(String::new());
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" font-size=\"{FONT}\" \
             shape-rendering=\"crispEdges\">\n<title>{}</title>\n",
            escape(title)
        ));
        svg.rect([0.0, 0.0, width.round(), height.round()], Paint::WHITE, "");
        svg
    }

    pub(super) fn push(&mut self, text: Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a string never fails");
    }

    /// A rectangle `[x, y, width, height]`, and what it says under the pointer; may be empty.
    pub(super) fn rect(&mut self, [x, y, width, height]: [f32; 4], paint: Paint, tip: &str) {
        let Paint { colour, opacity } = paint;
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\""
        ));
        if opacity < 1.0 {
            self.push(format_args!(" fill-opacity=\"{opacity:.2}\""));
        }
        match tip {
            "" => self.push(format_args!("/>\n")),
            tip => self.push(format_args!("><title>{}</title></rect>\n", escape(tip))),
        }
    }

    /// A thin white line.
    pub(super) fn line(&mut self, [x1, y1]: [f32; 2], [x2, y2]: [f32; 2]) {
        self.push(format_args!(
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ffffff\"/>\n"
        ));
    }

    /// A line of text that starts or ends at `x`, its letters standing on `y`.
    pub(super) fn text(&mut self, x: f32, y: f32, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::End => "end",
        };
        if !text.is_empty() {
            self.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" xml:space=\"preserve\">{}\
                 </text>\n",
                escape(text)
            ));
        }
    }

    /// A line of text that goes up from `y`.
    pub(super) fn upright_text(&mut self, x: f32, y: f32, text: &str) {
        self.push(format_args!("<g transform=\"translate({x:.1} {y:.1}) rotate(-90)\">"));
        self.text(0.0, 0.0, Anchor::Start, text);
        self.push(format_args!("</g>\n"));
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// Which end of a text is given.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    End,
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
