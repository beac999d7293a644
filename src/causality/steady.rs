//! How steady a leak is: whether the same cells leak for every input, and whether small inputs leak
//! too.
//!
//! A wrong order of positions leaks alike for every input. What comes and goes is a finite fill, which
//! only large scores fall below, or a choice, for which the size of what is compared does not matter.

use super::input::{Change, ModelInput};
use super::leaks::PathAnalysis;
use crate::Result;

/// Fresh inputs that are looked at, in every row of the batch.
const ROUNDS: usize = 3;

/// How often cells that leak once must leak to be called steady: a maximum is not moved by every
/// change, and a choice is moved by few.
const STEADY: f64 = 0.7;

/// How small a small input is, and how many are tried.
const SMALL: f32 = 1e-3;
const SMALL_INPUTS: usize = 12;

/// Rounds and passes that nothing else reaches.
const FRESH: usize = 1 << 16;

impl<I: ModelInput> PathAnalysis<'_, I> {
    /// Whether every input leaks at the same cells. `None` where rows are no samples of one thing.
    pub(super) fn is_always_the_same(&self) -> Result<Option<bool>> {
        if self.measured.rows_mixed || self.promise().is_row_bound() {
            return Ok(None);
        }
        let (length, batch) = (self.length(), self.promise().batch());
        let may_move = &self.promise().row(0).may_move;
        let mut times = vec![0usize; length * length];
        for round in 0..ROUNDS {
            let base = self.runner.base(FRESH + round);
            let old = self.runner.outputs(base.clone())?;
            for key in 0..length {
                let places: Vec<_> = (0..batch).map(|row| (row, key)).collect();
                let changed = self.runner.changed(&base, &places, Change::Random, FRESH + round);
                let new = self.runner.outputs(changed)?;
                for row in 0..batch {
                    for (query, (size, _)) in self.runner.moves(&old, &new, row).iter().enumerate()
                    {
                        if *size > self.tolerance() && !may_move.get(query, key) {
                            times[query * length + key] += 1;
                        }
                    }
                }
            }
        }
        let leaking: Vec<usize> = times.into_iter().filter(|&times| times > 0).collect();
        let all = (leaking.len() * ROUNDS * batch) as f64;
        let is_steady = leaking.iter().sum::<usize>() as f64 >= STEADY * all;
        Ok(Some(is_steady && !leaking.is_empty()))
    }

    /// Whether small inputs leak too, where inputs have a size.
    pub(super) fn leaks_when_small(&self) -> Result<bool> {
        if self.measured.rows_mixed {
            return Ok(false); // the rows would answer for each other
        }
        let small = |values: Vec<I::Value>| -> Option<Vec<I::Value>> {
            values.into_iter().map(|value| I::scaled(value, SMALL)).collect()
        };
        let (length, batch) = (self.length(), self.promise().batch());
        for round in 0..SMALL_INPUTS {
            let Some(base) = small(self.runner.base(FRESH + round)) else { return Ok(false) };
            let old = self.runner.outputs(base.clone())?;
            // All prefixes in turn.
            let query = round * (length - 1) / SMALL_INPUTS;
            let hidden = |row: usize| self.promise().row(row).hidden_from(query);
            let places: Vec<_> = (0..batch)
                .flat_map(|row| hidden(row).into_iter().map(move |key| (row, key)))
                .collect();
            let changed = self.runner.changed(&base, &places, Change::Random, FRESH + round);
            // Only what was changed is still large.
            let mut new = base;
            let numbers = I::numbers(self.runner.size);
            for (row, key) in places {
                let at = (row * length + key) * numbers;
                let Some(part) = small(changed[at..at + numbers].to_vec()) else {
                    return Ok(false);
                };
                new[at..at + numbers].copy_from_slice(&part);
            }
            let new = self.runner.outputs(new)?;
            let moved = |row: usize| self.runner.moves(&old, &new, row)[query].0;
            if (0..batch).any(|row| moved(row) > self.tolerance()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
