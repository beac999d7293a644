//! A language model learns from text files.
//!
//! ```text
//! cargo run --release -p train -- book.txt --out run                     # learn
//! cargo run --release -p generate -- --model run --prompt "Once"         # speak
//! cargo run --release -p train -- book.txt --out run --mask none         # the control: exit code 3
//! cargo run --release -p train -- book.txt --out tuned --from FOLDER --lora 8 --export merged
//! ```
//!
//! In reading order: [`args`], what can be chosen; [`text`], [`tokenizer`] and [`rows`], what is read;
//! [`start`] and [`model`]; [`training`], the training itself, with [`optimizer`], [`epochs`],
//! [`checkpoints`] and [`resumed`]; [`samples`] and [`lines`], what is shown meanwhile; [`history`],
//! [`page`], what is shown at the end; [`run_folder`], what is kept.

pub mod args;
pub mod checkpoints;
pub mod epochs;
pub mod failure;
pub mod history;
pub mod lines;
pub mod model;
pub mod optimizer;
pub mod page;
pub mod resumed;
pub mod rows;
pub mod run_folder;
pub mod samples;
pub mod start;
pub mod text;
pub mod tokenizer;
pub mod training;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use burn::module::{Module, ParamGroup};
use burn::tensor::{Device, Int, Tensor};
use burn_decoder::causality::{CausalityCheck, Report};
use burn_decoder::decoder::{Batch, LanguageModel};
use burn_decoder::generation::Threads;
use shared::{Backend, say};

pub use args::Args;
use args::Settings;
use checkpoints::Checkpoints;
pub use failure::{Failure, Verdict};
use history::History;
use model::NextToken;
use page::Page;
use run_folder::{Outcome, RunFolder};
use start::Start;
use text::{Stream, Texts};
use training::{CHECKED, Ended, Training};

/// The adapters of a run with --lora.
pub const ADAPTERS: &str = "adapters.bpk";

/// Learns, keeps what was learned, and tells what it amounts to on `to`; progress goes to the terminal
/// or, in lines, to standard error.
pub fn run(args: &Args, to: &mut impl Write) -> Result<Verdict, Failure> {
    // Whatever can be wrong is found before the first step.
    let settings = &args.settings;
    settings.check()?;
    let texts = Texts::read(&args.text)?;
    let devices: Vec<Device> = settings
        .device_names()
        .into_iter()
        .map(|backend| backend.device("train"))
        .collect::<Result<_, _>>()
        .map_err(Failure::Input)?;
    let folder = RunFolder::open(args, &texts)?;
    let ready = prepare(folder.path(), settings, &texts, &devices[0]);
    let (folder, (start, training, validation)) = folder.unless_refused(ready)?;
    let checkpoints = Checkpoints::open(&folder.checkpoints(), settings.lora.is_some())?;
    let new = || {
        NextToken::new(start.trainee(settings), settings.passes_in_a_step(), settings.clip)
            .with_threads(threads(settings))
    };

    let outcome = match folder.outcome()? {
        Some(outcome) => outcome,
        None => {
            let ended = Training {
                settings,
                folder: &folder,
                checkpoints: &checkpoints,
                tokenizer: Arc::new(start.tokenizer.clone()),
                training: Arc::new(training),
                validation: Arc::new(validation),
                devices: devices.clone(),
                plain: args.plain,
            }
            .run(new())?;
            let history = History::read(&folder.logs(), settings);
            conclude(args, &folder, &start, &checkpoints, ended, &history, new(), &devices[0])?
        }
    };
    if let (Some(export), Verdict::Trained) = (&args.export, outcome.verdict) {
        let epoch = outcome.step / settings.validate_every;
        let model = learned(new(), &checkpoints, epoch)?;
        start.checkpoint.save(&model.materialize(), export)?;
        start::copy_companions(folder.path(), export)?;
        say(format_args!("exported to {}", export.display()));
    }
    tell(to, folder.path(), &outcome)?;
    Ok(outcome.verdict)
}

/// What a training starts from, and the rows that it learns from and is validated on.
fn prepare(
    folder: &Path,
    settings: &Settings,
    texts: &Texts,
    device: &Device,
) -> Result<(Start, Stream, Stream), Failure> {
    let start = Start::new(folder, settings, device)?;
    let stream = texts.encode(&start.tokenizer)?;
    check_fits(&start.model, &stream.tokens, settings.context, device)?;
    let (training, validation) = stream.split(settings.valid_share, settings.context)?;
    Ok((start, training, validation))
}

/// A step on a CPU is some hundred operations of microseconds, for which a thread that sleeps wakes up
/// too late. What is done on a GPU stays on the thread that does the rest.
fn threads(settings: &Settings) -> Threads {
    match settings.device_names()[..] {
        [Backend::Flex | Backend::Ndarray] => Threads::Spinning(7),
        _ => Threads::Global,
    }
}

