//! Diagnosis: the names of what can be wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a finding most likely is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Diagnosis {
    /// Each query sees one key too many (one for each layer).
    OffByOne,
    /// The mask is shifted by this many keys against the promise, towards the future if positive.
    /// `None` if the shift is not the same for all queries.
    WrongAlignment {
        /// Keys seen too many (positive) or too few (negative).
        by: Option<i64>,
    },
    /// The future is seen and the past is not: the mask is inverted or transposed.
    MaskInverted,
    /// The future is seen as well as the past: no mask, or one without effect.
    MaskMissing,
    /// The mask is applied to weights that were already normalised over hidden keys.
    AppliedAfterSoftmax,
    /// Some of the attention heads do not apply the mask.
    SomeHeads {
        /// Their indices in the returned weights.
        heads: Vec<usize>,
    },
    /// Queries that should see no key see all of them: a finite fill, which a softmax over nothing
    /// but hidden keys turns into equal weights.
    DeadRows,
    /// Hidden keys are seen for some inputs and not for others: scores below the mask's finite fill
    /// (or, beyond attention, routing that depends on the whole sequence).
    FiniteFill,
    /// A norm or statistic runs over the sequence axis: only sums over the future matter.
    SequenceStatistics,
    /// Padding is seen by real tokens.
    PaddingSeen,
    /// A packed document sees another one.
    DocumentsMixed,
    /// The window reaches too far back.
    WindowTooWide {
        /// By so many keys.
        by: usize,
    },
    /// The window does not reach back as far as promised.
    WindowTooNarrow {
        /// Keys that it shows, the query's own included.
        keys: usize,
    },
    /// The future is seen inside blocks of keys: a mask applied by tiles and not inside them.
    WithinBlocks {
        /// Keys in a block.
        keys: usize,
    },
    /// The first queries see the last keys: a shift that wraps around the end of the sequence.
    WrapsAround,
    /// Rows of the batch move each other: a reshape or a statistic over the batch axis.
    RowsMixed,
    /// Moves by the last bits only: hidden keys take part in a sum or a maximum, but carry no
    /// information that could be used.
    Rounding,
    /// One key is never seen: lost from a cache.
    KeyLost {
        /// The key.
        key: usize,
    },
    /// One key counts twice: repeated in a cache.
    KeyRepeated {
        /// The key.
        key: usize,
    },
    /// A token is hidden because its id is taken for padding.
    TokenHidden {
        /// The id.
        id: i64,
    },
    /// The same keys are seen but the outputs differ from some query on: positions that restart.
    PositionsRestarted,
    /// No position moves another: a model without attention, or a mask that hides everything.
    NothingFlows,
    /// Keys that are promised are never seen.
    HidesTooMuch,
    /// The path gives other outputs than the plain one; what moves what is the same.
    PathsDiffer,
    /// None of the patterns known here.
    Unknown,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OffByOne => write!(f, "off by one: each query sees one key too many per layer"),
            Self::WrongAlignment { by: None } => {
                write!(f, "wrong alignment: the mask counts its queries from the wrong end")
            }
            Self::WrongAlignment { by: Some(by) } => {
                let (keys, kind) = (by.unsigned_abs(), if *by > 0 { "many" } else { "few" });
                write!(f, "wrong alignment: each query sees {keys} key(s) too {kind}")
            }
            Self::MaskInverted => {
                write!(f, "mask inverted or transposed: the future is seen, the past is not")
            }
            Self::MaskMissing => write!(f, "mask missing, or without effect"),
            Self::AppliedAfterSoftmax => {
                write!(f, "mask applied after the softmax, whose sum runs over hidden keys too")
            }
            Self::SomeHeads { heads } => write!(f, "mask missing in the heads {heads:?}"),
            Self::DeadRows => write!(
                f,
                "dead rows with a finite fill: a query that should see no key sees all of them"
            ),
            Self::FiniteFill => {
                write!(f, "finite fill: for some inputs, scores fall below it and hidden keys win")
            }
            Self::SequenceStatistics => {
                write!(f, "a norm, mean or other statistic over the sequence axis")
            }
            Self::PaddingSeen => write!(f, "padding is seen by real tokens"),
            Self::DocumentsMixed => write!(f, "a packed document sees another one"),
            Self::WindowTooWide { by } => write!(f, "window too wide by {by} key(s)"),
            Self::WindowTooNarrow { keys } => {
                write!(f, "window too narrow: it shows {keys} key(s), the query's own included")
            }
            Self::WithinBlocks { keys } => {
                write!(f, "mask not applied inside blocks of {keys} keys")
            }
            Self::WrapsAround => {
                write!(f, "a shift wraps around: the first queries see the last keys")
            }
            Self::RowsMixed => write!(f, "rows of the batch are mixed"),
            Self::Rounding => write!(
                f,
                "rounding: hidden keys take part in a sum or maximum, at the level of the last bits"
            ),
            Self::KeyLost { key } => write!(f, "key {key} is lost: no later query sees it"),
            Self::KeyRepeated { key } => write!(f, "key {key} counts twice"),
            Self::TokenHidden { id } => {
                write!(f, "the real token {id} is hidden as if it were padding")
            }
            Self::PositionsRestarted => write!(f, "positions restart, or are counted wrongly"),
            Self::NothingFlows => write!(
                f,
                "no position moves another: no attention, or a mask that hides everything"
            ),
            Self::HidesTooMuch => write!(f, "the mask hides too much"),
            Self::PathsDiffer => write!(f, "the outputs differ from the plain path"),
            Self::Unknown => write!(f, "a pattern without a name here"),
        }
    }
}
