//! The one error type: what was expected, what came, and what to do.

use thiserror::Error;

use crate::weights_mismatch::WeightsMismatch;

/// Everything that data or a configuration can get wrong.
///
/// Broken tensor shapes are not in here: those panic, as Burn's own do (each such function says so
/// under `# Panics`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration field holds a value that no layer can be built from.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The field, with its type: `DecoderLayerConfig::heads`.
        field: &'static str,
        /// What would have been right, and where it helps, what to do.
        expected: String,
        /// The value that came.
        got: String,
    },

    /// Queries and keys differ in number and nobody said where the queries stand.
    #[error(
        "{queries} queries against {keys} keys: expected their positions to be stated, got none; \
         use Grid::bottom_right if the last query stands on the last key (decoding with a cache), \
         Grid::top_left if the first query stands on the first key (PyTorch's is_causal), \
         or Grid::with_offset"
    )]
    PositionsNotStated {
        /// Number of queries.
        queries: usize,
        /// Number of keys.
        keys: usize,
    },

    /// A mask was made for other sizes than those it is used with.
    #[error("{mask}: expected {expected}, got {got}")]
    Mask {
        /// Which part of the mask, in the words of its constructor.
        mask: &'static str,
        /// The sizes or values that fit.
        expected: String,
        /// The sizes or values that came.
        got: String,
    },

    /// Positions that don't fit the tokens or the model.
    #[error("positions: expected {expected}, got {got}")]
    Positions {
        /// The sizes or values that fit.
        expected: String,
        /// The sizes or values that came.
        got: String,
    },

    /// A token that the model has no vector for.
    #[error(
        "token {token} in batch row {row} at index {index}: expected one of the vocabulary, \
         0 to {last}; check that the tokens come from the model's own tokenizer",
        last = .vocab_size.saturating_sub(1)
    )]
    Token {
        /// The token id that came.
        token: i64,
        /// Its row in the batch.
        row: usize,
        /// Its index in the row.
        index: usize,
        /// Number of tokens in the vocabulary.
        vocab_size: usize,
    },

    /// A model under a check gave tensors of another shape than it should.
    #[error("{output}: expected {expected}, got {got}")]
    ModelOutput {
        /// Which of its tensors.
        output: &'static str,
        /// The shape that fits.
        expected: String,
        /// The shape that came.
        got: String,
    },

    /// A part of the input is missing or was given to a model that has no use for it.
    #[error("{input}: expected {expected}, got {got}")]
    Input {
        /// The part.
        input: &'static str,
        /// What the model needs.
        expected: String,
        /// What came.
        got: String,
    },

    /// A cache was used in a way that does not fit it. It is as it was before.
    #[error("cache, {misuse}: expected {expected}, got {got}")]
    Cache {
        /// What does not fit.
        misuse: CacheMisuse,
        /// What would have fitted.
        expected: String,
        /// What came.
        got: String,
    },

    /// A pass with a cache gave other logits than a pass over everything.
    #[error(
        "cache, check after {tokens} tokens: expected the logits of a pass without cache to \
         {tolerance:e}, got a difference of {difference:e}; was the model changed since the cache \
         was filled?"
    )]
    CacheCheck {
        /// Number of tokens in each row.
        tokens: usize,
        /// The greatest difference of two logits.
        difference: f64,
        /// The difference that rounding may make.
        tolerance: f64,
    },

    /// A model's scores are not numbers, so that no token can be chosen.
    #[error(
        "logits of row {row} after {tokens} tokens: expected numbers, got {got}; look for NaN in the \
         parameters, for an overflow in half precision (of f16 it begins at 65,520), or in the logits \
         hook"
    )]
    NotANumber {
        /// The row: the number of its prompt.
        row: usize,
        /// Number of tokens that it holds.
        tokens: usize,
        /// NaN, or infinity where a number has overflown.
        got: f32,
    },

    /// All tokens are ruled out, by a logits hook or by the model.
    #[error(
        "logits of row {row} after {tokens} tokens: expected a token that may come next, got -inf \
         for every one; look at what the logits hook rules out"
    )]
    NoTokenLeft {
        /// The row: the number of its prompt.
        row: usize,
        /// Number of tokens that it holds.
        tokens: usize,
    },

    /// A training loss that no causal model can reach: the model sees what it predicts.
    #[error(
        "the mean loss of the last {tokens} tokens (since observation {since}) is {loss:.4} nats, \
         expected at least {floor:.4} from a causal model, which gets here by chance with \
         probability {chance:.0e} at most; stop: the model sees what it predicts. Look for the leak \
         with causality::CausalityCheck, check that the targets are shifted by one, and that no \
         token is used for training twice"
    )]
    BelowFloor {
        /// Mean loss over those tokens, in nats.
        loss: f64,
        /// The lowest mean loss of a causal model, in nats.
        floor: f64,
        /// Number of tokens that the mean runs over.
        tokens: u64,
        /// The observation (from 1) where they begin.
        since: u64,
        /// Bound on the probability of stopping a causal model like this.
        chance: f64,
    },

    /// A file or folder that can't be read, or not as what it should be, or can't be written.
    #[error("{path}: expected {expected}, got {got}")]
    File {
        /// The file or folder.
        path: String,
        /// What it should have been.
        expected: String,
        /// What it is, or what the operating system said.
        got: String,
    },

    /// A field of a configuration file: of this crate's own, or of another program's for a model that
    /// this crate can't build.
    #[error("{path}, {field}: expected {expected}, got {got}")]
    ConfigFile {
        /// The file.
        path: String,
        /// The field, with those it stands in: `rope_parameters.rope_type`.
        field: String,
        /// The values that this crate knows.
        expected: String,
        /// The value that came.
        got: String,
    },

    /// Tensors of a checkpoint that are not those of the model.
    #[error(transparent)]
    Weights(Box<WeightsMismatch>),
}

