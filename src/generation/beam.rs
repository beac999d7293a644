//! Beam search: the continuation that is likeliest as a whole.
//!
//! The likeliest next token may lead where nothing likely follows. Beam search goes on with the
//! `width` best beginnings at once (Graves 2012; Sutskever et al. 2014, section 3.2). Each step
//! takes the `width` likeliest extensions of all live beginnings by a token; those that end with a
//! stop token are finished, the others live on. A finished sequence of `n` new tokens scores
//!
//! ```text
//! log p(tokens) / n^length_penalty
//! ```
//!
//! so that a penalty of 0 compares plain probabilities, which favours short sequences, and 1
//! compares means. The search ends when `width` sequences are finished and no live one can come to
//! score more. Width 1 is greedy; a width that no step reaches is a full search.

use burn::config::Config;

use super::sampling::log_sum_exp;
use super::{Driver, Scores, check_prompts};
use crate::Error;
use crate::Result;
use crate::cache::CacheConfig;
use crate::decoder::{LanguageModel, LanguageModelInput};
use crate::error::check_nonzero;

/// Configuration of a [`beam_search`].
#[derive(Config, Debug)]
pub struct BeamConfig {
    /// Number of beginnings that are followed, and of sequences that are returned.
    pub width: usize,
    /// The most tokens that are written behind each prompt.
    pub max_new_tokens: usize,
    /// How much length counts. See the module.
    #[config(default = 1.0)]
    pub length_penalty: f64,
    /// A sequence is finished after any of these.
    #[config(default = "Vec::new()")]
    pub stop_tokens: Vec<u32>,
    /// The cache, whose room is made to fit the prompts and `max_new_tokens` if this is not given.
    pub cache: Option<CacheConfig>,
}

/// A sequence that a [`beam_search`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The new tokens, the stop token included if there is one.
    pub tokens: Vec<u32>,
    /// The logarithm of its probability.
    pub log_probability: f64,
    /// What it is compared by.
    pub score: f64,
}

/// Searches the continuations of each prompt that score best: at most `width` of them, best first.
///
/// `input` gives a memory for the cross-attention, or a kernel by name.
///
/// # Errors
///
/// [`Error::Config`](crate::Error::Config) for a setting that makes no sense,
/// [`Error::Input`](crate::Error::Input) if there is no prompt or an empty one,
/// [`Error::Token`](crate::Error::Token) for a token outside the vocabulary, and those of the
/// model.
pub fn beam_search(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    input: impl Into<LanguageModelInput>,
    config: &BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>> {
    config.check()?;
    check_prompts(prompts, model.vocab_size())?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let cache = config.cache.clone();
    let cache =
        cache.unwrap_or_else(|| CacheConfig::fixed(longest + config.max_new_tokens)).init()?;
    let mut driver = Driver::new(model, cache, input.into());

    let mut searches: Vec<_> = prompts.iter().map(|prompt| Search::new(prompt.len())).collect();
    let mut scores = driver.prefill(prompts)?;
    loop {
        // The rows of the cache are the live beginnings of all searches, one search after another.
        let (mut row, mut parents) = (0, Vec::new());
        for search in &mut searches {
            let rows = search.live.len();
            let chosen = search.extend(&scores, row, config)?;
            parents.extend(chosen.into_iter().map(|parent| row + parent));
            row += rows;
        }
        if parents.is_empty() {
            return Ok(searches.into_iter().map(|search| search.best(config.width)).collect());
        }
        driver.cache.select_rows(&parents)?;
        let last = searches.iter().flat_map(|search| &search.live).map(Beginning::last);
        scores = driver.step(last.collect::<Vec<_>>().into_iter())?;
    }
}

impl BeamConfig {
    fn check(&self) -> Result<()> {
        check_nonzero("BeamConfig::width", self.width)?;
        check_nonzero("BeamConfig::max_new_tokens", self.max_new_tokens)?;
        if !self.length_penalty.is_finite() {
            return Err(Error::Config {
                field: "BeamConfig::length_penalty",
                expected: "a finite number".into(),
                got: self.length_penalty.to_string(),
            });
        }
        Ok(())
    }

    fn score(&self, log_probability: f64, tokens: usize) -> f64 {
        log_probability / (tokens as f64).powf(self.length_penalty)
    }
}

/// The search behind one prompt.
struct Search {
    prompt: usize,
    live: Vec<Beginning>,
    finished: Vec<Hypothesis>,
}

/// A sequence that may go on.
#[derive(Clone, Default)]
struct Beginning {
    tokens: Vec<u32>,
    log_probability: f64,
}

/// A beginning and one more token.
struct Extension {
    parent: usize,
    token: u32,
    log_probability: f64,
}

impl Beginning {
    fn last(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }
}

impl Search {
    fn new(prompt: usize) -> Self {
        Self { prompt, live: vec![Beginning::default()], finished: Vec::new() }
    }

    /// Takes the best extensions and returns the parents of those that live on. The scores of the
    /// search's live beginnings start at `row`.
    fn extend(&mut self, scores: &Scores, row: usize, config: &BeamConfig) -> Result<Vec<usize>> {
        let mut parents = Vec::new();
        let mut live = Vec::new();
        for extension in self.extensions(scores, row, config.width)? {
            let Extension { parent, token, log_probability } = extension;
            let mut tokens = self.live[parent].tokens.clone();
            tokens.push(token);
            if config.stop_tokens.contains(&token) || tokens.len() == config.max_new_tokens {
                let score = config.score(log_probability, tokens.len());
                self.finished.push(Hypothesis { tokens, log_probability, score });
            } else {
                parents.push(parent);
                live.push(Beginning { tokens, log_probability });
            }
        }
        self.live = live;
        if self.is_decided(config) {
            self.live.clear();
            parents.clear();
        }
        Ok(parents)
    }

    /// The `width` likeliest extensions of all live beginnings by one token, likeliest first.
    fn extensions(&self, scores: &Scores, row: usize, width: usize) -> Result<Vec<Extension>> {
        let mut all = Vec::new();
        for (parent, beginning) in self.live.iter().enumerate() {
            let logits = scores.row(row + parent, self.prompt + beginning.tokens.len())?;
            let rest = beginning.log_probability - log_sum_exp(logits);
            let mut tokens: Vec<usize> = (0..logits.len()).collect();
            if width < tokens.len() {
                let order =
                    |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
                tokens.select_nth_unstable_by(width, order);
                tokens.truncate(width);
            }
            all.extend(tokens.into_iter().map(|token| Extension {
                parent,
                token: token as u32,
                log_probability: rest + f64::from(logits[token]),
            }));
        }
        all.sort_by(|a, b| {
            let likelier = b.log_probability.total_cmp(&a.log_probability);
            likelier.then(a.parent.cmp(&b.parent)).then(a.token.cmp(&b.token))
        });
        all.truncate(width);
        Ok(all)
    }

    /// Whether enough are finished, and nothing that lives can come to score more.
    fn is_decided(&mut self, config: &BeamConfig) -> bool {
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(config.width);
        let [.., worst] = &self.finished[..] else { return false };
        // A sequence only gets less likely, so the most it can score is what it has, at one end or
        // the other of the lengths that it may come to.
        let most = |live: &Beginning| {
            let next = config.score(live.log_probability, live.tokens.len() + 1);
            next.max(config.score(live.log_probability, config.max_new_tokens))
        };
        self.finished.len() == config.width
            && self.live.iter().all(|live| most(live) <= worst.score)
    }

    fn best(self, width: usize) -> Vec<Hypothesis> {
        let mut finished = self.finished;
        finished.truncate(width);
        finished
    }
}