/// The model of an epoch, for everything but training.
fn learned(
    model: NextToken,
    checkpoints: &Checkpoints,
    epoch: usize,
) -> Result<LanguageModel, Failure> {
    let model = model.try_load_record(checkpoints.model(epoch)?);
    let model = model.map_err(|error| Failure::Input(format!("checkpoint {epoch}: {error}")))?;
    Ok(model.language.valid())
}

/// Keeps the best model, looks at it once more, and draws the page.
#[allow(clippy::too_many_arguments)]
fn conclude(
    args: &Args,
    folder: &RunFolder,
    start: &Start,
    checkpoints: &Checkpoints,
    ended: Ended,
    history: &History,
    model: NextToken,
    device: &Device,
) -> Result<Outcome, Failure> {
    let settings = &args.settings;
    let best = match &ended {
        Ended::Done => history.best(),
        Ended::Leak(..) => history.validations.last(), // The last that was measured to its end.
    };
    // JSON has no other numbers.
    let number = |value: fn(&history::Validation) -> f64| {
        best.map(value).filter(|value| value.is_finite()).unwrap_or(f64::MAX)
    };
    let (stopped, report) = match ended {
        Ended::Leak(why, report) => (Some(why), report),
        Ended::Done => {
            let epoch = best.map_or(0, |best| best.epoch);
            let model = learned(model, checkpoints, epoch)?;
            if settings.lora.is_some() {
                let adapters = ParamGroup::from_regex(r"\.lora\.(a|b)$").expect("it is a regex");
                let record = model.clone().into_record_group(adapters);
                let bytes = record.into_bytes().map_err(|error| Failure::Run(error.to_string()))?;
                folder.put(ADAPTERS, &bytes)?;
            } else {
                start.checkpoint.save(&model, folder.path())?;
            }
            (None, Some(check(&model.materialize(), settings.context, device)?))
        }
    };
    let leaks = stopped.is_some() || report.iter().any(|report| report.leaks().next().is_some());
    let outcome = Outcome {
        verdict: if leaks { Verdict::Leak } else { Verdict::Trained },
        stopped,
        step: best.map_or(0, |best| best.step),
        validation_loss: number(|best| best.loss),
        bits_per_byte: number(|best| best.bits_per_byte),
        training_loss: number(|best| best.training_loss),
    };
    let page = Page { args, folder: folder.path(), outcome: &outcome, history, report: &report };
    folder.put("page.html", page.to_html().as_bytes())?;
    folder.finish(&outcome)?;
    Ok(outcome)
}

/// Who sees whom in the model.
fn check(model: &LanguageModel, context: usize, device: &Device) -> Result<Report, Failure> {
    let forward = |tokens: Tensor<2, Int>| {
        model.forward(tokens, Batch::new()).expect("plain rows fit the model").logits
    };
    let length = context.min(CHECKED);
    Ok(CausalityCheck::tokens(model.vocab_size(), length, device, forward).run()?)
}

/// Finds out, by one row, whether the model has room for the rows and a vector for each token.
fn check_fits(
    model: &LanguageModel,
    tokens: &[u32],
    context: usize,
    device: &Device,
) -> Result<(), Failure> {
    let vocabulary = model.vocab_size();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
        return Err(Failure::Input(format!(
            "tokenizer.json: expected tokens of the model's vocabulary, 0 to {}, got {token}",
            vocabulary - 1
        )));
    }
    let row = Tensor::<2, Int>::zeros([1, context], device);
    match model.forward(row, Batch::new()) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Input(format!("--context: {error}"))),
    }
}

/// What the run amounts to, in words and as a line of JSON.
fn tell(to: &mut impl Write, folder: &Path, outcome: &Outcome) -> Result<(), Failure> {
    let run = folder.display();
    match (&outcome.verdict, &outcome.stopped) {
        (Verdict::Trained, _) => writeln!(
            to,
            "validation loss {:.4} nats a token, {:.4} bits a byte, at step {}\nthe run is kept in \
             {run}, with a page: {run}/page.html",
            outcome.validation_loss, outcome.bits_per_byte, outcome.step
        )?,
        (Verdict::Leak, Some(why)) => {
            writeln!(to, "LEAK CAUGHT: the training was stopped: {why}")?;
        }
        (Verdict::Leak, None) => {
            writeln!(to, "LEAK CAUGHT: the trained model sees the future; {run}/page.html")?;
        }
    }
    serde_json::to_writer(&mut *to, outcome).map_err(std::io::Error::from)?;
    writeln!(to)?;
    Ok(to.flush()?)
}
