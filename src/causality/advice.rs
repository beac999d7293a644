//! Advice: what to look at, for each name, in words for one who meets a leak for the first time.

use super::diagnosis::Diagnosis;

impl Diagnosis {
    /// Where to look in the code, in a sentence or two.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::OffByOne => {
                "Compare `key > query` with `key >= query` where the mask is made, and the padding of \
                 convolutions: a causal one of k taps pads k - 1 positions on the left and none on \
                 the right."
            }
            Self::WrongAlignment { .. } => {
                "Queries and keys differ in number, or a shift has the wrong size. With a past, query \
                 i stands at position past + i: say so to the mask."
            }
            Self::MaskInverted => {
                "Burn's masks say true where a key is hidden; PyTorch's attention says true where it \
                 is visible. Or rows and columns of the mask were swapped."
            }
            Self::MaskMissing => {
                "Look for an attention that is called without its mask, for a mask that is added as 0 \
                 and 1 instead of 0 and minus infinity, and for layers that read the sequence from \
                 both sides (a bidirectional recurrence, a norm over time)."
            }
            Self::AppliedAfterSoftmax => {
                "Hide the scores before the softmax, not the weights after it, and run the softmax of \
                 a gate over the experts, not over the positions."
            }
            Self::SomeHeads { .. } => {
                "The mask has an axis for heads, and not every head got it: look at the broadcast."
            }
            Self::DeadRows => {
                "A query that sees nothing should put out 0. A finite fill such as -1e4 gives all \
                 hidden keys equal weights instead."
            }
            Self::FiniteFill => {
                "Fill hidden scores with minus infinity. Scores can fall below -1e4 or -1e9, and then \
                 the hidden keys win."
            }
            Self::SequenceStatistics => {
                "Look for a mean, variance, norm, maximum or scale that is taken over the axis of \
                 positions. A norm belongs on the last axis; instance norm and squeeze-and-excite over \
                 time see the future."
            }
            Self::PaddingSeen => "Give the lengths, or the padding mask, to every attention.",
            Self::DocumentsMixed => "Give the document ids to every attention of a packed batch.",
            Self::WindowTooWide { .. } | Self::WindowTooNarrow { .. } => {
                "Libraries count windows in two ways: with the query's own key, or without it."
            }
            Self::WithinBlocks { .. } => {
                "Between blocks the order is kept, inside them it is not. Look at kernels that mask by \
                 tiles, at several new tokens that enter a cache in one call, at the verification of \
                 drafted tokens: each needs look-ahead among themselves. A scale or a maximum over a \
                 block shows in the same way."
            }
            Self::BlockSummary { .. } => {
                "A block's mean or state may be used from the block after it on. Shift the summaries \
                 by one block before they are handed back to the positions."
            }
            Self::BlockBorders { .. } => {
                "Compare `<` with `<=` where a chunk, tile or page ends: its last query may see its own \
                 position and not the next one."
            }
            Self::CentredWindow { .. } => {
                "\"Same\" padding centres a convolution. Pad (k - 1) * dilation positions on the left \
                 and none on the right."
            }
            Self::GlobalKeys { .. } => {
                "A prefix, a global or a summary token may be seen by all only if it was computed from \
                 nothing that follows."
            }
            Self::QueriesOrKeysMixed => {
                "The mask of the attention is right, but what it compares is not: look at filters, \
                 convolutions, norms and pooling between the projections and the scores."
            }
            Self::PositionsMixed => {
                "Look for a transform or a linear layer over the axis of positions. It must be lower \
                 triangular; a filter by FFT must be zero at negative lags, and padded to twice the \
                 length."
            }
            Self::ReversedScan => {
                "The scan starts at the last position. Look for a flip that is not undone, or for a \
                 suffix sum in place of a prefix sum."
            }
            Self::ChoiceByOthers => {
                "Experts that choose tokens, a capacity that drops by score, the largest k of all keys \
                 chosen before the mask, buckets that are sorted, and a retrieval from the own row all \
                 compare a token with later ones. Let each token choose for itself and among what came \
                 before it, and give places in the order of positions."
            }
            Self::PositionsReordered => {
                "Look at every reshape, repeat and swap of axes between the embedding and the scores. \
                 Heads are repeated along the axis of heads, and `[batch, length, heads, width]` is \
                 swapped to `[batch, heads, length, width]`, never reshaped to it."
            }
            Self::WrapsAround => {
                "A roll moves the last positions to the front: fill what comes in with zeros. A \
                 circular convolution needs padding."
            }
            Self::RowsMixed => {
                "Look for a reshape that joins the batch with another axis in the wrong order, and for a mean \
                 or a norm over the axis of the batch."
            }
            Self::BatchStatistics => {
                "Batch norm in training mode and a quantisation scale for the whole tensor depend on \
                 every row, and on every position of it."
            }
            Self::CarriedBetweenRows => {
                "Each row of the batch needs a state, and a cache, of its own, empty at its start."
            }
            Self::MemoryHoldsTarget => {
                "The encoder has read the target. Feed it the source alone; in packed sequences, the \
                 source's part alone."
            }
            Self::TargetSeen => {
                "Either the output at t predicts token t + 1 (shift the labels by one), or the inputs \
                 are shifted to the right by one and the output at t predicts token t."
            }
            Self::LossOverSequence => {
                "Look for a softmax, a norm or a weight over the axis of positions in the loss. A \
                 division of the whole loss by the number of tokens is fine."
            }
            Self::LengthSeen => {
                "In generation the end is not known. Count positions from the start, and scale them \
                 by a constant, not by the length of the input."
            }
            Self::Rounding => {
                "Hidden keys take part in a sum or a maximum, at the level of rounding. It carries no \
                 information that training could use."
            }
            Self::KeyLost { .. } | Self::KeyRepeated { .. } => {
                "Look at how the cache counts its positions when several tokens come at once."
            }
            Self::TokenHidden { .. } => {
                "A real token has the pad id. Say the padding by lengths instead."
            }
            Self::PositionsRestarted => {
                "With a cache, the positions of new tokens go on where the past ends; with a state, all of it \
                 is handed on, that of a convolution too."
            }
            Self::NothingFlows => {
                "Look for a mask that hides everything, or a gate that is closed."
            }
            Self::HidesTooMuch => "Look at the mask's size and polarity.",
            Self::PathsDiffer => "Compare both paths layer by layer.",
            Self::Unknown => "Look at the picture of who moves whom.",
        }
    }
}
