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
    /// The mask is applied to weights that were already normalised over hidden keys, or a softmax
    /// runs over the positions themselves.
    AppliedAfterSoftmax,
    /// Some of the attention heads do not apply the mask.
    SomeHeads {
        /// Their indices in the returned weights.
        heads: Vec<usize>,
    },
    /// Queries that should see no key see all of them: a finite fill, which a softmax over nothing
    /// but hidden keys turns into equal weights.
    DeadRows,
    /// Hidden keys are seen for some inputs and not for others, and not for small ones: scores below the
    /// mask's finite fill.
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
    /// Blocks of keys are seen whole, through a sum over the block: a pooled key, a chunk's state or a
    /// mean that is handed to positions of its own block, before the block is complete.
    BlockSummary {
        /// Keys in a block.
        keys: usize,
    },
    /// Only the last query of each block sees the first key of the next one: a comparison with the
    /// border of a chunk or tile that includes it.
    BlockBorders {
        /// Keys in a block.
        keys: usize,
    },
    /// The same number of keys is seen ahead as behind: a convolution or a window around its
    /// position, not behind it.
    CentredWindow {
        /// Keys seen on either side.
        reach: usize,
    },
    /// Single keys are seen by all queries before them: a prefix that is too long, a global or a
    /// pooled token.
    GlobalKeys {
        /// The keys.
        keys: Vec<usize>,
    },
    /// Only queries that weigh several keys see the future, all of it: it is mixed into the queries
    /// or keys before the masked attention, and not into the values.
    QueriesOrKeysMixed,
    /// Positions are added up by fixed weights, the future's too: an FFT, a convolution, a layer over
    /// the sequence axis, an attention without a softmax and without a mask.
    PositionsMixed,
    /// A sum that runs from the end of the sequence: a recurrence scanned backwards.
    ReversedScan,
    /// For some inputs hidden positions move an output, and that of any size: they take part in a
    /// choice (of an expert, of the largest keys, of what is retrieved or merged), whether or not
    /// their values are then passed on.
    ChoiceByOthers,
    /// For every input the same cells leak, in no other shape known here: a reshape, a repeat or a
    /// swap of axes puts later positions in earlier places.
    PositionsReordered,
    /// The first queries see the last keys: a shift that wraps around the end of the sequence.
    WrapsAround,
    /// What the cross-attention reads was computed from the target.
    MemoryHoldsTarget,
    /// The output that predicts a token sees this very token: neither labels nor inputs are shifted.
    TargetSeen,
    /// The loss of a token depends on later ones, as a sum or norm over the sequence makes it.
    LossOverSequence,
    /// The outputs depend on how many tokens follow: positions counted from the end, or scaled by
    /// the length.
    LengthSeen,
    /// Rows of the batch move each other: a reshape or a statistic over the batch axis.
    RowsMixed,
    /// Rows of the batch share a norm or another statistic.
    BatchStatistics,
    /// Rows of the batch are moved by those before them only: a state or a cache that one row hands
    /// to the next.
    CarriedBetweenRows,
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
    /// The same keys are seen but the outputs differ from some query on: positions that restart, or a
    /// part of a state that is not handed on.
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
            Self::OffByOne => write!(
                f,
                "off by one: each query sees one key too many per layer (a mask or a shift)"
            ),
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
            Self::BlockSummary { keys } => write!(
                f,
                "a sum over blocks of {keys} keys, seen inside its own block before it is complete"
            ),
            Self::BlockBorders { keys } => write!(
                f,
                "one key too many at the border of blocks of {keys} keys, and nowhere else"
            ),
            Self::CentredWindow { reach } => write!(
                f,
                "a convolution or window around its position, {reach} key(s) ahead and {reach} behind"
            ),
            Self::GlobalKeys { keys } => write!(
                f,
                "the key(s) {keys:?} are seen by all queries before them: a prefix too long, or a \
                 global token"
            ),
            Self::QueriesOrKeysMixed => write!(
                f,
                "positions are mixed into the queries or keys before the masked attention"
            ),
            Self::PositionsMixed => write!(
                f,
                "positions are added up without a mask: an FFT, a convolution, a layer over the \
                 sequence, or a sum over all keys"
            ),
            Self::ReversedScan => {
                write!(f, "a recurrence or sum that is scanned from the end of the sequence")
            }
            Self::ChoiceByOthers => write!(
                f,
                "a choice among positions that hidden ones take part in: experts that choose tokens, \
                 a capacity, the largest of all keys, a retrieval"
            ),
            Self::PositionsReordered => write!(
                f,
                "positions in another order: a reshape, a repeat or a swap of axes puts later ones in \
                 earlier places"
            ),
            Self::MemoryHoldsTarget => {
                write!(f, "what the cross-attention reads was computed from the target")
            }
            Self::TargetSeen => write!(
                f,
                "the output that predicts a token sees that token: labels or inputs are not shifted"
            ),
            Self::LossOverSequence => write!(
                f,
                "the loss of a token is normalised or weighted by something of later tokens"
            ),
            Self::LengthSeen => write!(
                f,
                "outputs depend on how many tokens follow: positions from the end, or scaled by the \
                 length"
            ),
            Self::BatchStatistics => {
                write!(f, "a norm, mean or other statistic over the rows of the batch")
            }
            Self::CarriedBetweenRows => {
                write!(f, "a state or cache that one row of the batch hands to the next")
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
            Self::PositionsRestarted => {
                write!(f, "positions restart or are counted wrongly, or a part of a state is lost")
            }
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
