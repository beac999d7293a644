//! The task: strings to copy, and which of them training never sees.
//!
//! ```text
//! decoder-only   [ source | SEP | source ]
//! cross          [ noise  | SEP | source ]   and the source as memory
//! ```
//!
//! What stands before SEP is the *first half*, what stands behind it the *copied half*. The first
//! half is fresh and random, so that no causal model can predict it. (In the cross architecture it
//! can't be the source: the memory shows the source to a causal model, too.)

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use burn_decoder::causality::LossAlarm;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::args::{Architecture, Settings};
use super::failure::Failure;

/// Number of different bytes: the symbols of a text.
const BYTES: usize = 256;
/// Draws after which there seems to be no string left that is new.
const PATIENCE: usize = 10_000;

/// One string, without its SEP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// What stands before SEP.
    pub first: Vec<usize>,
    /// What stands behind SEP.
    pub source: Vec<usize>,
}

/// Where sources come from.
enum Sources {
    /// Each symbol below this number is equally likely at each place.
    Random(usize),
    /// Pieces of a file. Its last quarter is kept from training.
    Text { training: Vec<u8>, unseen: Vec<u8> },
}

/// The strings of one run.
pub struct Task {
    sources: Sources,
    architecture: Architecture,
    lengths: std::ops::RangeInclusive<usize>,
    /// What noise is made of.
    alphabet: Vec<usize>,
    unseen: Vec<Sample>,
    unseen_sources: HashSet<Vec<usize>>,
    /// Number of unseen sources of each length.
    unseen_lengths: HashMap<usize, usize>,
    noise: Vec<Sample>,
    random: StdRng,
}

