//! What the layers of a stack are told of one pass, made once from what is known of the rows.

use burn::tensor::Tensor;

use super::layer::LayerPass;
use super::{Decoder, Memory};
use crate::attention::PassAngles;
use crate::cache::LayerCache;
use crate::mask::{Grid, LoweredMask, Mask};
use crate::sequence::{Batch, PositionIds};
use crate::{Error, Result};

/// What all layers of a pass see, and where its tokens stand.
pub(super) struct PassView {
    /// For each different rule of the stack.
    masks: Vec<LoweredMask>,
    positions: PositionIds,
    memory: Option<(Tensor<3>, LoweredMask)>,
}

/// Which tokens of the rows a pass is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenRange {
    /// Number of rows.
    pub rows: usize,
    /// Number of tokens before them, in each row.
    pub start: usize,
    /// Number of tokens, in each row.
    pub new: usize,
}

impl Decoder {
    /// What a pass without a past sees.
    pub(super) fn view_of_all(&self, batch: &Batch, [rows, new]: [usize; 2]) -> Result<PassView> {
        let grid = Grid::square(rows, new);
        self.view(batch, batch.mask.as_ref(), TokenRange { rows, start: 0, new }, |_| &grid)
    }

    /// What a pass sees of its keys, which stand where `grid(layer)` says, and of its memory. `mask`
    /// hides more than the layers' own.
    pub(super) fn view<'a>(
        &self,
        batch: &Batch,
        mask: Option<&Mask>,
        TokenRange { rows, start, new }: TokenRange,
        grid: impl Fn(usize) -> &'a Grid,
    ) -> Result<PassView> {
        self.check_memory(batch)?;
        let layer_of = |kind| (0..self.layers.len()).find(|&i| self.masks.kind(i) == kind);
        let masks = self
            .masks
            .rules()
            .enumerate()
            .map(|(kind, own)| batch.rule(own, mask)?.lower(grid(layer_of(kind).unwrap_or(0))));
        let memory = batch.memory_mask([rows, new], start)?;
        Ok(PassView {
            masks: masks.collect::<Result<_>>()?,
            positions: batch.positions.ids(rows, start, new)?,
            memory: batch.memory.as_ref().map(|(states, _)| states.clone()).zip(memory),
        })
    }

    /// The parts of a pass, one for each layer; with a past if there is one.
    pub(super) fn parts<'a>(
        &self,
        view: &'a PassView,
        past: &'a mut [LayerCache],
    ) -> Vec<LayerPass<'a>> {
        let mut past = past.iter_mut();
        let memory = view.memory.as_ref().map(|(states, mask)| Memory { states, mask });
        let mut angles = PassAngles::new(Some(&view.positions), view.masks[0].grid());
        let part = |(i, layer): (usize, &super::DecoderLayer)| LayerPass {
            mask: &view.masks[self.masks.kind(i)],
            angles: layer.self_attention.angles(&mut angles),
            memory,
            past: past.next(),
        };
        self.layers.iter().enumerate().map(part).collect()
    }

    /// An error unless there is a memory exactly if a layer looks at one.
    fn check_memory(&self, batch: &Batch) -> Result<()> {
        let needed = self.layers.iter().any(|layer| layer.cross_attention.is_some());
        let refuse = |expected: &str, got: &str| {
            Err(Error::Input { input: "memory", expected: expected.into(), got: got.into() })
        };
        match (needed, batch.memory.is_some()) {
            (true, false) => refuse("states for the cross-attention to look at", "none"),
            (false, true) => refuse("none, since no layer has cross-attention", "states"),
            _ => Ok(()),
        }
    }
}

impl PassView {
    /// The mask of each different rule.
    pub(super) fn masks(&self) -> &[LoweredMask] {
        &self.masks
    }
}
