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

mod args;
mod batch;
mod checks;
mod failure;
mod generate;
mod logits;
pub mod loss;
mod model;
mod pictures;
mod progress;
mod proof;
mod run_folder;
pub mod task;
mod train;

use std::io::Write;

use burn::module::Module;

pub use args::Args;
pub use failure::{Failure, Verdict};
use model::CopyModel;
use proof::Proof;
use run_folder::{RunConfig, RunFolder, SavedRun};
use task::Task;
use train::Trained;

/// Learns and proves. What was found is written to `to`, progress to standard error.
pub fn run(mut args: Args, to: &mut impl Write) -> Result<Verdict, Failure> {
    // Whatever can be wrong is found before the first step.
    let saved = args.prove.as_deref().map(SavedRun::open).transpose()?;
    if let Some(saved) = &saved {
        args.settings = saved.config.settings.clone();
    }
    let settings = &args.settings;
    settings.check()?;
    let out = args.out.as_deref().map(RunFolder::check).transpose()?;
    let mut task = Task::new(settings)?;
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

    let seconds = looks.last().map(|look| look.seconds);
    let proof = Proof::of(&model, &task, &args, seconds, stopped, &device)?;
    proof.write_table(to)?;
    if let Some(folder) = out {
        let config = RunConfig { settings: settings.clone(), model: config };
        folder.write(&config, &model, &looks, |folder| {
            pictures::draw(folder, &model, &task, &looks, settings, &device)
        })?;
    }
    proof.write_json(to)?;
    Ok(proof.verdict)
}
