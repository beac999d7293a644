//! Curves as SVG, small enough to be read in one sitting.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 14.0;

/// One line of a chart.
pub struct Curve {
    pub name: String,
    pub colour: &'static str,
    /// Width of the line.
    pub width: f64,
    /// Horizontal and vertical, in the order of the horizontal.
    pub points: Vec<(f64, f64)>,
}

/// Up to so many points are marked: one alone is no line.
const MOST_MARKS: usize = 40;

/// Curves over the steps; numbers that are none are left out.
pub fn chart(title: &str, unit: &str, curves: &[Curve]) -> String {
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
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\"><title>{title}</title>\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"
    );
    let mut put = |text: std::fmt::Arguments| svg.write_fmt(text).expect("a string has room");
    for tick in ticks(low, high) {
        put(format_args!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#e6e6e6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            y(tick),
            y(tick),
            LEFT - 6.0,
            y(tick) + 4.0,
            short(tick)
        ));
    }
    for tick in ticks(0.0, right) {
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(tick),
            HEIGHT - BOTTOM + 18.0,
            short(tick)
        ));
    }
    put(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">step</text>\
         <text x=\"14\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1})\">{unit}\
         </text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        HEIGHT / 2.0,
        HEIGHT / 2.0
    ));
    let mut legend = LEFT;
    for curve in curves {
        let Curve { name, colour, width, .. } = curve;
        let drawn = curve.points.iter().filter(|(_, y)| y.is_finite());
        let path: Vec<String> =
            drawn.map(|&(step, value)| format!("{:.1},{:.1}", x(step), y(value))).collect();
        if path.len() <= MOST_MARKS {
            for (x, y) in path.iter().filter_map(|point| point.split_once(',')) {
                put(format_args!(
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"{colour}\"/>",
                    width + 0.5
                ));
            }
        }
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\
             <rect x=\"{legend:.1}\" y=\"10\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"17\">{name}</text>",
            path.join(" "),
            legend + 20.0
        ));
        legend += 34.0 + 6.6 * name.chars().count() as f64;
    }
    svg += "</svg>";
    svg
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
