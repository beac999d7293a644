//! The copy task: a decoder learns to copy, and proves that it never saw the future.
//!
//! ```text
//! cargo run --release -p copy                    # learn, prove, exit 0
//! cargo run --release -p copy -- --mask none     # the control: it leaks and is caught
//! ```
//!
//! In reading order: [`args`], what can be chosen; [`task`] and [`batch`], the
//! strings; [`model`] and [`loss`]; [`train`]; [`generate`] and [`checks`], what is tested;
//! [`proof`], what it amounts to; [`run_folder`] and [`pictures`], what is kept.

pub mod args;
pub mod batch;
pub mod checks;
pub mod failure;
pub mod generate;
pub mod logits;
pub mod loss;
pub mod model;
pub mod pictures;
pub mod progress;
pub mod proof;
pub mod run_folder;
pub mod task;
pub mod train;

use std::io::Write;
use std::path::Path;

use burn::module::Module;
use shared::say;

pub use args::Args;
pub use failure::{Failure, Verdict};
use model::CopyModel;
use proof::Proof;
use run_folder::{Run, RunConfig, RunFolder, SavedRun};
use task::Task;
use train::Trained;

/// Learns, keeps what was learned, and proves. What was found is written to `to`, progress to
/// standard error.
pub fn run(mut args: Args, to: &mut impl Write) -> Result<Verdict, Failure> {
    // Whatever can be wrong is found before the first step.
    let saved = args.prove.as_deref().map(SavedRun::open).transpose()?;
    if let Some(saved) = &saved {
        args.settings = saved.config.settings.clone();
    }
    args.settings.check()?;
    if let Some(text) = &mut args.settings.text {
        // As a kept run may be proved from another folder.
        *text =
            std::path::absolute(&*text).map_err(|error| Failure::file("--text", text, error))?;
    }
    let settings = &args.settings;
    let out = args.out.as_deref().map(RunFolder::check).transpose()?;
    let mut task = Task::new(settings)?;
    if let Some(saved) = &saved {
        saved.check_text(&task)?;
    }
    let config = model::config(settings, task.vocab_size());
    let device = args.backend.device("copy").map_err(Failure::Input)?;
    device.seed(settings.seed);

    let model = CopyModel::new(&config, settings.architecture, &device)?;
    let Trained { model, looks, stopped } = match saved {
        Some(saved) => saved.load(model, &config)?.into(),
        None => {
            let autodiff = device.clone().autodiff();
            train::train(model.train(), settings, &mut task, &autodiff)?
        }
    };

    // Kept first: whatever happens to the proof or to standard output, the model is there.
    let config =
        RunConfig { settings: settings.clone(), model: config, text: task.text_checksum() };
    let kept = out.map(|folder| {
        let pictures = |to: &Path| pictures::draw(to, &model, &task, &looks, settings, &device);
        folder.write(&Run {
            config: &config,
            model: &model,
            looks: &looks,
            pictures: &pictures,
        })?;
        say(format_args!("the run is kept in {}", folder.path().display()));
        Ok(())
    });

    let seconds = looks.last().map(|look| look.seconds);
    let proof = Proof::of(&model, &task, &args, seconds, stopped, &device);
    let written = proof.and_then(|proof| {
        proof.write_table(to)?;
        proof.write_json(to)?;
        Ok(proof.verdict)
    });
    match (kept, written) {
        (Some(Err(not_kept)), Err(other)) => {
            say(format_args!("error: {other}"));
            Err(not_kept)
        }
        (Some(Err(not_kept)), Ok(_)) => Err(not_kept),
        (_, written) => written,
    }
}
