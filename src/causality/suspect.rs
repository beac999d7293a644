//! Suspects: a few more passes tell apart what the influence matrix can't.
//!
//! Many flaws show every position to every other one, or some of them now and then. They can be told
//! apart by how an output moves:
//!
//! - a mean, variance or maximum over positions stays as it is when each feature is shuffled among
//!   them by itself;
//! - where hidden keys only take part in a softmax's sum, they shrink or stretch what the query
//!   reads and can't turn it: small changes move the output along one line;
//! - where positions are added up with fixed weights, two changes together move the output by the
//!   sum of what each does alone; a softmax couples them. A layer over the sequence axis alone
//!   moves no other feature than the one that was changed;
//! - where hidden positions only take part in a choice, the output has a few values to choose from,
//!   and comes back to the same one to the last bit.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::diagnosis::Diagnosis;
use super::input::{Change, ModelInput};
use super::perturb::{Outputs, PathRunner, largest_move};
use crate::Result;

/// Small changes tried, and their size.
const NUDGES: usize = 8;
const NUDGE: f32 = 0.01;

/// Inputs that are looked at.
const BASES: usize = 4;

/// Changes of each that are tried where an output moves now and then.
const CHOICES: usize = 16;

/// Ids enough that two random ones are seldom the same.
const MANY_IDS: usize = 256;

/// A pass number that the measurements do not reach, so that its changes are fresh.
const FRESH_PASS: usize = 1 << 20;

/// An output that was seen to move, and what moved it.
pub(super) struct Suspect<'a, I: ModelInput> {
    pub runner: &'a PathRunner<'a, I>,
    /// The unchanged inputs and outputs.
    pub base: &'a [I::Value],
    pub old: &'a Outputs,
    pub row: usize,
    pub query: usize,
    /// The positions `(row, key)` that moved it.
    pub places: Vec<(usize, usize)>,
}

