//! Pictures of a run, as SVG: what each head looks at with the mask over it, and the two loss
//! curves with their floor.

use std::fs;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::args::{Architecture, Settings};
use super::batch::{self, Rows};
use super::failure::Failure;
use super::model::{self, CopyModel};
use super::task::Task;
use super::train::Look;

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Full weight.
const LOOKS_AT: RGBColor = RGBColor(8, 48, 107);
/// Lies over what is hidden: where a weight shines through, the mask has failed.
const HIDDEN: RGBAColor = RGBAColor(200, 60, 40, 0.25);
const FIRST: RGBColor = RGBColor(202, 0, 32);
const COPIED: RGBColor = RGBColor(5, 113, 176);
/// Size of the labels, and about how wide one character of them is, in pixels.
const FONT: u32 = 9;
const CHARACTER: u32 = 6;
/// Room for the title of a panel, and around it.
const TITLE: u32 = 24;
const MARGIN: u32 = 6;

/// Draws all pictures of a run into the folder.
pub fn draw(
    folder: &Path,
    model: &CopyModel,
    task: &Task,
    looks: &[Look],
    settings: &Settings,
    device: &Device,
) -> Result<(), Failure> {
    let failed = |error: Box<dyn std::error::Error>| Failure::Output(format!("pictures: {error}"));

    // The longest of the first unseen strings.
    let Some(sample) = task.unseen().iter().take(50).max_by_key(|one| one.source.len()) else {
        return Ok(());
    };
    let string = batch::input(sample, task);
    let labels: Vec<String> = string.iter().map(|&token| label(token, task, settings)).collect();
    let length = string.len();
    let input = Rows::new(&[string], task.pad(), device);
    let memory = Rows::new(std::slice::from_ref(&sample.source), task.pad(), device);
    let embedded = model.embed(input.tokens)?;
    let output = model.forward(embedded, &input.lengths, &memory, true)?;

    let mask = model::mask(settings.mask).lower(&Grid::square(1, length))?;
    let drawing = mask.draw().with_title("the mask").with_labels(labels.clone());
    fs::write(folder.join("mask.svg"), drawing.to_svg()).map_err(|error| failed(error.into()))?;
    let path = folder.join("attention.svg");
    draw_attention(&path, &output.self_weights, &mask, &labels, &labels).map_err(failed)?;
    if settings.architecture == Architecture::Cross {
        let keys: Vec<String> =
            sample.source.iter().map(|&token| label(token, task, settings)).collect();
        let mask = Mask::all_visible().lower(&Grid::top_left(1, length, keys.len()))?;
        let path = folder.join("cross_attention.svg");
        draw_attention(&path, &output.cross_weights, &mask, &labels, &keys).map_err(failed)?;
    }
    if !looks.is_empty() {
        let floor = task.is_noise().then(|| task.floor());
        draw_curves(&folder.join("loss.svg"), looks, floor).map_err(failed)?;
    }
    Ok(())
}

/// A row of panels for each layer, in it a panel for each head.
fn draw_attention(
    path: &Path,
    layers: &[Tensor<4>],
    mask: &LoweredMask,
    queries: &[String],
    keys: &[String],
) -> Drawn {
    let heads = layers.first().map_or(0, |weights| weights.dims()[1]);
    let cell = cell(queries.iter().chain(keys));
    // A cell on the left for the labels of the queries, one below for those of the keys.
    let width = cell * (keys.len() as u32 + 1) + 2 * MARGIN;
    let height = cell * (queries.len() as u32 + 1) + 2 * MARGIN + TITLE;
    let size = (width * heads as u32, height * layers.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((layers.len(), heads));
    for (layer, weights) in layers.iter().enumerate() {
        let weights: Vec<f64> = weights.to_data().iter::<f64>().collect(); // [1, heads, queries, keys]
        let heads_of_layer = weights.chunks(queries.len() * keys.len());
        for (head, (weights, panel)) in heads_of_layer.zip(&panels[layer * heads..]).enumerate() {
            let title = format!("layer {}, head {}", layer + 1, head + 1);
            draw_panel(panel, &title, weights, mask, queries, keys)?;
        }
    }
    Ok(area.present()?)
}

/// The width of a cell in which the longest of the labels has room.
fn cell<'a>(labels: impl Iterator<Item = &'a String>) -> u32 {
    let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
    (CHARACTER * longest as u32 + 4).max(14)
}

