//! In how many bits a cache keeps what it keeps.

use burn::config::Config;
use burn::tensor::{DType, Device};

use crate::kernels::{Coding, Kept};
use crate::{Error, Result};

/// In what precision a [`KvCache`](super::KvCache) keeps keys and values.
///
/// They are rounded when they come, each row (one token of one head) by itself, and attention reads
/// them as they lie: it converts a tile at a time and computes in f32, whatever they are kept in.
/// What is rounded is what every pass sees, the one that brings it included.
///
/// | | bytes a number | off by at most | on |
/// |---|---|---|---|
/// | [`AsComputed`](Self::AsComputed) | 4 in f32 | nothing | every device |
/// | [`F16`](Self::F16) | 2 | 1/2048 of it | CPU devices, and others that have f16 |
/// | [`Bf16`](Self::Bf16) | 2 | 1/256 of it | CPU devices, and others that have bf16 |
/// | [`Q8_0`](Self::Q8_0) | 1.0625 | 1/254 of the largest in its block | CPU devices |
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum CachePrecision {
    /// As the model computes them.
    AsComputed,
    /// f16. What lies beyond 65504 becomes infinite.
    F16,
    /// bf16, of the range of f32.
    Bf16,
    /// Blocks of 32 numbers along a head's width, each number an int8 times the block's f16 scale;
    /// ggml's format of that name. The last block is shorter where 32 does not divide the width, and
    /// its scale counts as two bytes, too. A block with a number that is not finite, or beyond 8.3e6,
    /// becomes NaN.
    Q8_0,
}

impl CachePrecision {
    pub(super) fn coding(self) -> Option<Coding> {
        match self {
            Self::AsComputed => None,
            Self::F16 => Some(Coding::F16),
            Self::Bf16 => Some(Coding::Bf16),
            Self::Q8_0 => Some(Coding::Q8_0),
        }
    }

    /// What a file has of numbers that were computed in `dtype`, `width` of them in a row: their type,
    /// and how many of it.
    pub(super) fn in_file(self, dtype: DType, width: usize) -> (DType, usize) {
        let Some(coding) = self.coding() else { return (dtype, width) };
        (coding.float().unwrap_or(coding.codes()), coding.row_len(width))
    }

    /// The distance from 1 to the next number, or of what comes nearest to it.
    pub(super) fn epsilon(self) -> Option<f64> {
        match self {
            Self::AsComputed => None,
            Self::F16 => Some(1.0 / 1024.0),
            Self::Bf16 | Self::Q8_0 => Some(1.0 / 128.0),
        }
    }

    /// An error unless it can be kept on `device`.
    pub(super) fn check(self, device: &Device) -> Result<()> {
        if self.coding().is_none_or(|coding| Kept::can_be_on(device, coding)) {
            return Ok(());
        }
        Err(Error::Config {
            field: "CacheConfig::precision",
            expected: "one that the model's device keeps, CachePrecision::AsComputed for example"
                .into(),
            got: format!("{self:?} on {device:?}"),
        })
    }
}
