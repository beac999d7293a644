//! What a [`LanguageModel`](super::LanguageModel) is told apart from the tokens.

use burn::tensor::Tensor;

use super::Positions;
use crate::Result;
use crate::attention::Kernel;
use crate::mask::{Grid, LoweredMask, Mask};

/// What a [`LanguageModel`](super::LanguageModel) is told apart from the tokens.
#[derive(Clone, Debug, Default)]
pub struct LanguageModelInput {
    /// Hides more than the model's own mask does: padding, other documents.
    pub mask: Option<Mask>,
    /// How the tokens are numbered.
    pub positions: Positions,
    /// What the cross-attention looks at, `[batch, keys, memory_dim]`, and which of it is visible.
    pub memory: Option<(Tensor<3>, Mask)>,
    /// Whether to return the attention weights.
    pub weights: bool,
    /// Which kernel computes the attention.
    pub kernel: Kernel,
    /// Takes the tokens as they are. See [`LanguageModelInput::with_unchecked_tokens`].
    pub unchecked_tokens: bool,
    /// Scores what comes after the last token of each row only.
    pub last_logits_only: bool,
}

impl LanguageModelInput {
    /// Rows without padding, no memory, no weights, the kernel chosen by device.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows padded on the right: row `b` has `lengths[b]` tokens.
    pub fn with_lengths(self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.with_mask(Mask::lengths(lengths))
    }

    /// Rows padded on the left: row `b` begins with `counts[b]` padded places, and position 0 is
    /// the first token behind them. Sinks, prefixes and chunks of the masks count from there, too.
    pub fn with_pad_counts(mut self, counts: impl IntoIterator<Item = usize>) -> Self {
        let counts: Vec<usize> = counts.into_iter().collect();
        self.positions = Positions::LeftPadded(counts.clone());
        self.with_mask(Mask::pad_counts(counts))
    }

    /// Hides what `mask` hides, too. Several of them all apply.
    pub fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = Some(match self.mask {
            Some(before) => before & mask,
            None => mask,
        });
        self
    }

    /// Numbers the tokens by another rule than their index.
    pub fn with_positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Gives the cross-attention something to look at: `states [batch, keys, memory_dim]`, where
    /// `memory_dim` is `d_model` unless configured, of which
    /// each token sees what `mask` leaves visible. The first token stands on the first state.
    pub fn with_memory(mut self, states: Tensor<3>, mask: Mask) -> Self {
        self.memory = Some((states, mask));
        self
    }

    /// Asks for the attention weights of every layer and head.
    pub fn with_weights(mut self, weights: bool) -> Self {
        self.weights = weights;
        self
    }

    /// Names the attention kernel, to compare one with another.
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// Does not look whether every token is in the vocabulary.
    ///
    /// The look is cheap on a CPU. On a GPU it waits until the device has done all its work, which
    /// a training loop with tokens of its own making can spare itself.
    pub fn with_unchecked_tokens(mut self) -> Self {
        self.unchecked_tokens = true;
        self
    }

    /// Scores what comes after the last token of each row, and nothing else: `logits` are
    /// `[batch, 1, vocab_size]`. To generate behind a long prompt, no more is needed.
    pub fn with_last_logits_only(mut self) -> Self {
        self.last_logits_only = true;
        self
    }
}

impl LanguageModelInput {
    /// What the rows see of themselves: what neither the model's own mask hides nor the input's.
    /// Both count positions from the first token behind the padding.
    pub(super) fn rule(&self, own: &Mask) -> Result<Mask> {
        let rule = self.behind_pads(own)?;
        Ok(match (&self.mask, self.positions.pads()) {
            (Some(more), Some(pads)) => rule & more.behind_pads(pads),
            (Some(more), None) => rule & more.clone(),
            (None, _) => rule,
        })
    }

    /// The model's own mask, for these rows.
    pub(super) fn behind_pads(&self, own: &Mask) -> Result<Mask> {
        let Some(pads) = self.positions.pads() else { return Ok(own.clone()) };
        own.check_by_position()?;
        Ok(own.behind_pads(pads))
    }

    /// The memory, and what `queries` tokens behind `start` others see of it.
    pub(super) fn memory_of(
        &self,
        [batch, queries]: [usize; 2],
        start: usize,
    ) -> Result<Option<(Tensor<3>, LoweredMask)>> {
        let Some((states, mask)) = &self.memory else { return Ok(None) };
        let [_, keys, _] = states.dims();
        let grid = Grid::with_offset(batch, queries, keys, start as i64);
        let mask = match self.positions.pads() {
            Some(pads) => mask.with_queries_behind_pads(pads).lower(&grid)?,
            None => mask.lower(&grid)?,
        };
        Ok(Some((states.clone(), mask)))
    }
}
