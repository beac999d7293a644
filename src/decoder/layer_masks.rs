//! What each layer of a stack sees of its own sequence, whatever the batch.

use crate::Result;
use crate::error::check_nonzero;
use crate::mask::{Mask, SequenceMask, SequenceMaskConfig};

/// The masks of a stack's layers. Layers with the same window share one, and with it what is made
/// of it for a batch.
#[derive(Clone, Debug)]
pub(super) struct LayerMasks {
    /// Each different mask.
    kinds: Vec<SequenceMask>,
    /// For each layer the index of its mask; begins again where it is shorter than the stack.
    layers: Vec<usize>,
}

impl LayerMasks {
    /// Of a stack with the mask `mask` in which layer `i` has the window `windows[i]`, if any.
    pub(super) fn new(mask: &SequenceMaskConfig, windows: &[Option<usize>]) -> Result<Self> {
        let mut known: Vec<Option<usize>> = Vec::new();
        let mut masks = Self { kinds: Vec::new(), layers: Vec::new() };
        for window in if windows.is_empty() { &[None] } else { windows } {
            let kind = match known.iter().position(|known| known == window) {
                Some(kind) => kind,
                None => {
                    known.push(*window);
                    masks.kinds.push(within(mask, *window)?);
                    known.len() - 1
                }
            };
            masks.layers.push(kind);
        }
        Ok(masks)
    }

    /// The different rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Mask> {
        self.kinds.iter().map(SequenceMask::rule)
    }

    /// The index of a layer's rule among [`rules`](Self::rules).
    pub(super) fn kind(&self, layer: usize) -> usize {
        self.layers[layer % self.layers.len()]
    }
}

/// The mask within the window of a layer. How far ahead a query sees is the mask's to say.
fn within(mask: &SequenceMaskConfig, window: Option<usize>) -> Result<SequenceMask> {
    let Some(keys) = window else { return mask.init() };
    check_nonzero("DecoderConfig::windows", keys)?;
    let window = Mask::look_around(keys - 1, usize::MAX);
    let rule = match &mask.rule {
        Some(rule) => rule & &window,
        None => window,
    };
    mask.clone().with_rule(Some(rule)).init()
}
