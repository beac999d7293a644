//! The memory: what a cross-attention reads is seen by every query, so nothing of the target may be in
//! it.

use burn::tensor::Tensor;

use super::diagnosis::Diagnosis;
use super::input::{Change, ModelInput};
use super::leaks::PathAnalysis;
use super::perturb::{largest_move, to_host};
use super::report::Leak;
use super::schedule::Way;
use crate::Result;

/// A pass number that the measurements do not reach.
const FRESH_PASS: usize = 1 << 21;

/// The first position, but for the first query's own, that moves the memory.
pub(super) fn leak<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    memory: &dyn Fn(I) -> Tensor<3>,
) -> Result<Option<Leak>> {
    let (runner, batch) = (path.runner, path.promise().batch());
    let (base, _) = &path.measured.bases[0];
    let of = |values| {
        runner.count_pass();
        let memory = memory(runner.input(values));
        let width = memory.dims().iter().skip(1).product::<usize>();
        (to_host(memory), width)
    };
    let (old, width) = of(base.clone());
    let noise = largest_move(&old, &of(base.clone()).0).0;
    for key in 1..path.length() {
        for change in [Change::Random, Change::Extreme] {
            let places: Vec<_> = (0..batch).map(|row| (row, key)).collect();
            let new = of(runner.changed(base, &places, change, FRESH_PASS)).0;
            for row in 0..batch {
                let at = row * width..(row + 1) * width;
                let (size, _) = largest_move(&old[at.clone()], &new[at]);
                if size > 4.0 * noise {
                    return Ok(Some(Leak {
                        path: path.path.clone(),
                        way: Way::Memory,
                        row,
                        query: 0,
                        key_row: row,
                        key,
                        size,
                        diagnosis: Diagnosis::MemoryHoldsTarget,
                    }));
                }
            }
        }
    }
    Ok(None)
}
