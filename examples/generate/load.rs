//! Loading with a progress bar.

use std::time::Instant;

use burn::tensor::Device;
use burn_decoder::import::LoadOptions;
use burn_decoder::weights::num_numbers;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::args::Args;
use crate::failure::Failure;
use crate::output::tell;
use crate::source::{Loaded, Source};

/// The model of the folder or file.
pub fn load(source: Source, args: &Args, device: &Device) -> Result<Loaded, Failure> {
    let style = ProgressStyle::with_template("loading {bar:40} {bytes} of {total_bytes}");
    let bar = ProgressBar::new(0).with_style(style.expect("the template is one of indicatif's"));
    let shown = bar.clone();
    let options =
        LoadOptions::new().with_precision(args.precision()).with_weights_in_memory(args.in_memory);
    let options = options.with_progress(move |at| {
        shown.set_length(at.of_bytes);
        shown.set_position(at.bytes);
    });
    let begin = Instant::now();
    let loaded = source.load(device, options);
    bar.finish_and_clear();
    let loaded = loaded?;
    tell(format_args!(
        "{}: {} parameters, {} read in {:.1} s",
        args.model.display(),
        num_numbers(&loaded.model),
        HumanBytes(bar.position()),
        begin.elapsed().as_secs_f64()
    ));
    Ok(loaded)
}
