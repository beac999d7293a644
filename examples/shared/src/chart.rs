//! Curves and bars as SVG, by the library's own writer of it.

use super::raster::Paint;
use super::svg::{Anchor, FONT, LETTER, Svg};

const WIDTH: f32 = 760.0;
const HEIGHT: f32 = 320.0;
const LEFT: f32 = 72.0;
const RIGHT: f32 = 14.0;
const TOP: f32 = 34.0;
const BOTTOM: f32 = 44.0;
/// Between a text and what it belongs to.
const GAP: f32 = 6.0;
/// Height of a row of bars.
const ROW: f32 = 22.0;
/// The width in which bars are drawn, and the room behind the longest for its numbers.
const BARS: f32 = 380.0;
const NUMBERS: f32 = 110.0;

/// One line of a chart.
pub struct Curve {
    /// What the legend says.
    pub name: String,
    /// As SVG writes it: `#1f5f99`.
    pub colour: &'static str,
    /// Width of the line.
    pub width: f64,
    /// Horizontal and vertical, in the order of the horizontal.
    pub points: Vec<(f64, f64)>,
}

/// Up to so many points are marked: one alone is no line.
const MOST_MARKS: usize = 40;

/// Curves over `across`, of numbers in `unit`; numbers that are none are left out.
pub fn curves(title: &str, across: &str, unit: &str, curves: &[Curve]) -> String {
    let points = || {
        let all = curves.iter().flat_map(|curve| curve.points.iter().copied());
        all.filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let right = points().map(|(x, _)| x).fold(1.0, f64::max);
    let lowest = points().map(|(_, y)| y).fold(f64::INFINITY, f64::min);
    let highest = points().map(|(_, y)| y).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = match lowest < highest {
        true => (lowest - 0.04 * (highest - lowest), highest + 0.04 * (highest - lowest)),
        false => (0.0, 1.05 * highest.max(1.0)),
    };
    let x = |value: f64| LEFT + (value / right) as f32 * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| {
        HEIGHT - BOTTOM - ((value - low) / (high - low)) as f32 * (HEIGHT - BOTTOM - TOP)
    };

    let mut svg = Svg::new(WIDTH, HEIGHT, title);
    for tick in ticks(low, high) {
        svg.rect(
            [LEFT, y(tick), WIDTH - LEFT - RIGHT, 1.0],
            Paint { opacity: 1.0, ..Paint::EMPTY },
            "",
        );
        svg.text(LEFT - GAP, y(tick) + 4.0, Anchor::End, &short(tick));
    }
    for tick in ticks(0.0, right) {
        svg.centred(x(tick), HEIGHT - BOTTOM + FONT + GAP, &short(tick));
    }
    svg.centred((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - GAP, across);
    svg.upright_text(FONT + GAP, (HEIGHT + width_of(unit)) / 2.0, unit);
    let names: Vec<_> = curves.iter().map(|curve| (curve.name.as_str(), curve.colour)).collect();
    svg.legend([LEFT, 10.0], &names);
    for curve in curves {
        let drawn = curve.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        let points: Vec<_> = drawn.map(|&(at, value)| [x(at), y(value)]).collect();
        svg.curve(&points, curve.colour, curve.width);
    }
    svg.finish()
}

/// One row of a chart of ratios.
pub struct Bar {
    /// What stands to the left.
    pub label: String,
    /// As SVG writes it.
    pub colour: &'static str,
    /// The least and the most that was measured: the bar is darker between them.
    pub from: f64,
    pub to: f64,
    /// What stands to the right.
    pub numbers: String,
}

/// A bar from 1 for each ratio, on a scale of powers of two. `legend`: what the colours stand for.
pub fn bars(title: &str, legend: &[(&str, &'static str)], bars: &[Bar]) -> String {
    let widest = bars.iter().map(|bar| width_of(&bar.label)).fold(0.0, f32::max);
    let left = RIGHT + widest.ceil() + GAP;
    let bottom = TOP + ROW * bars.len() as f32;
    let lowest = bars.iter().map(|bar| bar.from).fold(1.0, f64::min).log2().floor();
    let highest = bars.iter().map(|bar| bar.to).fold(2.0, f64::max).log2().ceil();
    let x = |value: f64| left + ((value.log2() - lowest) / (highest - lowest)) as f32 * BARS;

    let mut svg = Svg::new(left + BARS + NUMBERS, bottom + FONT + 3.0 * GAP, title);
    svg.text(left, 10.0 + FONT - 2.0, Anchor::Start, title);
    svg.legend([left + width_of(title) + 2.0 * GAP, 10.0], legend);
    for power in lowest as i32..=highest as i32 {
        let at = x(f64::from(power).exp2());
        let opacity = if power == 0 { 0.8 } else { 0.15 };
        let line = [at, TOP - 4.0, 1.0, bottom - TOP + 4.0];
        svg.rect(line, Paint { colour: "#000000", opacity }, "");
        svg.centred(at, bottom + FONT + GAP, &short(f64::from(power).exp2()));
    }
    for (row, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * row as f32;
        let (start, end) = (x(bar.from.min(1.0)), x(bar.to.max(1.0)));
        let mut part = |start: f32, end: f32, opacity: f32| {
            let place = [start, top + 5.0, end - start, ROW - 10.0];
            svg.rect(place, Paint { colour: bar.colour, opacity }, "");
        };
        part(start, end, 0.7);
        part(x(bar.from), x(bar.to), 1.0);
        svg.text(left - GAP, top + 15.0, Anchor::End, &bar.label);
        svg.text(end + GAP, top + 15.0, Anchor::Start, &bar.numbers);
    }
    svg.finish()
}

impl Svg {
    /// A line of text whose middle is `x`.
    fn centred(&mut self, x: f32, y: f32, text: &str) {
        self.text(x - width_of(text) / 2.0, y, Anchor::Start, text);
    }

    /// Names side by side, each behind its colour; the first begins at `x, y`.
    fn legend(&mut self, [mut x, y]: [f32; 2], names: &[(&str, &'static str)]) {
        for &(name, colour) in names {
            self.rect([x, y, 10.0, 10.0], Paint { colour, opacity: 1.0 }, "");
            self.text(x + 10.0 + GAP, y + FONT - 2.0, Anchor::Start, name);
            x += 10.0 + 4.0 * GAP + width_of(name);
        }
    }

    /// A line through the points, which are marked if they are few.
    fn curve(&mut self, points: &[[f32; 2]], colour: &str, width: f64) {
        if points.len() <= MOST_MARKS {
            for [x, y] in points {
                self.push(format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\" fill=\"{colour}\" \
                     shape-rendering=\"auto\"/>\n",
                    width + 0.5
                ));
            }
        }
        let points: Vec<_> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             shape-rendering=\"auto\"/>\n",
            points.join(" ")
        ));
    }
}

fn width_of(text: &str) -> f32 {
    text.chars().count() as f32 * LETTER
}

/// Four to nine round numbers between two.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough);
    let step = step.unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|number| number as f64 * step).collect()
}

/// A number with no more digits than it needs.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The mean of each stretch of values, at most `most` of them, at its last step.
pub fn smoothed(values: &[f64], most: usize) -> Vec<(f64, f64)> {
    let stretch = values.len().div_ceil(most).max(1);
    let mean = |(index, part): (usize, &[f64])| {
        let step = index * stretch + part.len();
        (step as f64, part.iter().sum::<f64>() / part.len() as f64)
    };
    values.chunks(stretch).enumerate().map(mean).collect()
}
