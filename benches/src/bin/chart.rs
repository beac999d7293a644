//! Draws benches/results.csv as the bar chart of BENCHMARKS.md.
//!
//! ```text
//! cargo run --release -p benches --bin chart
//! ```
//!
//! A line of the file is `what,against,from,to`: how many times as fast as `against` the crate is, at
//! least and at most of several runs. Lines that start with # say something about the file.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Heights and widths in pixels.
const ROW: u32 = 22;
const TOP: u32 = 44;
const BOTTOM: u32 = 30;
const LABELS: u32 = 400;
const CHART: u32 = 380;
const RIGHT: u32 = 80;

/// Who the crate is compared with, and in which colour; the darker part of a bar lies between the
/// least and the most.
const COLOURS: [(&str, RGBColor); 4] = [
    ("PyTorch", RGBColor(202, 80, 32)),
    ("transformers", RGBColor(150, 60, 110)),
    ("Burn", RGBColor(5, 113, 176)),
    ("itself", RGBColor(90, 130, 60)),
];

/// One line of the file.
struct Measured {
    what: String,
    against: String,
    from: f64,
    to: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = read(&fs::read_to_string(folder.join("results.csv"))?)?;
    let svg = draw(&results)?;
    Ok(fs::write(folder.join("../docs/benchmarks.svg"), svg)?)
}

fn read(text: &str) -> Result<Vec<Measured>, Box<dyn Error>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).skip(1);
    lines
        .map(|line| {
            let wrong = || format!("results.csv: expected what,against,from,to, got {line}");
            let fields: Vec<&str> = line.split(',').collect();
            let [what, against, from, to] = fields[..] else { return Err(wrong().into()) };
            let [from, to] = [from, to].map(str::parse::<f64>);
            let (from, to) = (from.map_err(|_| wrong())?, to.map_err(|_| wrong())?);
            if !(0.0 < from && from <= to && to.is_finite()) {
                return Err(wrong().into());
            }
            if !COLOURS.iter().any(|(name, _)| against.starts_with(name)) {
                return Err(wrong().into());
            }
            Ok(Measured { what: what.into(), against: against.into(), from, to })
        })
        .collect()
}

fn draw(results: &[Measured]) -> Result<String, Box<dyn Error>> {
    let size = (LABELS + CHART + RIGHT, TOP + ROW * results.len() as u32 + BOTTOM);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        // Powers of two around everything that was measured.
        let lowest = results.iter().map(|one| one.from).fold(1.0, f64::min).log2().floor();
        let highest = results.iter().map(|one| one.to).fold(2.0, f64::max).log2().ceil();
        let at = |value: f64| {
            let share = (value.log2() - lowest) / (highest - lowest);
            LABELS as i32 + (share * f64::from(CHART)).round() as i32
        };
        let bottom = (TOP + ROW * results.len() as u32) as i32;
        for power in lowest as i32..=highest as i32 {
            let x = at(f64::from(power).exp2());
            let line = if power == 0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) };
            area.draw(&PathElement::new([(x, TOP as i32 - 4), (x, bottom)], line))?;
            write(&area, &number(f64::from(power).exp2()), (x, bottom + 12), HPos::Center)?;
        }
        write(&area, "times as fast as", (LABELS as i32, 14), HPos::Left)?;
        let mut x = LABELS as i32 + 100;
        for (name, colour) in COLOURS {
            area.draw(&Rectangle::new([(x, 9), (x + 10, 19)], colour.filled()))?;
            write(&area, name, (x + 14, 14), HPos::Left)?;
            x += 28 + 7 * name.len() as i32;
        }
        for (row, one) in results.iter().enumerate() {
            let middle = (TOP + ROW * row as u32 + ROW / 2) as i32;
            let colour = COLOURS.iter().find(|(name, _)| one.against.starts_with(name));
            let colour = colour.expect("read allows no other").1;
            let (from, to) = (at(one.from), at(one.to));
            let bar = [(from.min(at(1.0)), middle - 6), (from.max(at(1.0)), middle + 6)];
            area.draw(&Rectangle::new(bar, colour.mix(0.7).filled()))?;
            area.draw(&Rectangle::new([(from, middle - 6), (to, middle + 6)], colour.filled()))?;
            let label = format!("{}, against {}", one.what, one.against);
            write(&area, &label, (LABELS as i32 - 8, middle), HPos::Right)?;
            write(&area, &range(one), (to.max(at(1.0)) + 6, middle), HPos::Left)?;
        }
        area.present()?;
    }
    Ok(svg)
}

fn write(
    area: &DrawingArea<SVGBackend, Shift>,
    text: &str,
    at: (i32, i32),
    side: HPos,
) -> Result<(), Box<dyn Error>> {
    let style = ("sans-serif", 12).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text, at, style))?)
}

fn range(one: &Measured) -> String {
    if one.from == one.to {
        return number(one.from);
    }
    format!("{} to {}", number(one.from), number(one.to))
}

/// A number with no more digits than it needs.
fn number(value: f64) -> String {
    let text = match value {
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').into()
}