/// One grid of queries, from above, and keys, from the left: weights and the mask over them.
fn draw_panel(
    area: &Drawing,
    title: &str,
    weights: &[f64],
    mask: &LoweredMask,
    queries: &[String],
    keys: &[String],
) -> Drawn {
    let (rows, columns) = (queries.len(), keys.len());
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(MARGIN)
        .build_cartesian_2d(-1.0..columns as f64, rows as f64 + 1.0..0.0)?;
    let cells = |row: usize, keys: Range<usize>, style: ShapeStyle| {
        let corner = (keys.start as f64, row as f64);
        Rectangle::new([corner, (keys.end as f64, row as f64 + 1.0)], style)
    };
    for (row, weights) in weights.chunks(columns).enumerate() {
        let seen = weights.iter().enumerate().filter(|&(_, &weight)| weight >= 0.005);
        chart.draw_series(
            seen.map(|(key, &weight)| cells(row, key..key + 1, LOOKS_AT.mix(weight).filled())),
        )?;
    }
    for row in 0..rows {
        let hidden = hidden_runs(mask, row, columns).into_iter();
        chart.draw_series(hidden.map(|keys| cells(row, keys, HIDDEN.filled())))?;
    }
    let style =
        ("sans-serif", FONT).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Center));
    let text = |label: &String, at: (f64, f64)| Text::new(label.clone(), at, style.clone());
    let left = queries.iter().enumerate().map(|(at, label)| text(label, (-0.5, at as f64 + 0.5)));
    chart.draw_series(left)?;
    let below = rows as f64 + 0.5;
    chart.draw_series(
        keys.iter().enumerate().map(|(at, label)| text(label, (at as f64 + 0.5, below))),
    )?;
    let frame = Rectangle::new([(0.0, 0.0), (columns as f64, rows as f64)], BLACK);
    chart.draw_series([frame])?;
    Ok(())
}

/// The runs of hidden keys of one query.
fn hidden_runs(mask: &LoweredMask, query: usize, keys: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for key in (0..keys).filter(|&key| !mask.is_visible(0, 0, query, key)) {
        match runs.last_mut() {
            Some(run) if run.end == key => run.end += 1,
            _ => runs.push(key..key + 1),
        }
    }
    runs
}

/// Both losses over the steps.
fn draw_curves(path: &Path, looks: &[Look], floor: Option<f64>) -> Drawn {
    let area = SVGBackend::new(path, (800, 450)).into_drawing_area();
    area.fill(&WHITE)?;
    let last = looks.last().map_or(1, |look| look.step) as f64;
    let highest = looks.iter().map(|look| look.first.max(look.copied)).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("loss of each half", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..last, 0.0..1.1 * highest)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("nats per token")
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .light_line_style(WHITE)
        .draw()?;
    let mut line = |name: String, color: RGBColor, points: Vec<(f64, f64)>| -> Drawn {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        Ok(())
    };
    let curve = |value: fn(&Look) -> f64| {
        looks.iter().map(|look| (look.step as f64, value(look))).collect::<Vec<_>>()
    };
    line("first half".into(), FIRST, curve(|look| look.first))?;
    line("copied half".into(), COPIED, curve(|look| look.copied))?;
    if let Some(floor) = floor {
        let name = format!("floor ln V = {floor:.3}");
        line(name, BLACK, vec![(0.0, floor), (last, floor)])?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(area.present()?)
}

/// A number beside an axis, with no more digits than it needs: 200, 3.5.
fn tick(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A token as short text: a bar for SEP, a byte's character, or the symbol's number.
fn label(token: usize, task: &Task, settings: &Settings) -> String {
    match u8::try_from(token) {
        _ if token == task.sep() => "|".into(),
        Ok(byte) if settings.text.is_some() => byte.escape_ascii().to_string(),
        _ => token.to_string(),
    }
}
