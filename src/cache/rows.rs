//! What is known of the rows of the batch: who they are, how long, how numbered, what they hide.

use burn::tensor::{Device, Int, Tensor};

use super::{buffer, misuse};
use crate::Result;
use crate::error::CacheMisuse;
use crate::sequence::{Batch, Positions};

/// What is known of the rows of the batch.
#[derive(Clone, Debug)]
pub(super) struct KnownRows {
    pub device: Device,
    pub batch: usize,
    /// Number of tokens, the same in every row; left padding is in it.
    pub tokens: usize,
    /// What the passes said of them; its mask is that for the whole of the rows.
    pub known: Batch,
    /// What was known before the present pass, while this says something else and has not ended.
    pub before: Option<Batch>,
    /// The tokens themselves, for the checks.
    pub history: Option<Tensor<2, Int>>,
    pub passes: usize,
}

impl KnownRows {
    pub fn check(&self, batch: usize, device: &Device) -> Result<()> {
        if batch != self.batch {
            return misuse(
                CacheMisuse::Batch,
                format!("{} rows, as in the first pass", self.batch),
                batch.to_string(),
            );
        }
        if *device != self.device {
            return misuse(
                CacheMisuse::Device,
                format!("tensors on {:?}, as in the first pass", self.device),
                format!("{device:?}"),
            );
        }
        Ok(())
    }

    /// What is known once this is said, or `None` if nothing is said. What it leaves out has been said
    /// by an earlier pass.
    pub fn completed(&self, said: Batch) -> Result<Option<Batch>> {
        if said.memory.is_some() {
            return misuse(
                CacheMisuse::Memory,
                "none, since the first pass gave it and its keys are kept".into(),
                "states".into(),
            );
        }
        if said.mask.is_none() && said.positions == Positions::Index {
            return Ok(None);
        }
        let positions = match said.positions {
            Positions::Index => self.known.positions.clone(),
            stated => stated,
        };
        if positions.pads() != self.known.positions.pads() {
            return misuse(
                CacheMisuse::Padding,
                format!("pad counts {:?}, as in the first pass", self.known.positions.pads()),
                format!("{:?}", positions.pads()),
            );
        }
        let mask = said.mask.or_else(|| self.known.mask.clone());
        Ok(Some(Batch { mask, positions, memory: self.known.memory.clone() }))
    }

    /// Forgets what a pass said that did not come to its end.
    pub fn take_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.known = before;
        }
    }

    pub fn history_with(&self, new: Tensor<2, Int>) -> Tensor<2, Int> {
        match &self.history {
            Some(history) => Tensor::cat(vec![history.clone(), new], 1),
            None => new,
        }
    }

    pub fn select(&mut self, rows: &[usize]) {
        self.take_back();
        let Batch { mask, positions, memory } = std::mem::take(&mut self.known);
        self.known = Batch {
            mask: mask.map(|mask| mask.select_rows(rows)),
            positions: positions.select_rows(rows),
            memory: memory
                .map(|(states, mask)| (buffer::select(states, rows), mask.select_rows(rows))),
        };
        self.history = self.history.take().map(|history| buffer::select(history, rows));
        self.batch = rows.len();
    }
}
