//! The one error type: what was expected, what came, and what to do.

use thiserror::Error;

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
