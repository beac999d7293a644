//! What is known of the rows of a batch.

use burn::tensor::Tensor;

use super::Positions;
use crate::Result;
use crate::mask::{Grid, LoweredMask, Mask};

/// What is known of the rows of a batch, apart from their tokens.
///
/// ```
/// use burn_decoder::sequence::Batch;
///
/// let batch = Batch::new().with_lengths([4, 2]); // the second row has 2 tokens and padding behind
/// ```
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Hides more than the model's own mask does: padding, other documents.
    pub mask: Option<Mask>,
    /// How the tokens are numbered.
    pub positions: Positions,
    /// What the cross-attention looks at, `[batch, keys, memory_dim]`, and which of it is visible.
    pub memory: Option<(Tensor<3>, Mask)>,
}

impl Batch {
    /// Rows without padding and without a memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows padded on the right: row `b` has `lengths[b]` tokens.
    #[must_use]
    pub fn with_lengths(self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.with_mask(Mask::lengths(lengths))
    }

    /// Rows padded on the left: row `b` begins with `counts[b]` padded places, and position 0 is
    /// the first token behind them. Sinks, prefixes and chunks of the masks count from there, too.
    #[must_use]
    pub fn with_pad_counts(mut self, counts: impl IntoIterator<Item = usize>) -> Self {
        let counts: Vec<usize> = counts.into_iter().collect();
        self.positions = Positions::LeftPadded(counts.clone());
        self.with_mask(Mask::pad_counts(counts))
    }

    /// Hides what `mask` hides, too. Several of them all apply.
    #[must_use]
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = Some(match self.mask {
            Some(before) => before & mask,
            None => mask,
        });
        self
    }

    /// Numbers the tokens by another rule than their index.
    #[must_use]
    pub fn with_positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Gives the cross-attention something to look at: `states [batch, keys, memory_dim]`, where
    /// `memory_dim` is `d_model` unless configured, of which each token sees what `mask` leaves
    /// visible. The first token stands on the first state.
    #[must_use]
    pub fn with_memory(mut self, states: Tensor<3>, mask: Mask) -> Self {
        self.memory = Some((states, mask));
        self
    }
}

impl Batch {
    /// What the rows see of themselves: what neither `own`, the model's mask, hides nor `more`, the
    /// batch's. Both count positions from the first token behind the padding.
    pub(crate) fn rule(&self, own: &Mask, more: Option<&Mask>) -> Result<Mask> {
        let rule = self.behind_pads(own)?;
        Ok(match (more, self.positions.pads()) {
            (Some(more), Some(pads)) => rule & more.behind_pads(pads),
            (Some(more), None) => rule & more.clone(),
            (None, _) => rule,
        })
    }

    /// The model's mask `own`, for these rows.
    pub(crate) fn behind_pads(&self, own: &Mask) -> Result<Mask> {
        let Some(pads) = self.positions.pads() else { return Ok(own.clone()) };
        own.check_by_position()?;
        Ok(own.behind_pads(pads))
    }

    /// What `queries` tokens behind `start` others see of the memory.
    pub(crate) fn memory_mask(
        &self,
        [batch, queries]: [usize; 2],
        start: usize,
    ) -> Result<Option<LoweredMask>> {
        let Some((states, mask)) = &self.memory else { return Ok(None) };
        let [_, keys, _] = states.dims();
        let grid = Grid::with_offset(batch, queries, keys, start as i64);
        let mask = match self.positions.pads() {
            Some(pads) => mask.with_queries_behind_pads(pads).lower(&grid)?,
            None => mask.lower(&grid)?,
        };
        Ok(Some(mask))
    }
}
