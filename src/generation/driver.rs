//! A model with its cache, driven from the host: token ids in, scores of each row's next token out.

use burn::tensor::{Int, Tensor, TensorData};

use super::logits::{PassLogits, WantedScores};
use crate::attention::Request;
use crate::cache::{CacheConfig, KvCache};
use crate::decoder::{LanguageModel, LanguageModelInput, LanguageModelOutput, PositionEmbedding};
use crate::sequence::Batch;
use crate::{Error, Result};

/// New tokens that room is reserved for at first, in each row. The cache grows as more come.
const RESERVED: usize = 256;

pub(super) struct Driver<'a> {
    pub model: &'a LanguageModel,
    pub cache: KvCache,
    /// What the first pass is told.
    batch: Batch,
    request: Request,
    /// The most tokens that can be sent behind each other: the learned positions, if there are any.
    positions: Option<usize>,
    /// The most tokens of a row of the cache, left padding included.
    limit: Option<usize>,
    /// The length of the longest prompt, to which the others are padded.
    longest: usize,
    /// What is read of each pass.
    pub wanted: WantedScores,
}

impl<'a> Driver<'a> {
    /// Without `cache`, one that has room for `max_new_tokens` behind the longest prompt.
    ///
    /// # Errors
    ///
    /// Those of [`check_prompts`], of the cache's configuration, and [`Error::Input`] for a prompt
    /// that is longer than the learned positions or the limit of the cache.
    pub fn new(
        model: &'a LanguageModel,
        prompts: &[Vec<u32>],
        max_new_tokens: usize,
        cache: Option<&CacheConfig>,
        input: LanguageModelInput,
    ) -> Result<Self> {
        check_prompts(prompts, model.vocab_size())?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let cache = cache.cloned().unwrap_or_else(|| {
            // Not all of it at once: most rows end sooner.
            CacheConfig::new()
                .with_capacity(longest.saturating_add(max_new_tokens.min(RESERVED)))
                .with_limit(Some(longest.saturating_add(max_new_tokens)))
        });
        let positions = match &model.positions {
            Some(PositionEmbedding::Learned(learned)) => {
                Some(learned.table.weight.shape()[0] - learned.offset)
            }
            _ => None,
        };
        let LanguageModelInput { batch, request } = input;
        let request = request.with_unchecked_tokens().with_last_logits_only();
        let (limit, mut cache) = (cache.limit, cache.init()?);
        cache.hold_model();
        let wanted = WantedScores::All;
        let driver = Self { model, cache, batch, request, positions, limit, longest, wanted };
        driver.check_lengths(prompts)?;
        Ok(driver)
    }

    /// The most of `max_new_tokens` that there is room for behind a prompt of `prompt` tokens, by
    /// the learned positions and the limit of the cache: at least 1, since the last token that is
    /// written is not sent.
    pub fn most_new_tokens(&self, prompt: usize, max_new_tokens: usize) -> usize {
        let rooms =
            [self.positions.map(|most| most - prompt), self.limit.map(|l| l - self.longest)];
        rooms
            .into_iter()
            .flatten()
            .map(|room| room.saturating_add(1))
            .fold(max_new_tokens, usize::min)
    }

    fn check_lengths(&self, prompts: &[Vec<u32>]) -> Result<()> {
        let bounds = [
            (self.positions, "the number of the model's learned positions"),
            (self.limit, "the limit in CacheConfig"),
        ];
        for (row, prompt) in prompts.iter().enumerate() {
            let beyond =
                bounds.iter().find(|(most, _)| most.is_some_and(|most| prompt.len() > most));
            if let Some((Some(most), what)) = beyond {
                return Err(Error::Input {
                    input: "prompts",
                    expected: format!("at most {most} tokens in each, {what}"),
                    got: format!("{} in row {row}", prompt.len()),
                });
            }
        }
        Ok(())
    }

    /// Sends the prompts, padded on the left to the length of the longest.
    pub fn prefill(&mut self, prompts: &[Vec<u32>]) -> Result<PassLogits> {
        let pads: Vec<usize> = prompts.iter().map(|prompt| self.longest - prompt.len()).collect();
        let padded = prompts.iter().zip(&pads).flat_map(|(prompt, &pads)| {
            // Any token of the vocabulary does: nothing sees it.
            std::iter::repeat_n(0, pads).chain(prompt.iter().copied())
        });
        let padded = padded.map(i64::from).collect();
        let mut batch = std::mem::take(&mut self.batch);
        if pads.iter().any(|&pads| pads > 0) {
            batch = batch.with_pad_counts(pads);
        }
        self.pass(padded, prompts.len(), batch)
    }

    /// Sends one more token of each row.
    pub fn step(&mut self, tokens: &[u32]) -> Result<PassLogits> {
        // What the first pass said of masks, positions and memory, the cache knows.
        self.pass(tokens.iter().copied().map(i64::from).collect(), tokens.len(), Batch::new())
    }

    fn pass(&mut self, tokens: Vec<i64>, rows: usize, batch: Batch) -> Result<PassLogits> {
        let shape = [rows, tokens.len() / rows];
        let device = self.model.embedding.weight.device();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &device);
        let LanguageModelOutput { logits, self_weights, .. } =
            self.model.forward_cached(tokens, batch.asking(self.request), &mut self.cache)?;
        let read = PassLogits::new(logits, self_weights, self.wanted);
        if read.are_all() {
            // Of a model whose scores are not all numbers once, not all will be the next time.
            self.wanted = WantedScores::All;
        }
        Ok(read)
    }
}

/// An error unless there are prompts, none is empty, and all their tokens are in the vocabulary.
fn check_prompts(prompts: &[Vec<u32>], vocab_size: usize) -> Result<()> {
    let refuse = |got: String| {
        let expected = "at least one prompt, and in each at least one token to go on from".into();
        Err(Error::Input { input: "prompts", expected, got })
    };
    if prompts.is_empty() {
        return refuse("no prompts".into());
    }
    for (row, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() {
            return refuse(format!("an empty prompt in row {row}"));
        }
        if let Some(index) = prompt.iter().position(|&token| token as usize >= vocab_size) {
            let token = prompt[index].into();
            return Err(Error::Token { token, row, index, vocab_size });
        }
    }
    Ok(())
}
