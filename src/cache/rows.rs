//! What is known of the rows of the batch: who they are, how long, how numbered, what they hide.

use burn::tensor::{Device, Int, Tensor};

use super::{misuse, store};
use crate::Result;
use crate::decoder::{LanguageModelInput, Positions};
use crate::error::CacheMisuse;
use crate::mask::Mask;

/// What is known of the rows of the batch.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub device: Device,
    pub batch: usize,
    /// Number of tokens, the same in every row; left padding is in it.
    pub tokens: usize,
    /// What is hidden beside what the model itself hides.
    pub mask: Option<Mask>,
    pub positions: Positions,
    pub memory: Option<(Tensor<3>, Mask)>,
    /// The tokens themselves, for the checks.
    pub history: Option<Tensor<2, Int>>,
    pub passes: usize,
}

impl Rows {
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

    /// What the input leaves out has been said by an earlier pass.
    pub fn complete(&self, input: &mut LanguageModelInput) -> Result<()> {
        if input.memory.is_some() && self.passes > 0 {
            return misuse(
                CacheMisuse::Memory,
                "none, since the first pass gave it and its keys are kept".into(),
                "states".into(),
            );
        }
        if input.positions == Positions::Index {
            input.positions = self.positions.clone();
        }
        if self.passes > 0 && input.positions.pads() != self.positions.pads() {
            return misuse(
                CacheMisuse::Padding,
                format!("pad counts {:?}, as in the first pass", self.positions.pads()),
                format!("{:?}", input.positions.pads()),
            );
        }
        if input.mask.is_none() {
            input.mask = self.mask.clone();
        }
        if input.memory.is_none() {
            input.memory = self.memory.clone();
        }
        Ok(())
    }

    pub fn history_with(&self, new: Tensor<2, Int>) -> Tensor<2, Int> {
        match &self.history {
            Some(history) => Tensor::cat(vec![history.clone(), new], 1),
            None => new,
        }
    }

    pub fn select(&mut self, rows: &[usize]) {
        self.mask = self.mask.as_ref().map(|mask| mask.select_rows(rows));
        self.positions = self.positions.select_rows(rows);
        self.memory = self
            .memory
            .take()
            .map(|(states, mask)| (store::select(states, rows), mask.select_rows(rows)));
        self.history = self.history.take().map(|history| store::select(history, rows));
        self.batch = rows.len();
    }
}
