//! Loading with a progress bar.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use burn_decoder::import::LoadOptions;
use burn_decoder::import::hugging_face::{self, Loaded};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::Failure;
use super::args::Args;

/// The model of the folder.
pub fn load(args: &Args, device: &Device) -> Result<Loaded, Failure> {
    let style = "loading {bar:40} {bytes} of {total_bytes}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    let shown = bar.clone();
    let options = LoadOptions::new().with_precision(args.precision()).with_progress(move |at| {
        shown.set_length(at.of_bytes);
        shown.set_position(at.bytes);
    });
    let begin = Instant::now();
    let loaded = hugging_face::load(&args.model, device, options);
    bar.finish_and_clear();
    let loaded = loaded?;
    eprintln!(
        "{}: {} parameters, {} read in {:.1} s",
        args.model.display(),
        loaded.model.num_params(),
        HumanBytes(bar.position()),
        begin.elapsed().as_secs_f64()
    );
    Ok(loaded)
}
