//! Position embeddings that are added to the token embeddings.
//!
//! - Sinusoidal (Vaswani et al. 2017, section 3.5), for position `p` and channels `2i`, `2i + 1`:
//!   `sin(p / 10000^(2i / d_model))`, `cos(p / 10000^(2i / d_model))`. No parameters, no limit.
//! - Learned: one parameter vector for each position below a capacity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::error::check_nonzero;
use crate::sequence::PositionIds;
use crate::{Error, Result};

/// Which position embedding a model adds to its tokens.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum PositionEmbeddingConfig {
    /// Computed. See the module for the formula.
    Sinusoidal {
        /// The longest wavelength divided by 2π: 10000 in the paper.
        base: f64,
    },
    /// Learned.
    Learned {
        /// The number of positions: a longer sequence is refused.
        capacity: usize,
        /// Standard deviation of the random start.
        std: f64,
        /// Rows of the table in front of position 0 that no position uses (BART has 2).
        offset: usize,
    },
}

impl PositionEmbeddingConfig {
    /// Sinusoidal as in the paper.
    pub fn sinusoidal() -> Self {
        Self::Sinusoidal { base: 10_000.0 }
    }

    /// Learned, started as GPT-2 does (standard deviation 0.02).
    pub fn learned(capacity: usize) -> Self {
        Self::Learned { capacity, std: 0.02, offset: 0 }
    }

    /// Builds the embedding.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a zero `d_model` or capacity, for sinusoids of an odd `d_model`, for a
    /// base that is not above 1, or for a standard deviation that is below 0 or not finite.
    pub fn init(&self, d_model: usize, device: &Device) -> Result<PositionEmbedding> {
        check_nonzero("d_model of a position embedding", d_model)?;
        match *self {
            Self::Sinusoidal { base } => {
                if !d_model.is_multiple_of(2) {
                    return Err(Error::Config {
                        field: "d_model of sinusoidal positions",
                        expected: "an even number, since channels pair up".into(),
                        got: d_model.to_string(),
                    });
                }
                if !(base.is_finite() && base > 1.0) {
                    return Err(Error::Config {
                        field: "PositionEmbeddingConfig::Sinusoidal::base",
                        expected: "a number above 1, 10000 for example".into(),
                        got: base.to_string(),
                    });
                }
                let table = SinusoidTable { d_model, base, rows: Arc::default() };
                Ok(PositionEmbedding::Sinusoidal(Sinusoidal { table }))
            }
            Self::Learned { capacity, std, offset } => {
                check_nonzero("PositionEmbeddingConfig::Learned::capacity", capacity)?;
                // Used as f32: what is finite as f64 alone would start the table with NaN.
                if !((std as f32).is_finite() && std >= 0.0) {
                    return Err(Error::Config {
                        field: "PositionEmbeddingConfig::Learned::std",
                        expected: "a number from 0 on, 0.02 for example".into(),
                        got: std.to_string(),
                    });
                }
                let initializer = Initializer::Normal { mean: 0.0, std };
                let table = EmbeddingConfig::new(offset + capacity, d_model)
                    .with_initializer(initializer)
                    .init(device);
                Ok(PositionEmbedding::Learned(Learned { table, offset }))
            }
        }
    }
}

/// A position embedding. Built by [`PositionEmbeddingConfig`].
#[derive(Module, Debug)]
pub enum PositionEmbedding {
    /// See [`PositionEmbeddingConfig::Sinusoidal`].
    Sinusoidal(Sinusoidal),
    /// See [`PositionEmbeddingConfig::Learned`].
    Learned(Learned),
}

/// Learned positions.
#[derive(Module, Debug)]
pub struct Learned {
    /// A row for each position, behind `offset` others: `[offset + capacity, d_model]`.
    pub table: Embedding,
    /// Rows in front of position 0.
    pub offset: usize,
}