impl Task {
    /// Reads the text, if there is one, and draws the strings that training will never see.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let sources = match &settings.text {
            Some(path) => read_text(path, settings)?,
            None => Sources::Random(settings.vocab),
        };
        let alphabet = match &sources {
            Sources::Random(symbols) => (0..*symbols).collect(),
            Sources::Text { training, .. } => {
                let different: HashSet<usize> = training.iter().map(|&byte| byte.into()).collect();
                let mut different: Vec<usize> = different.into_iter().collect();
                different.sort_unstable();
                different
            }
        };
        if alphabet.len() < 2 {
            return Err(Failure::Input(
                "--text: expected at least two different bytes in the file, got one".into(),
            ));
        }
        let mut task = Self {
            sources,
            architecture: settings.architecture,
            lengths: settings.min_source..=settings.max_source,
            alphabet,
            unseen: Vec::new(),
            unseen_sources: HashSet::new(),
            unseen_lengths: HashMap::new(),
            noise: Vec::new(),
            random: StdRng::seed_from_u64(settings.seed),
        };
        task.draw_unseen(settings.unseen)?;
        task.draw_noise(StdRng::seed_from_u64(!settings.seed));
        task.training_batch(settings.batch)?; // fails now, and not after an hour, if all are unseen
        Ok(task)
    }

    /// Number of different tokens: the symbols, SEP and PAD.
    pub fn vocab_size(&self) -> usize {
        self.pad() + 1
    }

    /// The token between the halves.
    pub fn sep(&self) -> usize {
        match self.sources {
            Sources::Random(symbols) => symbols,
            Sources::Text { .. } => BYTES,
        }
    }

    /// The token that fills the short rows of a batch.
    pub fn pad(&self) -> usize {
        self.sep() + 1
    }

    /// ln of the number of symbols: the least loss, per token, of a causal model on noise.
    pub fn floor(&self) -> f64 {
        (self.alphabet.len() as f64).ln()
    }

    /// Whether the first half of the task's own strings is noise. A text is not.
    pub fn is_noise(&self) -> bool {
        matches!(self.sources, Sources::Random(_)) || self.architecture == Architecture::Cross
    }

    /// The strings that training never sees. Their sources are all different.
    pub fn unseen(&self) -> &[Sample] {
        &self.unseen
    }

    /// As many strings whose first half is noise, each symbol of it drawn by itself.
    pub fn noise(&self) -> &[Sample] {
        &self.noise
    }

    /// An alarm for losses of the first half, where that is noise.
    pub fn alarm(&self) -> LossAlarm {
        LossAlarm::uniform(self.alphabet.len()).expect("an alphabet has at least two symbols")
    }

    /// What a causal model may at most know of the first halves of training strings, in nats.
    ///
    /// No training string has an unseen source. So of each length there are fewer than V^length of
    /// them, and a model that knew which ones by heart could be that much surer.
    pub fn known_beforehand(&self, samples: &[Sample]) -> f64 {
        if self.architecture == Architecture::Cross {
            return 0.0; // its first half has nothing to do with the source
        }
        let known = |sample: &Sample| {
            let length = sample.source.len();
            let unseen = self.unseen_lengths.get(&length).map_or(0.0, |&unseen| unseen as f64);
            -(-unseen / (self.alphabet.len() as f64).powi(length as i32)).ln_1p()
        };
        samples.iter().map(known).sum()
    }

    /// Fresh strings, none of them with an unseen source.
    pub fn training_batch(&mut self, strings: usize) -> Result<Vec<Sample>, Failure> {
        let mut batch = Vec::with_capacity(strings);
        for _ in 0..PATIENCE + strings {
            if batch.len() == strings {
                break;
            }
            let source = self.draw_source(false);
            if !self.unseen_sources.contains(&source) {
                batch.push(self.sample(source));
            }
        }
        if batch.len() == strings { Ok(batch) } else { Err(too_few_strings()) }
    }

    /// One of the symbols, at random.
    fn random_symbol(&mut self) -> usize {
        self.alphabet[self.random.random_range(0..self.alphabet.len())]
    }

    fn draw_unseen(&mut self, strings: usize) -> Result<(), Failure> {
        for _ in 0..PATIENCE + 10 * strings {
            if self.unseen.len() == strings {
                break;
            }
            let source = self.draw_source(true);
            if self.unseen_sources.insert(source.clone()) {
                *self.unseen_lengths.entry(source.len()).or_default() += 1;
                let sample = self.sample(source);
                self.unseen.push(sample);
            }
        }
        if self.unseen.len() < strings {
            return Err(too_few_strings());
        }
        Ok(())
    }

    fn draw_noise(&mut self, mut random: StdRng) {
        let mut symbols = |length: usize| -> Vec<usize> {
            let symbol = || self.alphabet[random.random_range(0..self.alphabet.len())];
            std::iter::repeat_with(symbol).take(length).collect()
        };
        let noise = self.unseen.iter().map(|one| match self.architecture {
            Architecture::DecoderOnly => {
                let source = symbols(one.source.len());
                Sample { first: source.clone(), source }
            }
            Architecture::Cross => Sample { first: symbols(one.first.len()), ..one.clone() },
        });
        self.noise = noise.collect();
    }

    fn draw_source(&mut self, unseen: bool) -> Vec<usize> {
        let length = self.random.random_range(self.lengths.clone());
        let text = match &self.sources {
            Sources::Random(_) => return (0..length).map(|_| self.random_symbol()).collect(),
            Sources::Text { unseen: text, .. } if unseen => text,
            Sources::Text { training, .. } => training,
        };
        let start = self.random.random_range(0..=text.len() - length);
        text[start..start + length].iter().map(|&byte| byte.into()).collect()
    }

    fn sample(&mut self, source: Vec<usize>) -> Sample {
        let first = match self.architecture {
            Architecture::DecoderOnly => source.clone(),
            // All of one length, so that the copy begins at one place, as the memory does.
            Architecture::Cross => (0..*self.lengths.end()).map(|_| self.random_symbol()).collect(),
        };
        Sample { first, source }
    }
}

fn read_text(path: &Path, settings: &Settings) -> Result<Sources, Failure> {
    let mut training = fs::read(path).map_err(|error| Failure::file("--text", path, error))?;
    let needed = 4 * (settings.unseen + settings.max_source);
    if training.len() < needed {
        return Err(Failure::Input(format!(
            "--text {}: expected at least {needed} bytes for {} unseen pieces of up to {} bytes, \
             got {}; give a longer file, or lower --unseen",
            path.display(),
            settings.unseen,
            settings.max_source,
            training.len()
        )));
    }
    let unseen = training.split_off(training.len() * 3 / 4);
    Ok(Sources::Text { training, unseen })
}

fn too_few_strings() -> Failure {
    Failure::Input(
        "expected more different strings than --unseen keeps from training, found too few; \
         raise --vocab or --max-source, lower --unseen, or give a text that repeats itself less"
            .into(),
    )
}
