//! The module that hides the future.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};

use crate::Result;
use crate::mask::{Grid, Mask};

/// Configures a [`LookAheadMask`].
#[derive(Config, Debug, PartialEq, Eq)]
pub struct LookAheadMaskConfig {}

impl LookAheadMaskConfig {
    /// The module.
    pub fn init(&self) -> LookAheadMask {
        LookAheadMask {}
    }
}

/// Hides the future: [`Mask::look_ahead`].
#[derive(Module, Debug)]
pub struct LookAheadMask {}

impl LookAheadMask {
    /// The rule.
    pub fn forward(&self) -> Mask {
        Mask::look_ahead()
    }

    /// The dense mask, **true = hidden**: `[1, 1, queries, keys]`.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn hidden_tensor(&self, grid: &Grid, device: &Device) -> Result<Tensor<4, Bool>> {
        let hidden = self.forward().hidden_tensor(grid, device)?;
        Ok(hidden.expand([1, 1, grid.queries(), grid.keys()]))
    }

    /// [`LookAheadMask::hidden_tensor`] turned over, **true = visible**.
    ///
    /// # Errors
    ///
    /// As [`Mask::lower`].
    pub fn visible_tensor(&self, grid: &Grid, device: &Device) -> Result<Tensor<4, Bool>> {
        self.hidden_tensor(grid, device).map(Tensor::bool_not)
    }
}
