//! Looking by gradients: the derivative of an output by an input that is hidden from it is zero.
//!
//! One forward and backward pass asks one query in each row, since rows don't move each other. The
//! output is weighed with random numbers before it is summed: the plain sum of a normalised output
//! is constant, and its gradient vanishes even where there is a leak. The zero is exact on every
//! backend, and whatever dropout drew: a hidden key takes part with a weight of 0.

use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::input::ModelInput;
use super::look::{Looker, to_host};
use super::plan;
use crate::Result;

/// For each table of the promise, `[query, key]`: the largest derivative of the query by the key.
/// `None` if the model can't be differentiated by its input.
pub(super) fn gradients<I: ModelInput>(
    looker: &Looker<'_, I>,
    lanes: usize,
) -> Result<Option<Vec<Vec<f32>>>> {
    let (batch, length) = (looker.promise.batch(), looker.promise.length());
    let base = looker.base(0);
    let mut tables = vec![vec![0f32; length * length]; looker.promise.tables()];
    for pass in plan::gradient_passes(looker.promise, lanes) {
        let Some((input, leaf)) = looker.input(base.clone()).tracked() else { return Ok(None) };
        let (output, _) = (looker.run)(input);
        looker.count_pass();
        if !output.is_tracked() {
            return Ok(None);
        }
        let width = looker.width_of(&output)?;
        let mut weights = vec![0f32; batch * length * width];
        for &(row, query) in &pass {
            let mut rng = StdRng::seed_from_u64(looker.seed ^ (query as u64) << 8);
            let at = (row * length + query) * width;
            weights[at..at + width].fill_with(|| rng.random_range(-1.0..1.0));
        }
        let weights = TensorData::new(weights, [batch, length, width]);
        let gradients = (output * Tensor::from_data(weights, looker.device)).sum().backward();
        let Some(gradient) = leaf.grad(&gradients) else { return Ok(None) };

        let width = looker.size;
        let gradient = to_host(gradient); // [batch, length, width]
        for &(row, query) in &pass {
            let table = &mut tables[looker.promise.table_of(row)];
            for key in 0..length {
                let at = (row * length + key) * width;
                let cell = &mut table[query * length + key];
                *cell = gradient[at..at + width]
                    .iter()
                    .filter(|derivative| derivative.is_finite())
                    .fold(*cell, |most, derivative| most.max(derivative.abs()));
            }
        }
    }
    Ok(Some(tables))
}
