//! Evidence: everything that was seen on one path of a model, before it is judged.

use super::gradient;
use super::input::{ModelInput, sealed::Input};
use super::look::{Looker, Observation, Outputs, largest_move};
use super::plan::{self, Way};
use super::promise::Promise;
use crate::Result;

/// What was seen on one path.
pub(super) struct Evidence<V> {
    /// Per round and table of the promise, `[query, key]`: the largest move of the query by the key
    /// alone. The first round's changes are random, the second one's extreme.
    pub moves: [Vec<Vec<f32>>; plan::ROUNDS],
    /// Per table, the same by gradients.
    pub gradients: Option<Vec<Vec<f32>>>,
    /// Changes of many positions at once, and of other rows.
    pub observations: Vec<Observation>,
    /// The first `(row, query, key)` where something finite became infinite or NaN.
    pub poisoned: Option<(usize, usize, usize)>,
    /// The unchanged inputs and outputs of each round.
    pub bases: Vec<(Vec<V>, Outputs)>,
    /// Largest difference between equal runs.
    pub noise: f32,
    /// Rows of the batch move each other.
    pub rows_mixed: bool,
}

/// Looks at a path in every way of the plan.
pub(super) fn collect<I: ModelInput>(
    looker: &Looker<'_, I>,
    tolerance: Option<f32>,
    by_gradient: bool,
) -> Result<Evidence<I::Value>> {
    let promise = looker.promise;
    let length = promise.length();

    let first = looker.base(0);
    looker.outputs(first.clone())?; // lets the backend settle
    let old = looker.outputs(first.clone())?;
    let mut noise = 0f32;
    for _ in 2..plan::REPEATS {
        noise = noise.max(largest_move(&old.values, &looker.outputs(first.clone())?.values).0);
    }

    let mut evidence = Evidence {
        moves: [(); plan::ROUNDS].map(|()| vec![vec![0f32; length * length]; promise.tables()]),
        gradients: None,
        observations: looker.observe_rows(&first, &old)?,
        poisoned: None,
        bases: vec![(first, old)],
        noise,
        rows_mixed: false,
    };
    // Equal runs once more, behind the first changes: noise that comes late is still noise.
    evidence.listen(looker, 0)?;
    let quiet = evidence.tolerance(tolerance);
    evidence.rows_mixed =
        evidence.observations.iter().any(|seen| seen.moves.iter().any(|&size| size > quiet));
    let lanes = if evidence.rows_mixed { 1 } else { promise.batch() };

    for round in 0..plan::ROUNDS {
        if round > 0 {
            let base = looker.base(round);
            let old = looker.outputs(base.clone())?;
            evidence.bases.push((base, old));
        }
        for pass in plan::passes(promise, I::changes(), lanes, round) {
            let (base, old) = &evidence.bases[round];
            for (observation, poisoned) in looker.observe(base, old, &pass, round)? {
                evidence.note(promise, observation, &poisoned);
            }
        }
        evidence.listen(looker, round)?;
    }
    if by_gradient {
        evidence.gradients = gradient::gradients(looker, lanes)?;
    }
    Ok(evidence)
}

/// Forward passes that [`collect`] runs when no rows are mixed.
pub(super) fn cost<I: ModelInput>(promise: &Promise, by_gradient: bool) -> usize {
    let lanes = promise.batch();
    let rounds: usize = (0..plan::ROUNDS)
        .map(|round| plan::passes(promise, I::changes(), lanes, round).len())
        .sum();
    let gradients = if by_gradient { plan::gradient_passes(promise, lanes).len() } else { 0 };
    let bases = plan::ROUNDS - 1;
    let listening = 1 + plan::ROUNDS;
    plan::REPEATS + plan::row_groups(lanes).len() + bases + rounds + listening + gradients
}

impl<V: Copy> Evidence<V> {
    /// Up to which size a move counts as none: 0 where equal runs give equal results to the last
    /// bit, else four times their largest difference.
    pub fn tolerance(&self, given: Option<f32>) -> f32 {
        given.unwrap_or(4.0 * self.noise)
    }

    /// Largest finite output: what a move is small or large against.
    pub fn scale(&self) -> f32 {
        let finite = |values: &[f32]| {
            values.iter().filter(|x| x.is_finite()).fold(0f32, |most, x| most.max(x.abs()))
        };
        self.bases.iter().map(|(_, old)| finite(&old.values)).fold(f32::MIN_POSITIVE, f32::max)
    }

    /// Runs a round's unchanged inputs again and remembers how much differs.
    fn listen<I: ModelInput + Input<Value = V>>(
        &mut self,
        looker: &Looker<'_, I>,
        round: usize,
    ) -> Result<()> {
        let (base, old) = &self.bases[round];
        let again = looker.outputs(base.clone())?;
        self.noise = self.noise.max(largest_move(&old.values, &again.values).0);
        Ok(())
    }

    fn note(&mut self, promise: &Promise, seen: Observation, poisoned: &[bool]) {
        let row = promise.row(seen.row);
        if let Some(query) = (0..poisoned.len()).find(|&query| {
            poisoned[query] && seen.changed.iter().all(|&(_, key)| !row.may_move.get(query, key))
        }) {
            let cell = (seen.row, query, seen.changed[0].1);
            self.poisoned = Some(self.poisoned.map_or(cell, |first| first.min(cell)));
        }
        match seen.way {
            Way::OneKey => {
                let table = &mut self.moves[seen.round][promise.table_of(seen.row)];
                let length = promise.length();
                for (query, &size) in seen.moves.iter().enumerate() {
                    let cell = &mut table[query * length + seen.changed[0].1];
                    *cell = cell.max(size);
                }
            }
            // Where NaN is fed, only NaN comes out, and that is noted above.
            Way::HiddenNan => {}
            _ => self.observations.push(seen),
        }
    }
}
