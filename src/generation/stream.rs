//! Batched generation as an iterator.

use std::collections::VecDeque;
use std::fmt;

use burn::config::Config;
use burn::tensor::s;
use chacha20::ChaCha8Rng;

use super::driver::Driver;
use super::generated::{Finish, Generated, GeneratedToken, UnfinishedGeneration};
use super::hooks::{Hook, RowTokens};
use super::logits::{PassLogits, WantedScores};
use super::sampling::{SamplingConfig, log_probability};
use crate::cache::CacheConfig;
use crate::decoder::{LanguageModel, LanguageModelInput};
use crate::error::check_nonzero;
use crate::kernels::Threads;
use crate::{Error, Result};

/// Configuration of a [`Generation`].
#[derive(Config, Debug)]
pub struct GenerationConfig {
    /// The most tokens that are written behind each prompt.
    pub max_new_tokens: usize,
    /// How each token is chosen; by default the likeliest.
    #[config(default = "SamplingConfig::greedy()")]
    pub sampling: SamplingConfig,
    /// A row ends after any of these.
    #[config(default = "Vec::new()")]
    pub stop_tokens: Vec<u32>,
    /// Whether the log-probabilities of the tokens are computed too: two more passes over the scores
    /// of the vocabulary for each token.
    #[config(default = false)]
    pub log_probabilities: bool,
    /// The cache; if it is not given, one with room for the prompts and `max_new_tokens`.
    pub cache: Option<CacheConfig>,
    /// What the CPU's threads do between two operations of a pass; [`Threads::Global`] by default.
    #[config(default = "Threads::Global")]
    pub threads: Threads,
}

/// Generates from a batch of prompts; an iterator over the tokens as they come, one of each live
/// row in turn.
///
/// ```
/// use burn_decoder::attention::MultiHeadAttentionConfig;
/// use burn_decoder::decoder::*;
/// use burn_decoder::generation::{Generation, GenerationConfig};
///
/// # #[cfg(feature = "ndarray")] {
/// # #[allow(deprecated)]
/// let device = burn::tensor::Device::ndarray();
/// let layer = DecoderLayerConfig::new(
///     MultiHeadAttentionConfig::new(16, 2),
///     FeedForwardConfig::new(16, 32),
/// );
/// let model = LanguageModelConfig::new(11, DecoderConfig::new(layer, 2)).init(&device)?;
///
/// // Prompts of different lengths go together; every row is what it would be alone.
/// let prompts = [vec![1, 2, 3], vec![4]];
/// for token in Generation::new(&model, &prompts, &GenerationConfig::new(5))? {
///     let token = token?;
///     println!("row {}: token {}", token.row, token.token);
/// }
/// # }
/// # Ok::<(), burn_decoder::Error>(())
/// ```
///
/// Its items are errors where the model gives one, where a row's scores are no numbers
/// ([`Error::NotANumber`](crate::Error::NotANumber)), or where no token is left
/// ([`Error::NoTokenLeft`](crate::Error::NoTokenLeft)). An error ends all rows. What was written
/// before it has been given by then; [`finish`](Self::finish) gives it beside the error.
pub struct Generation<'a> {
    driver: Driver<'a>,
    config: GenerationConfig,
    hooks: Vec<Hook<'a>>,
    /// Rows that have not ended, in the order of the cache's rows.
    live: Vec<LiveRow>,
    /// Tokens of the last step that were not asked for yet.
    ready: VecDeque<GeneratedToken>,
    /// What ended the generation, to be told behind them.
    error: Option<Error>,
    started: bool,
}

impl fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("config", &self.config)
            .field("hooks", &self.hooks.len())
            .field("live", &self.live)
            .field("ready", &self.ready)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// A row that has not ended.
#[derive(Debug)]
struct LiveRow {
    /// Its number among the prompts.
    index: usize,
    prompt_length: usize,
    pads: usize,
    /// The most new tokens that it may get.
    most_new: usize,
    /// Prompt and new tokens.
    tokens: Vec<u32>,
    rng: ChaCha8Rng,
}

impl<'a> Generation<'a> {
    /// Prepares the generation; the model runs when the first token is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a setting that makes no sense,
    /// [`Error::Input`](crate::Error::Input) if there is no prompt, or one that is empty or longer than
    /// the model's learned positions or the limit of the cache, and
    /// [`Error::Token`](crate::Error::Token) for a token outside the vocabulary.
    pub fn new(
        model: &'a LanguageModel,
        prompts: &[Vec<u32>],
        config: &GenerationConfig,
    ) -> Result<Self> {
        Self::with_input(model, prompts, LanguageModelInput::default(), config)
    }

