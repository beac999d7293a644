//! Pictures of a run, as SVG: what each head looks at with the mask over it, and the two loss
//! curves with their floor.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use burn_decoder::mask::{Grid, LoweredMask, Mask};
use shared::chart::{Curve, curves};

use super::args::{Architecture, Settings};
use super::batch::{self, Rows};
use super::failure::Failure;
use super::model::{self, CopyModel};
use super::task::Task;
use super::train::Look;

type Drawn = Result<(), Box<dyn std::error::Error>>;

const FIRST: &str = "#ca0020";
const COPIED: &str = "#0571b0";

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
    draw_attention(folder, "attention", &output.self_weights, &mask, &labels, &labels)
        .map_err(failed)?;
    if settings.architecture == Architecture::Cross {
        let keys: Vec<String> =
            sample.source.iter().map(|&token| label(token, task, settings)).collect();
        let mask = Mask::all_visible().lower(&Grid::top_left(1, length, keys.len()))?;
        draw_attention(folder, "cross_attention", &output.cross_weights, &mask, &labels, &keys)
            .map_err(failed)?;
    }
    if !looks.is_empty() {
        let floor = task.is_noise().then(|| task.floor());
        draw_curves(&folder.join("loss.svg"), looks, floor).map_err(failed)?;
    }
    Ok(())
}

/// A picture for each layer, in it a panel for each head: the weights over the mask.
fn draw_attention(
    folder: &Path,
    name: &str,
    layers: &[Tensor<4>],
    mask: &LoweredMask,
    queries: &[String],
    keys: &[String],
) -> Drawn {
    for (layer, weights) in layers.iter().enumerate() {
        let drawing = mask.draw().with_title(format!("{name}, layer {}", layer + 1));
        let drawing = drawing.with_query_labels(queries.to_vec()).with_key_labels(keys.to_vec());
        let svg = drawing.with_attention_weights(weights).to_svg();
        fs::write(folder.join(format!("{name}_{}.svg", layer + 1)), svg)?;
    }
    Ok(())
}

/// Both losses over the steps.
fn draw_curves(path: &Path, looks: &[Look], floor: Option<f64>) -> Drawn {
    let last = looks.last().map_or(1, |look| look.step) as f64;
    let curve = |name: &str, colour, value: fn(&Look) -> f64| {
        let points = looks.iter().map(|look| (look.step as f64, value(look))).collect();
        Curve { name: name.into(), colour, width: 2.0, points }
    };
    let mut lines = vec![
        curve("first half", FIRST, |look| look.first),
        curve("copied half", COPIED, |look| look.copied),
    ];
    if let Some(floor) = floor {
        let name = format!("floor ln V = {floor:.3}");
        let points = vec![(0.0, floor), (last, floor)];
        lines.push(Curve { name, colour: "#000000", width: 2.0, points });
    }
    Ok(fs::write(path, curves("loss of each half", "step", "nats per token", &lines))?)
}

/// A token as short text: a bar for SEP, a byte's character, or the symbol's number.
fn label(token: usize, task: &Task, settings: &Settings) -> String {
    match u8::try_from(token) {
        _ if token == task.sep() => "|".into(),
        Ok(byte) if settings.text.is_some() => byte.escape_ascii().to_string(),
        _ => token.to_string(),
    }
}