impl<I: ModelInput> Suspect<'_, I> {
    /// The name of a leak that the influence matrix calls `seen`.
    pub fn name(&self, seen: Diagnosis) -> Result<Diagnosis> {
        use Diagnosis::*;
        Ok(match seen {
            WithinBlocks { keys } if self.stays_when_shuffled()? => BlockSummary { keys },
            MaskInverted if self.adds_up()? => ReversedScan,
            MaskMissing if self.stays_when_shuffled()? => SequenceStatistics,
            MaskMissing if self.moves_on_a_line()? => AppliedAfterSoftmax,
            MaskMissing if self.adds_up()? || self.stays_in_its_feature()? => PositionsMixed,
            FiniteFill if self.takes_few_values()? => ChoiceByOthers,
            RowsMixed if self.stays_when_shuffled()? => BatchStatistics,
            RowsMixed if self.takes_few_values()? => ChoiceByOthers,
            other => other,
        })
    }

    fn output<'o>(&self, outputs: &'o Outputs, row: usize) -> &'o [f64] {
        let at = (row * self.runner.promise.length() + self.query) * outputs.width;
        &outputs.values[at..at + outputs.width]
    }

    /// The output after a change of these places.
    fn changed(&self, places: &[(usize, usize)], pass: usize) -> Result<Vec<f64>> {
        let values = self.runner.changed(self.base, places, Change::Random, FRESH_PASS + pass);
        Ok(self.output(&self.runner.outputs(values)?, self.row).to_vec())
    }

    fn move_to(&self, new: &[f64]) -> f32 {
        largest_move(self.output(self.old, self.row), new).0
    }

    /// Where a number of a position stands among the inputs.
    fn place(&self, (row, key): (usize, usize), number: usize) -> usize {
        (row * self.runner.promise.length() + key) * I::numbers(self.runner.size) + number
    }

    fn is_of_own_row(&self) -> bool {
        self.places.iter().all(|place| place.0 == self.row)
    }

    fn has_features(&self) -> bool {
        self.base.first().is_some_and(|&value| I::nudged(value, 0.0).is_some())
    }

    /// The output hardly moves when each feature is shuffled among the places by itself.
    pub fn stays_when_shuffled(&self) -> Result<bool> {
        if !self.has_features() || self.places.len() < 2 {
            return Ok(false);
        }
        let mut rng = StdRng::seed_from_u64(self.runner.seed);
        let (mut by_random, mut by_shuffle) = (0f32, 0f32);
        // From another row, all outputs of this one: a single one may seldom move.
        let of = |outputs: &Outputs| match self.is_of_own_row() {
            true => self.output(outputs, self.row).to_vec(),
            false => {
                let row = self.runner.promise.length() * outputs.width;
                outputs.values[self.row * row..][..row].to_vec()
            }
        };
        // A maximum is not moved by every change, nor in every input.
        for round in 0..BASES {
            let (base, old) = self.inputs(round)?;
            let mut shuffled = base.clone();
            for number in 0..I::numbers(self.runner.size) {
                let at = |place: &(usize, usize)| self.place(*place, number);
                let mut values: Vec<_> = self.places.iter().map(|place| base[at(place)]).collect();
                values.shuffle(&mut rng);
                self.places
                    .iter()
                    .zip(values)
                    .for_each(|(place, value)| shuffled[at(place)] = value);
            }
            let random = self.runner.changed(&base, &self.places, Change::Random, FRESH_PASS);
            for (values, most) in [(random, &mut by_random), (shuffled, &mut by_shuffle)] {
                let new = self.runner.outputs(values)?;
                *most = most.max(largest_move(&of(&old), &of(&new)).0);
            }
        }
        Ok(by_shuffle < 0.01 * by_random)
    }

    /// Small changes move the output along one line.
    fn moves_on_a_line(&self) -> Result<bool> {
        // With few directions a line does not stand out.
        if !self.has_features() || self.places.len() < 3 || self.old.width < 3 {
            return Ok(false);
        }
        let mut rng = StdRng::seed_from_u64(self.runner.seed);
        for round in 0..BASES {
            // Where one key has all the weight, any output moves along a line.
            let (base, old) = self.inputs(round)?;
            let before = self.output(&old, self.row);
            let mut moves = Vec::with_capacity(NUDGES);
            for _ in 0..NUDGES {
                let mut nudged = base.clone();
                for &place in &self.places {
                    for number in 0..I::numbers(self.runner.size) {
                        let value = &mut nudged[self.place(place, number)];
                        let nudge = rng.random_range(-NUDGE..NUDGE);
                        *value = I::nudged(*value, nudge).unwrap_or(*value);
                    }
                }
                let new = self.runner.outputs(nudged)?;
                let after = self.output(&new, self.row);
                let moved = before.iter().zip(after).map(|(old, new)| new - old);
                moves.push(moved.collect::<Vec<f64>>());
            }
            if share_of_one_line(&moves) <= 0.98 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The unchanged inputs and outputs, and after them fresh ones.
    fn inputs(&self, round: usize) -> Result<(Vec<I::Value>, Outputs)> {
        if round == 0 {
            return Ok((self.base.to_vec(), self.old.clone()));
        }
        let base = self.runner.base(FRESH_PASS + round);
        let old = self.runner.outputs(base.clone())?;
        Ok((base, old))
    }

    /// What two halves of the places do together is the sum of what each does alone.
    fn adds_up(&self) -> Result<bool> {
        if self.places.len() < 2 {
            return Ok(false);
        }
        let before = self.output(self.old, self.row);
        let (first, second) = self.places.split_at(self.places.len() / 2);
        let [one, other, both] =
            [first, second, &self.places[..]].map(|part| self.changed(part, 1));
        let (one, other, both) = (one?, other?, both?);
        let sum: Vec<f64> = (0..before.len()).map(|i| one[i] + other[i] - before[i]).collect();
        let alone = self.move_to(&one).min(self.move_to(&other));
        Ok(alone > 0.0 && largest_move(&sum, &both).0 < 1e-3 * alone)
    }

    /// A change of one feature of the places moves that feature of the output and no other.
    fn stays_in_its_feature(&self) -> Result<bool> {
        let numbers = I::numbers(self.runner.size);
        if !self.has_features() || self.old.width != numbers || numbers < 3 {
            return Ok(false);
        }
        let before = self.output(self.old, self.row);
        for number in 0..2 {
            let mut values = self.base.to_vec();
            for &place in &self.places {
                let value = &mut values[self.place(place, number)];
                *value = I::nudged(*value, 1.0).unwrap_or(*value);
            }
            let new = self.runner.outputs(values)?;
            let after = self.output(&new, self.row);
            let moved = |index: usize| before[index] != after[index];
            if (0..numbers).any(|index| moved(index) != (index == number)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The output moves now and then, and comes back to a value that it had after another change.
    pub fn takes_few_values(&self) -> Result<bool> {
        // A few ids alone bring the same values back.
        if !self.has_features() && self.runner.size < MANY_IDS {
            return Ok(false);
        }
        let length = self.runner.promise.length();
        // Where nothing crosses rows, each row is tried in each pass.
        let own_row = self.is_of_own_row();
        let rows = if own_row { 0..self.runner.promise.batch() } else { self.row..self.row + 1 };
        let places: Vec<_> = match own_row {
            true => {
                rows.clone().flat_map(|row| self.places.iter().map(move |p| (row, p.1))).collect()
            }
            false => self.places.clone(),
        };
        let queries = if own_row { self.query..self.query + 1 } else { 0..length };
        let mut seen: HashMap<(usize, usize, usize, Vec<u64>), usize> = HashMap::new();
        for round in 0..BASES {
            let (base, old) = self.inputs(round)?;
            for attempt in 0..CHOICES {
                let change = [Change::Random, Change::Extreme][attempt % 2];
                let pass = FRESH_PASS + 2 + attempt;
                let new = self.runner.outputs(self.runner.changed(&base, &places, change, pass))?;
                for row in rows.clone() {
                    for query in queries.clone() {
                        let at = (row * length + query) * new.width;
                        let of = |outputs: &Outputs| outputs.values[at..at + new.width].to_vec();
                        if of(&old) != of(&new) {
                            let bits = of(&new).iter().map(|x| x.to_bits()).collect();
                            *seen.entry((round, row, query, bits)).or_default() += 1;
                        }
                    }
                }
            }
        }
        let moved: usize = seen.values().sum();
        // Of values that are passed on, no two are alike.
        Ok(4 * seen.len() <= 3 * moved && moved > 0)
    }
}

/// How much of the moves' squared size lies along their main direction: the largest eigenvalue of
/// their Gram matrix over its trace.
fn share_of_one_line(moves: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let gram: Vec<Vec<f64>> =
        moves.iter().map(|a| moves.iter().map(|b| dot(a, b)).collect()).collect();
    let trace: f64 = (0..gram.len()).map(|i| gram[i][i]).sum();
    // Irrational steps, so that the start is not itself a lesser direction.
    let mut vector: Vec<f64> = (1..=gram.len()).map(|i| (i as f64).sqrt()).collect();
    let mut largest = 0.0;
    for step in 0..100 {
        let next: Vec<f64> = gram
            .iter()
            .map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum::<f64>())
            .collect();
        largest = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        if largest == 0.0 {
            // Orthogonal to the start: start elsewhere.
            vector.iter_mut().enumerate().for_each(|(i, x)| *x = f64::from(u8::from(i == step)));
            continue;
        }
        vector = next.iter().map(|x| x / largest).collect();
    }
    if trace > 0.0 { largest / trace } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_from_a_plane() {
        let line: Vec<_> =
            (1..6).map(|n| vec![f64::from(n), -2.0 * f64::from(n), 0.5 * f64::from(n)]).collect();
        assert!((share_of_one_line(&line) - 1.0).abs() < 1e-9);
        let plane = vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![-1.0, 0.0, 0.0]];
        assert!((share_of_one_line(&plane) - 2.0 / 3.0).abs() < 1e-9);
    }
}