    /// The same with a memory for the cross-attention, with weights, with a kernel by name. Masks
    /// and positions of `input` are those of the prompts padded on the left.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_input(
        model: &'a LanguageModel,
        prompts: &[Vec<u32>],
        input: impl Into<LanguageModelInput>,
        config: &GenerationConfig,
    ) -> Result<Self> {
        config.sampling.check()?;
        check_nonzero("GenerationConfig::max_new_tokens", config.max_new_tokens)?;
        let cache = config.cache.as_ref();
        let driver = Driver::new(model, prompts, config.max_new_tokens, cache, input.into())?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let row = |(index, tokens): (usize, &Vec<u32>)| LiveRow {
            index,
            prompt_length: tokens.len(),
            pads: longest - tokens.len(),
            most_new: driver.most_new_tokens(tokens.len(), config.max_new_tokens),
            tokens: tokens.clone(),
            rng: config.sampling.rng(index),
        };
        let live = prompts.iter().enumerate().map(row).collect();
        Ok(Self {
            driver,
            config: config.clone(),
            hooks: Vec::new(),
            live,
            ready: VecDeque::new(),
            error: None,
            started: false,
        })
    }

    /// Has the scores of every row and step changed by a [hook](super::hooks) first; several act in
    /// the order in which they were given.
    #[must_use]
    pub fn with_hook(
        mut self,
        hook: impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send + 'a,
    ) -> Self {
        self.hooks.push(Box::new(hook));
        self
    }

    /// Runs to the end and returns what was written behind each prompt.
    ///
    /// Threads that [`Threads::Spinning`] asks for are woken up once; to iterate wakes them up in each
    /// step.
    ///
    /// # Errors
    ///
    /// The first there is, as it is for the iterator, with all that was written before it.
    ///
    /// ```
    /// # use burn_decoder::decoder::LanguageModel;
    /// # use burn_decoder::generation::{Generation, GenerationConfig};
    /// # fn write(model: &LanguageModel) -> burn_decoder::Result<()> {
    /// let generation = Generation::new(model, &[vec![1, 2, 3]], &GenerationConfig::new(100))?;
    /// let rows = generation.finish().unwrap_or_else(|unfinished| {
    ///     eprintln!("{unfinished}");
    ///     unfinished.written
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn finish(self) -> Result<Vec<Generated>, UnfinishedGeneration> {
        let threads = self.config.threads;
        threads.run(|| self.collect_all())
    }

    fn collect_all(self) -> Result<Vec<Generated>, UnfinishedGeneration> {
        let rows = self.live.len();
        // Until it is known how a row ends.
        let new = || Generated {
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            finish: Finish::Error,
        };
        let mut written: Vec<_> = (0..rows).map(|_| new()).collect();
        for token in self {
            let token = match token {
                Ok(token) => token,
                Err(error) => return Err(UnfinishedGeneration { written, error }),
            };
            let row = &mut written[token.row];
            row.tokens.push(token.token);
            row.log_probabilities.extend(token.log_probability);
            row.finish = token.finish.unwrap_or(row.finish);
        }
        Ok(written)
    }

    /// Whether nothing of a pass but the likeliest tokens is looked at.
    fn wants_likeliest_alone(&self) -> bool {
        self.config.sampling.is_greedy() && self.hooks.is_empty() && !self.config.log_probabilities
    }

    /// One pass through the model, and a token for each live row.
    fn advance(&mut self) -> Result<()> {
        if !self.started && self.wants_likeliest_alone() {
            self.driver.wanted = WantedScores::Likeliest;
        }
        let scores = if self.started {
            let last: Vec<u32> =
                self.live.iter().map(|row| row.tokens[row.tokens.len() - 1]).collect();
            self.driver.step(&last)?
        } else {
            self.started = true;
            let prompts: Vec<_> = self.live.iter().map(|row| row.tokens.clone()).collect();
            self.driver.prefill(&prompts)?
        };
        for (place, row) in self.live.iter_mut().enumerate() {
            self.ready.push_back(row.choose(place, &scores, &self.config, &mut self.hooks)?);
        }

        let ended: Vec<_> = self.ready.iter().map(|token| token.finish.is_some()).collect();
        if ended.contains(&true) {
            let left: Vec<_> = (0..self.live.len()).filter(|&row| !ended[row]).collect();
            let mut ended = ended.into_iter();
            self.live.retain(|_| ended.next() == Some(false));
            if !left.is_empty() {
                self.driver.cache.select_rows(&left)?;
            }
        }
        Ok(())
    }
}

impl LiveRow {
    /// The next token. `place`: where the row stands in the pass.
    fn choose(
        &mut self,
        place: usize,
        scores: &PassLogits,
        config: &GenerationConfig,
        hooks: &mut [Hook],
    ) -> Result<GeneratedToken> {
        let (token, log_probability) = match scores.likeliest(place) {
            Some(token) => (token, None),
            None => self.choose_on_host(place, scores, config, hooks)?,
        };
        self.tokens.push(token);
        let stop = config.stop_tokens.contains(&token).then_some(Finish::Stop);
        let written = self.tokens.len() - self.prompt_length;
        let length = (written == self.most_new).then_some(Finish::Length);
        let weights = scores.weights.iter().map(|weights| {
            let [_, heads, queries, keys] = weights.dims();
            let last = s![place, .., queries - 1, self.pads..];
            weights.clone().slice(last).reshape([heads, keys - self.pads]) // [heads, keys]
        });
        Ok(GeneratedToken {
            row: self.index,
            token,
            log_probability,
            finish: stop.or(length),
            weights: weights.collect(),
        })
    }

    /// The next token by all logits of its row, and its log-probability if asked for.
    fn choose_on_host(
        &mut self,
        place: usize,
        scores: &PassLogits,
        config: &GenerationConfig,
        hooks: &mut [Hook],
    ) -> Result<(u32, Option<f64>)> {
        let so_far = RowTokens::new(&self.tokens, self.prompt_length);
        let logits = scores.row(place, self.index, so_far)?;
        let hooked = match hooks {
            [] => None,
            hooks => Some(scores.hooked_row(place, self.index, so_far, hooks)?),
        };
        let candidates = hooked.as_deref().unwrap_or(logits);
        let chosen = config.sampling.choose(candidates, &self.tokens, &mut self.rng);
        let log = config.log_probabilities.then(|| log_probability(logits, chosen));
        Ok((chosen as u32, log))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<GeneratedToken>;

    fn next(&mut self) -> Option<Self::Item> {
        let threads = self.config.threads;
        if self.ready.is_empty()
            && !self.live.is_empty()
            && let Err(error) = threads.run(|| self.advance())
        {
            self.live.clear();
            self.error = Some(error);
        }
        let ready = self.ready.pop_front().map(Ok);
        ready.or_else(|| self.error.take().map(Err))
    }
}