/// What does not fit in an [`Error::Cache`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheMisuse {
    /// More tokens than the limit, or none.
    Length,
    /// Another number of rows than before.
    Batch,
    /// Another device than before.
    Device,
    /// Another model than before.
    Model,
    /// A model that is being trained: its parameters change under the cache.
    Training,
    /// A mask under which a new token does not see itself, as right padding does.
    Mask,
    /// Other left padding than before.
    Padding,
    /// Another memory than before.
    Memory,
    /// A length that the cache can't go back to.
    Trim,
    /// Rows that there are not.
    Rows,
    /// An earlier pass broke off in the middle, in a way that can't be taken back.
    Interrupted,
    /// A file that is no cache, or that can't be read or written.
    File,
}

impl std::fmt::Display for CacheMisuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "length",
            Self::Batch => "batch",
            Self::Device => "device",
            Self::Model => "model",
            Self::Training => "training",
            Self::Mask => "mask",
            Self::Padding => "padding",
            Self::Memory => "memory",
            Self::Trim => "trim",
            Self::Rows => "rows",
            Self::Interrupted => "interrupted",
            Self::File => "file",
        })
    }
}

/// `Result` with this crate's [`Error`](enum@Error).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// [`Error::Config`] unless `value` is at least 1.
pub(crate) fn check_nonzero(field: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::Config { field, expected: "at least 1".into(), got: "0".into() });
    }
    Ok(())
}

/// [`Error::Config`] unless `value` is a probability that leaves something over: in `[0, 1)`.
pub(crate) fn check_probability(field: &'static str, value: f64) -> Result<()> {
    if !(0.0..1.0).contains(&value) {
        return Err(Error::Config {
            field,
            expected: "a probability in [0, 1)".into(),
            got: value.to_string(),
        });
    }
    Ok(())
}

/// Whether f32, in which a setting is used, holds it: within its range, and 0 only if it is 0.
pub(crate) fn fits_f32(value: f64) -> bool {
    value == 0.0 || (value as f32).is_normal()
}
