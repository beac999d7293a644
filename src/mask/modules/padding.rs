//! The module that hides pad tokens.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};

use crate::Result;
use crate::mask::{Grid, Mask};

/// Configures a [`PaddingMask`].
#[derive(Config, Debug, PartialEq, Eq)]
pub struct PaddingMaskConfig {
    /// The token id that stands for padding.
    pub pad_id: i64,
}

impl PaddingMaskConfig {
    /// The module.
    pub fn init(&self) -> PaddingMask {
        PaddingMask { pad_id: self.pad_id }
    }
}

/// Hides every token that equals the pad id, wherever it stands: [`Mask::padding`].
#[derive(Module, Debug)]
pub struct PaddingMask {
    pad_id: i64,
}

impl PaddingMask {
    /// The rule for these tokens, `[batch, keys]`.
    pub fn forward(&self, tokens: &Tensor<2, Int>) -> Mask {
        Mask::padding(tokens, self.pad_id)
    }

    /// The dense mask of these tokens on their device, **true = hidden**: `[batch, 1, 1, keys]`.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn hidden_tensor(&self, tokens: &Tensor<2, Int>) -> Result<Tensor<4, Bool>> {
        let [batch, keys] = tokens.dims();
        // Any number of queries will do, since padding depends on none.
        let lowered = self.forward(tokens).lower(&Grid::top_left(batch, 1, keys))?;
        let hidden = lowered.hidden_tensor(&tokens.device());
        Ok(hidden.expand([batch, 1, 1, keys]))
    }

    /// [`PaddingMask::hidden_tensor`] turned over, **true = visible**.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn visible_tensor(&self, tokens: &Tensor<2, Int>) -> Result<Tensor<4, Bool>> {
        self.hidden_tensor(tokens).map(Tensor::bool_not)
    }
}
