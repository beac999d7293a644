//! Generation: a model's own continuation of prompts, token by token.
//!
//! A [`Generation`] is an iterator over the tokens as they come. Prompts of different lengths go
//! through the model together, padded on the left; every row is what it would be alone. A row ends
//! with a stop token of its own or at the greatest length, and leaves the batch then.
//!
//! - [`SamplingConfig`]: how the next token is chosen;
//! - [`Generation`]: batched generation;
//! - [`Threads`]: what the CPU's threads do meanwhile;
//! - [`beam_search`]: the likeliest continuations as a whole.

mod beam;
mod sampling;
mod stream;

pub use crate::kernels::Threads;
pub use beam::{BeamConfig, Hypothesis, beam_search};
pub use sampling::SamplingConfig;
pub use stream::{Finish, Generated, GeneratedToken, Generation, GenerationConfig};

use burn::tensor::{Int, Tensor, TensorData};

use crate::attention::Request;
use crate::cache::KvCache;
use crate::decoder::{LanguageModel, LanguageModelInput, LanguageModelOutput};
use crate::sequence::Batch;
use crate::{Error, Result};

/// A model with a cache, driven from the host: token ids in, scores of each row's next token out.
struct Driver<'a> {
    model: &'a LanguageModel,
    cache: KvCache,
    /// What the first pass is told.
    batch: Batch,
    request: Request,
}

impl<'a> Driver<'a> {
    fn new(model: &'a LanguageModel, cache: KvCache, input: LanguageModelInput) -> Self {
        let LanguageModelInput { batch, request } = input;
        let request = request.with_unchecked_tokens().with_last_logits_only();
        Self { model, cache, batch, request }
    }

    /// Sends the prompts, padded on the left to the length of the longest.
    fn prefill(&mut self, prompts: &[Vec<u32>]) -> Result<Scores> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let pads: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
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
    fn step(&mut self, tokens: impl ExactSizeIterator<Item = u32>) -> Result<Scores> {
        let rows = tokens.len();
        // What the first pass said of masks, positions and memory, the cache knows.
        self.pass(tokens.map(i64::from).collect(), rows, Batch::new())
    }

    fn pass(&mut self, tokens: Vec<i64>, rows: usize, batch: Batch) -> Result<Scores> {
        let shape = [rows, tokens.len() / rows];
        let device = self.model.embedding.weight.device();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &device);
        let input = batch.asking(self.request);
        let LanguageModelOutput { logits, self_weights, .. } =
            self.model.forward_cached(tokens, input, &mut self.cache)?;
        let [_, _, vocab_size] = logits.dims();
        let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>();
        let logits = logits.expect("the data was converted to f32");
        Ok(Scores { logits, vocab_size, weights: self_weights })
    }
}

/// What a pass gave for the next token of each row.
struct Scores {
    /// `[rows, vocab_size]`, row-major
    logits: Vec<f32>,
    vocab_size: usize,
    /// Of each layer, `[rows, heads, queries, keys]`, if asked for.
    weights: Vec<Tensor<4>>,
}

impl Scores {
    /// The logits of a row, which must be numbers.
    fn row(&self, row: usize, tokens: usize) -> Result<&[f32]> {
        let logits = &self.logits[row * self.vocab_size..][..self.vocab_size];
        if logits.iter().any(|x| x.is_nan()) {
            return Err(Error::NotANumber { row, tokens });
        }
        Ok(logits)
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
