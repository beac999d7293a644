//! Beam search: the continuation that is likeliest as a whole.
//!
//! The likeliest next token may lead where nothing likely follows. Beam search goes on with the
//! `width` best beginnings at once (Graves 2012; Sutskever et al. 2014, section 3.2). Each step
//! looks at the likeliest extensions of all live beginnings by a token: twice `width` of them, and
//! as many again for each further stop token, so that `width` are left to live on however many end
//! here. The best `width` of those that do not end live on. Those that do, and that are among the
//! best `width` of all, are finished, and kept apart, the best `width` of them. A finished sequence
//! of `n` new tokens scores
//!
//! ```text
//! log p(tokens) / n^length_penalty
//! ```
//!
//! so that a penalty of 0 compares plain probabilities, which favours short sequences, and 1
//! compares means. When the search ends, [`EarlyStopping`] says. This is the search of Hugging
//! Face's `generate`, with its results. Width 1 is greedy; a width that no step reaches, without
//! early stopping, is a full search.

use burn::config::Config;

use super::driver::Driver;
use super::hooks::{Hook, RowTokens};
use super::logits::PassLogits;
use super::sampling::log_sum_exp;
use crate::Error;
use crate::Result;
use crate::cache::CacheConfig;
use crate::decoder::{LanguageModel, LanguageModelInput};
use crate::error::check_nonzero;

/// When a search ends whose beginnings could still go on. It needs `width` finished sequences for
/// that in any case.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As soon as it has them (`early_stopping=True` in Hugging Face's `generate`).
    WhenFull,
    /// When the best live beginning, if it were to end as it is, would score no more than the worst
    /// of them (`False`, the default there). With a length penalty above 0 a better one may be
    /// missed.
    Estimated,
    /// When no live beginning can come to score more (`"never"`).
    Never,
}

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
    /// When the search ends.
    #[config(default = "EarlyStopping::Estimated")]
    pub early_stopping: EarlyStopping,
    /// A sequence is finished after any of these.
    #[config(default = "Vec::new()")]
    pub stop_tokens: Vec<u32>,
    /// The cache; if it is not given, one with room for the prompts and `max_new_tokens`.
    pub cache: Option<CacheConfig>,
}

/// A sequence that a [`beam_search`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The new tokens, the stop token included if there is one.
    pub tokens: Vec<u32>,
    /// The logarithm of its probability, behind the hook if there is one.
    pub log_probability: f64,
    /// What it is compared by.
    pub score: f64,
}

/// Searches the continuations of each prompt that score best: at most `width` of them, best first.
///
/// `input` gives a memory for the cross-attention, or a kernel by name. Where learned positions or
/// the limit of the cache end sooner than `max_new_tokens`, sequences end there.
///
/// # Errors
///
/// [`Error::Config`](crate::Error::Config) for a setting that makes no sense,
/// [`Error::Input`](crate::Error::Input) if there is no prompt, or one that is empty or too long for
/// the model or the cache, [`Error::Token`](crate::Error::Token) for a token outside the vocabulary,
/// [`Error::NotANumber`](crate::Error::NotANumber) and
/// [`Error::NoTokenLeft`](crate::Error::NoTokenLeft) for scores that no token can be chosen by, and
/// those of the model.
pub fn beam_search(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    input: impl Into<LanguageModelInput>,
    config: &BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>> {
    search(model, prompts, input.into(), config, &mut [])
}

/// The same with a [hook](super::hooks), called for each live beginning, with the number of its
/// prompt. The probabilities that are compared are those behind the hook.
///
/// ```
/// # use burn_decoder::decoder::{Batch, LanguageModel};
/// # use burn_decoder::generation::{BeamConfig, beam_search_with_hook, hooks};
/// # fn search(model: &LanguageModel) -> burn_decoder::Result<()> {
/// let mut banned = hooks::banned_tokens([7, 8]);
/// let mut ngrams = hooks::no_repeated_ngrams(3)?;
/// let config = BeamConfig::new(4, 20);
/// let found = beam_search_with_hook(model, &[vec![1]], Batch::new(), &config, {
///     |row, tokens, logits| {
///         banned(row, tokens, logits);
///         ngrams(row, tokens, logits);
///     }
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`beam_search`].
pub fn beam_search_with_hook(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    input: impl Into<LanguageModelInput>,
    config: &BeamConfig,
    hook: impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send,
) -> Result<Vec<Vec<Hypothesis>>> {
    search(model, prompts, input.into(), config, &mut [Box::new(hook)])
}

fn search(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    input: LanguageModelInput,
    config: &BeamConfig,
    hooks: &mut [Hook],
) -> Result<Vec<Vec<Hypothesis>>> {
    config.check()?;
    let cache = config.cache.as_ref();
    let mut driver = Driver::new(model, prompts, config.max_new_tokens, cache, input)?;
    let search = |(row, prompt): (usize, &Vec<u32>)| {
        let most_new = driver.most_new_tokens(prompt.len(), config.max_new_tokens);
        Search::new(row, prompt, most_new, config)
    };
    let mut searches: Vec<_> = prompts.iter().enumerate().map(search).collect();

    let mut scores = driver.prefill(prompts)?;
    loop {
        // The rows of the cache are the live beginnings of all searches, one search after another.
        let (mut first, mut parents) = (0, Vec::new());
        for search in &mut searches {
            let rows = search.live.len();
            let chosen = search.extend(&scores, first, hooks)?;
            parents.extend(chosen.into_iter().map(|parent| first + parent));
            first += rows;
        }
        if parents.is_empty() {
            return Ok(searches.into_iter().map(|search| search.finished).collect());
        }
        driver.cache.select_rows(&parents)?;
        let live = searches.iter().flat_map(|search| &search.live);
        let last: Vec<u32> =
            live.map(|beginning| beginning.tokens[beginning.tokens.len() - 1]).collect();
        scores = driver.step(&last)?;
    }
}