impl PositionEmbedding {
    /// The vectors of the positions.
    ///
    /// # Shapes
    ///
    /// - output: `[batch or 1, queries, d_model]`
    ///
    /// # Errors
    ///
    /// [`Error::Positions`] if a position has no vector: learned positions end at their capacity.
    pub fn forward(&self, positions: &PositionIds, device: &Device) -> Result<Tensor<3>> {
        let shape = [positions.rows(), positions.queries()];
        match self {
            Self::Sinusoidal(sinusoidal) => {
                let values = sinusoidal.table.gather(positions);
                let shape = [shape[0], shape[1], sinusoidal.table.d_model];
                Ok(Tensor::from_data(TensorData::new(values, shape), device))
            }
            Self::Learned(Learned { table, offset }) => {
                let capacity = table.weight.shape()[0] - offset;
                if let Some(max) = positions.max().filter(|&max| max >= capacity) {
                    return Err(Error::Positions {
                        expected: format!(
                            "positions below {capacity}, the capacity of the learned positions"
                        ),
                        got: max.to_string(),
                    });
                }
                let row = |&id: &usize| (id + offset) as i64;
                let ids: Vec<i64> = positions.as_slice().iter().map(row).collect();
                let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), device);
                Ok(table.forward(ids))
            }
        }
    }
}

/// Sinusoidal positions: no parameters.
#[derive(Module, Debug)]
pub struct Sinusoidal {
    #[module(skip)]
    table: SinusoidTable,
}

/// The sinusoids of the positions asked for so far, on the host: sines are dear, copies are cheap.
/// Computed in f64, since in f32 the angle of a late position is off by more than the result's
/// rounding, and the same for every backend.
#[derive(Clone, Debug)]
struct SinusoidTable {
    d_model: usize,
    base: f64,
    /// The row of each position that was asked for.
    rows: Arc<Mutex<HashMap<usize, Arc<[f32]>>>>,
}

/// Positions whose rows are kept; those of others are computed each time.
const KEPT_ROWS: usize = 1 << 16;

impl SinusoidTable {
    /// `[rows, queries, d_model]`, row-major
    fn gather(&self, positions: &PositionIds) -> Vec<f32> {
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = Vec::with_capacity(positions.as_slice().len() * self.d_model);
        for &position in positions.as_slice() {
            match known.get(&position) {
                Some(row) => values.extend_from_slice(row),
                None => {
                    let start = values.len();
                    values.extend((0..self.d_model).step_by(2).flat_map(|channel| {
                        let share = channel as f64 / self.d_model as f64;
                        let angle = position as f64 / self.base.powf(share);
                        [angle.sin() as f32, angle.cos() as f32]
                    }));
                    if known.len() < KEPT_ROWS {
                        known.insert(position, values[start..].into());
                    }
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Positions;

    #[test]
    fn a_spread_that_is_no_number_is_refused() {
        for std in [f64::NAN, f64::INFINITY, 1e300, -0.5] {
            let config = PositionEmbeddingConfig::Learned { capacity: 3, std, offset: 0 };
            let error = config.init(2, &Device::default()).unwrap_err().to_string();
            assert!(error.contains("Learned::std"), "{error}");
            assert!(error.contains(&std.to_string()), "{error}");
        }
    }

    /// A late position costs what an early one does, and keeps as much.
    #[test]
    fn only_the_rows_that_are_asked_for_are_kept() {
        let table = SinusoidTable { d_model: 4, base: 10_000.0, rows: Arc::default() };
        let last = usize::MAX;
        let positions = Positions::Listed(vec![vec![0, 5_000_000, last]]).ids(1, 0, 3).unwrap();
        let values = table.gather(&positions);
        assert_eq!(values.len(), 3 * 4);
        assert_eq!(values[..4], [0.0, 1.0, 0.0, 1.0]);
        for (channel, angle) in [(0, 5_000_000.0f64), (2, 50_000.0)] {
            let expected = [angle.sin() as f32, angle.cos() as f32];
            assert_eq!(values[4 + channel..][..2], expected);
        }
        assert_eq!(table.rows.lock().unwrap().len(), 3);
        assert_eq!(table.gather(&positions), values);
    }
}
