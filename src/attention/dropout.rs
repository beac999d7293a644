//! Dropout of attention weights as tensors, for kernels that store the weights anyway.

use burn::tensor::{Bool, DType, Device, Distribution, Int, IntDType, Tensor, TensorData};

use super::Score;
use crate::kernels::{self, SeededDropout};

/// Dropout that takes place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dropout {
    /// Decided by a seed, the same on every device and with every kernel.
    Seeded(SeededDropout),
    /// Decided by the device's own random numbers.
    Random {
        /// In `(0, 1)`.
        probability: f64,
    },
}

impl Dropout {
    /// None unless asked for, and on an autodiff device: elsewhere there is nothing to train.
    pub(super) fn of(score: &Score, query: &Tensor<4>) -> Option<Self> {
        let probability = score.dropout;
        if probability == 0.0 || !query.device().is_autodiff() {
            return None;
        }
        Some(match score.dropout_seed {
            Some(seed) => Self::Seeded(SeededDropout { probability, seed }),
            None => Self::Random { probability },
        })
    }

    /// What the weights that stay are multiplied by.
    pub(super) fn scale(&self) -> f64 {
        match self {
            Self::Seeded(dropout) => dropout.scale(),
            Self::Random { probability } => 1.0 / (1.0 - probability),
        }
    }

    /// The same, decided by a seed: its own, or one drawn from the device's random numbers. On a GPU
    /// what was drawn stays there, for the kernel to make the seed of: nobody waits for it.
    pub(super) fn for_kernel(self, device: &Device) -> (SeededDropout, Option<Tensor<1, Int>>) {
        let probability = match self {
            Self::Seeded(dropout) => return (dropout, None),
            Self::Random { probability } => probability,
        };
        // 16 bits a number: an f32 holds them exactly.
        let device = device.clone().without_autodiff();
        let draws = Distribution::Uniform(0.0, 65536.0);
        let draws = Tensor::<1>::random([4], draws, (&device, DType::F32));
        if !kernels::supports(&device, DType::F32) {
            let draws = draws.int().cast(IntDType::I32);
            return (SeededDropout { probability, seed: 0 }, Some(draws));
        }
        let draws = draws.into_data();
        let seed = draws.iter::<f32>().fold(0, |seed, draw| seed << 16 | draw as u64);
        (SeededDropout { probability, seed }, None)
    }

    /// Sets the dropped entries of `weights`, `[batch, heads, queries, keys]`, to exactly 0. The
    /// others stay as they are: the caller scales the product with the values, which is smaller.
    pub(super) fn drop(&self, weights: Tensor<4>) -> Tensor<4> {
        let dropped = self.dropped(&weights);
        weights.mask_fill(dropped, 0.0)
    }

    fn dropped(&self, weights: &Tensor<4>) -> Tensor<4, Bool> {
        let device = weights.device();
        let shape @ [batch, heads, queries, keys] = weights.dims();
        match self {
            Self::Seeded(dropout) => {
                let threshold = dropout.threshold();
                let mut dropped = Vec::with_capacity(batch * heads * queries * keys);
                for row in 0..batch * heads * queries {
                    let (head, query) = (row / queries, row % queries);
                    let bits = dropout.row(head / heads, head % heads, query);
                    dropped.extend((0..keys as u32).map(|key| bits.bits(key) < threshold));
                }
                Tensor::from_data(TensorData::new(dropped, shape), &device)
            }
            Self::Random { probability } => {
                let distribution = Distribution::Bernoulli(*probability);
                let ones = Tensor::<4>::random(shape, distribution, (&device, weights.dtype()));
                ones.greater_scalar(0.5)
            }
        }
    }
}
