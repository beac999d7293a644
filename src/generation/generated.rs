//! What a generation gives: tokens as they come, whole rows, and what was written before an error.

use std::fmt;

use burn::tensor::Tensor;

use crate::Error;

/// Why a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// With one of the stop tokens.
    Stop,
    /// With the last of `max_new_tokens`, or the last that the model's learned positions or the limit
    /// of the cache have room for.
    Length,
    /// With an error, of whichever row: only in an [`UnfinishedGeneration`].
    Error,
}

/// One token that a model wrote.
#[derive(Clone, Debug)]
pub struct GeneratedToken {
    /// The prompt that it belongs to.
    pub row: usize,
    /// The token.
    pub token: u32,
    /// The logarithm of the probability that the model gave it, before any hook and any setting of
    /// [`SamplingConfig`](super::SamplingConfig); if
    /// [`log_probabilities`](super::GenerationConfig::log_probabilities) asks for it.
    pub log_probability: Option<f64>,
    /// Set on the last token of a row.
    pub finish: Option<Finish>,
    /// What each head of each layer looked at to choose it: `[heads, keys]` for each layer, if
    /// [`Request::with_weights`](crate::attention::Request::with_weights) asked for it. The last key
    /// is the token before; left padding is not among the keys.
    pub weights: Vec<Tensor<2>>,
}

/// All that a model wrote behind one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, the stop token included if there is one.
    pub tokens: Vec<u32>,
    /// The log-probability of each of them, as in [`GeneratedToken`]; empty if not asked for.
    pub log_probabilities: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
}

/// A generation that ended with an error, and all that was written before it.
///
/// `?` makes it the plain [`Error`] where that is what a function returns.
#[derive(Debug)]
pub struct UnfinishedGeneration {
    /// What was written behind each prompt: rows that had ended before the error are whole, the others
    /// end with [`Finish::Error`].
    pub written: Vec<Generated>,
    /// What ended it.
    pub error: Error,
}

impl fmt::Display for UnfinishedGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: usize = self.written.iter().map(|row| row.tokens.len()).sum();
        write!(f, "{} (tokens written before: {tokens})", self.error)
    }
}

impl std::error::Error for UnfinishedGeneration {}

impl From<UnfinishedGeneration> for Error {
    fn from(unfinished: UnfinishedGeneration) -> Self {
        unfinished.error
    }
}
