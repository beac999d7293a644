//! Looking by gradients: the derivative of an output by an input that is hidden from it is zero.
//!
//! One forward and backward pass asks one query in each row, since rows don't move each other. The
//! output is weighed with random numbers before it is summed: the plain sum of a normalised output
//! is constant, and its gradient vanishes even where there is a leak. The zero is exact on every
//! backend, and whatever dropout drew: a hidden key takes part with a weight of 0.

use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::input::ModelInput;
use super::perturb::{PathRunner, size_of, to_host};
use super::schedule;
use crate::Result;

/// What the derivatives say.
pub(super) struct InputGradients {
    /// For each table of the promise, `[query, key]`: the largest derivative of the query by the key.
    pub tables: Vec<Vec<f32>>,
    /// The first row and query with a derivative by a hidden key that is not finite.
    pub not_finite: Option<(usize, usize)>,
}

/// `None` if the model can't be differentiated by its input.
pub(super) fn gradients<I: ModelInput>(
    runner: &PathRunner<'_, I>,
    lanes: usize,
) -> Result<Option<InputGradients>> {
    let (batch, length) = (runner.promise.batch(), runner.promise.length());
    let base = runner.base(0);
    let mut tables = vec![vec![0f32; length * length]; runner.promise.tables()];
    let mut not_finite: Option<(usize, usize)> = None;
    for pass in schedule::gradient_passes(runner.promise, lanes) {
        let Some((input, leaf)) = runner.input(base.clone()).tracked() else { return Ok(None) };
        let (output, _) = (runner.run)(input);
        runner.count_pass();
        if !output.is_tracked() {
            return Ok(None);
        }
        let width = runner.width_of(&output)?;
        let mut weights = vec![0f32; batch * length * width];
        for &(row, query) in &pass {
            let mut rng = StdRng::seed_from_u64(runner.seed ^ (query as u64) << 8);
            let at = (row * length + query) * width;
            weights[at..at + width].fill_with(|| rng.random_range(-1.0..1.0));
        }
        let weights = TensorData::new(weights, [batch, length, width]);
        let gradients = (output * Tensor::from_data(weights, runner.device)).sum().backward();
        let Some(gradient) = leaf.grad(&gradients) else { return Ok(None) };

        let width = runner.size;
        let gradient = to_host(gradient); // [batch, length, width]
        for &(row, query) in &pass {
            let table = &mut tables[runner.promise.table_of(row)];
            for key in 0..length {
                let at = (row * length + key) * width;
                let cell = &mut table[query * length + key];
                let derivatives = &gradient[at..at + width];
                let is_hidden = !runner.promise.row(row).may_move.get(query, key);
                if is_hidden && derivatives.iter().any(|x| !x.is_finite()) {
                    not_finite =
                        Some(not_finite.map_or((row, query), |first| first.min((row, query))));
                }
                *cell = derivatives
                    .iter()
                    .filter(|derivative| derivative.is_finite())
                    .fold(*cell, |most, &derivative| most.max(size_of(derivative)));
            }
        }
    }
    Ok(Some(InputGradients { tables, not_finite }))
}