impl BeamConfig {
    fn check(&self) -> Result<()> {
        check_nonzero("BeamConfig::width", self.width)?;
        check_nonzero("BeamConfig::max_new_tokens", self.max_new_tokens)?;
        // Beyond that all scores would be 0 or infinite, and compare as equals.
        let most = (self.max_new_tokens as f64).powf(self.length_penalty);
        if !(self.length_penalty.is_finite() && most.is_normal()) {
            return Err(Error::Config {
                field: "BeamConfig::length_penalty",
                expected: "a finite number of which max_new_tokens to its power is one too".into(),
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
struct Search<'a> {
    config: &'a BeamConfig,
    /// The number of the prompt, and its length.
    row: usize,
    prompt_length: usize,
    most_new: usize,
    /// Likeliest first.
    live: Vec<Beginning>,
    /// Best first.
    finished: Vec<Hypothesis>,
}

/// A sequence that may go on.
#[derive(Clone)]
struct Beginning {
    /// Prompt and new tokens.
    tokens: Vec<u32>,
    log_probability: f64,
}

/// A beginning and one more token.
struct Extension {
    parent: usize,
    token: u32,
    log_probability: f64,
}

impl<'a> Search<'a> {
    fn new(row: usize, prompt: &[u32], most_new: usize, config: &'a BeamConfig) -> Self {
        let live = vec![Beginning { tokens: prompt.to_vec(), log_probability: 0.0 }];
        Self { config, row, prompt_length: prompt.len(), most_new, live, finished: Vec::new() }
    }

    /// Takes the best extensions and returns the parents of those that live on. The scores of the
    /// search's live beginnings start at `first`.
    fn extend(
        &mut self,
        scores: &PassLogits,
        first: usize,
        hooks: &mut [Hook],
    ) -> Result<Vec<usize>> {
        if self.live.is_empty() {
            return Ok(Vec::new());
        }
        let width = self.config.width;
        let (mut parents, mut live) = (Vec::new(), Vec::new());
        for (rank, extension) in self.extensions(scores, first, hooks)?.into_iter().enumerate() {
            let Extension { parent, token, log_probability } = extension;
            let tokens = &self.live[parent].tokens;
            let written = tokens.len() + 1 - self.prompt_length;
            let ends = self.config.stop_tokens.contains(&token) || written == self.most_new;
            let extended = || [tokens, &[token][..]].concat();
            if ends && rank < width {
                let score = self.config.score(log_probability, written);
                let tokens = extended().split_off(self.prompt_length);
                self.finished.push(Hypothesis { tokens, log_probability, score });
            } else if !ends && live.len() < width {
                parents.push(parent);
                live.push(Beginning { tokens: extended(), log_probability });
            }
        }
        self.live = live;
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(width);
        if self.is_decided() {
            self.live.clear();
            parents.clear();
        }
        Ok(parents)
    }

    /// The likeliest extensions of all live beginnings by one token, likeliest first: enough that
    /// `width` of them do not end with a stop token.
    fn extensions(
        &self,
        scores: &PassLogits,
        first: usize,
        hooks: &mut [Hook],
    ) -> Result<Vec<Extension>> {
        let most = self.config.width.saturating_mul(1 + self.config.stop_tokens.len().max(1));
        let mut all = Vec::new();
        for (parent, beginning) in self.live.iter().enumerate() {
            let so_far = RowTokens::new(&beginning.tokens, self.prompt_length);
            let logits = scores.hooked_row(first + parent, self.row, so_far, hooks)?;
            let rest = beginning.log_probability - log_sum_exp(&logits);
            let possible = |&token: &usize| logits[token] > f32::NEG_INFINITY;
            let mut tokens: Vec<usize> = (0..logits.len()).filter(possible).collect();
            if most < tokens.len() {
                let order =
                    |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
                tokens.select_nth_unstable_by(most, order);
                tokens.truncate(most);
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
        all.truncate(most);
        Ok(all)
    }

    /// Whether the search ends, by [`EarlyStopping`]. A width of 1 ends as greedy generation does.
    fn is_decided(&self) -> bool {
        let full = self.finished.len() == self.config.width;
        let ([.., worst], [best, ..]) = (&self.finished[..], &self.live[..]) else { return false };
        let written = |live: &Beginning| live.tokens.len() - self.prompt_length;
        full && match self.config.early_stopping {
            _ if self.config.width == 1 => true,
            EarlyStopping::WhenFull => true,
            EarlyStopping::Estimated => {
                self.config.score(best.log_probability, written(best)) <= worst.score
            }
            EarlyStopping::Never => self.live.iter().all(|live| {
                // A sequence only gets less likely, so the most it can score is what it has, at one
                // end or the other of the lengths that it may come to.
                let next = self.config.score(live.log_probability, written(live) + 1);
                let last = self.config.score(live.log_probability, self.most_new);
                next.max(last) <= worst.score
            }),
        }
    }
}
