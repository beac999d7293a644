//! Measuring: everything that was seen on one path of a model, before anything is concluded.

use super::gradient::{self, InputGradients};
use super::input::{ModelInput, sealed::Input};
use super::perturb::{Observation, Outputs, PathRunner, largest_move, size_of};
use super::receptive_field::ReceptiveFields;
use super::schedule::{self, Way};
use crate::Result;

/// What was seen on one path.
pub(super) struct Measurements<V> {
    /// Per round and table of the promise, `[query, key]`: the largest move of the query by the key
    /// alone. The first round's changes are random, the second one's extreme.
    pub moves: [Vec<Vec<f32>>; schedule::ROUNDS],
    /// The same by gradients.
    pub gradients: Option<InputGradients>,
    /// Changes of many positions at once, and of other rows.
    pub observations: Vec<Observation>,
    /// The first `(row, query, key)` where NaN in hidden keys made something finite infinite or NaN.
    pub poisoned: Option<(usize, usize, usize)>,
    /// The first `(row, query)` with an output that is not finite, though its inputs are, and though
    /// nothing changed but hidden keys: it can't be compared.
    pub not_finite: Option<(usize, usize)>,
    /// The unchanged inputs and outputs of each round.
    pub bases: Vec<(Vec<V>, Outputs)>,
    /// Largest difference between equal runs.
    pub noise: f32,
    /// Largest difference between equal runs that follow each other.
    adjacent: f32,
    /// Largest difference of equal runs that follow each other, and of equal runs with others between
    /// them, where the second is so much larger that the model must keep a state.
    pub state: Option<(f32, f32)>,
    /// Rows of the batch move each other.
    pub rows_mixed: bool,
}

/// Equal runs with others between them that differ by so many times more than those that follow each
/// other are the work of a state: differences of one kind of noise are of one size.
const STATE: f32 = 4.0;

/// So many more equal runs are made to know how much those that follow each other may differ.
const REPEATS_FOR_STATE: usize = 4;

/// Up to this part of the largest output a difference may come from a backend that chooses another
/// order of adding after its first passes.
const SETTLING: f32 = 1e-5;

/// Looks at a path in every way of the schedule.
pub(super) fn measure<I: ModelInput>(
    runner: &PathRunner<'_, I>,
    tolerance: Option<f32>,
    by_gradient: bool,
) -> Result<Measurements<I::Value>> {
    let promise = runner.promise;
    let length = promise.length();

    let first = runner.base(0);
    runner.outputs(first.clone())?; // lets the backend settle
    let old = runner.outputs(first.clone())?;
    let mut noise = 0f32;
    for _ in 2..schedule::REPEATS {
        noise = noise.max(largest_move(&old.values, &runner.outputs(first.clone())?.values).0);
    }

    let mut measured = Measurements {
        moves: [(); schedule::ROUNDS].map(|()| vec![vec![0f32; length * length]; promise.tables()]),
        gradients: None,
        observations: Vec::new(),
        poisoned: None,
        not_finite: None,
        state: None,
        bases: vec![(first.clone(), old.clone())],
        noise,
        adjacent: noise,
        rows_mixed: false,
    };
    measured.note_not_finite(old.first_not_finite(length));
    for (observation, poisoned) in runner.observe_rows(&first, &old)? {
        measured.record(promise, observation, &poisoned);
    }
    // Equal runs once more, behind the first changes: noise that comes late is still noise.
    measured.repeat(runner, 0)?;
    let quiet = measured.tolerance(tolerance);
    measured.rows_mixed =
        measured.observations.iter().any(|seen| seen.moves.iter().any(|&size| size > quiet));
    let lanes = if measured.rows_mixed { 1 } else { promise.batch() };

    for round in 0..schedule::ROUNDS {
        if round > 0 {
            let base = runner.base(round);
            let old = runner.outputs(base.clone())?;
            measured.note_not_finite(old.first_not_finite(length));
            measured.bases.push((base, old));
        }
        for pass in schedule::passes(promise, I::changes(), lanes, round) {
            let (base, old) = &measured.bases[round];
            for (observation, poisoned) in runner.observe(base, old, &pass, round)? {
                measured.record(promise, observation, &poisoned);
            }
        }
        measured.repeat(runner, round)?;
    }
    if by_gradient && old.width > 0 {
        measured.gradients = gradient::gradients(runner, lanes)?;
    }
    Ok(measured)
}

/// Forward passes that [`measure`] runs when no rows are mixed.
pub(super) fn cost<I: ModelInput>(promise: &ReceptiveFields, by_gradient: bool) -> usize {
    let lanes = promise.batch();
    let rounds: usize = (0..schedule::ROUNDS)
        .map(|round| schedule::passes(promise, I::changes(), lanes, round).len())
        .sum();
    let gradients = if by_gradient { schedule::gradient_passes(promise, lanes).len() } else { 0 };
    let bases = schedule::ROUNDS - 1;
    let repeats = 1 + schedule::ROUNDS;
    schedule::REPEATS + schedule::row_groups(lanes).len() + bases + rounds + repeats + gradients
}

impl<V: Copy> Measurements<V> {
    /// Up to which size a move counts as none: 0 where equal runs give equal results to the last
    /// bit, else four times their largest difference.
    pub fn tolerance(&self, given: Option<f32>) -> f32 {
        given.unwrap_or(4.0 * self.noise)
    }

    /// Largest finite output: what a move is small or large against.
    pub fn scale(&self) -> f32 {
        let finite = |values: &[f64]| {
            let finite = values.iter().filter(|x| x.is_finite());
            finite.fold(0f32, |most, &x| most.max(size_of(x)))
        };
        self.bases.iter().map(|(_, old)| finite(&old.values)).fold(f32::MIN_POSITIVE, f32::max)
    }

    /// Runs a round's unchanged inputs again and remembers how much differs.
    ///
    /// If that is much more than between equal runs that follow each other, of which some more are
    /// then made, the model keeps a state.
    fn repeat<I: ModelInput + Input<Value = V>>(
        &mut self,
        runner: &PathRunner<'_, I>,
        round: usize,
    ) -> Result<()> {
        let (base, old) = self.bases[round].clone();
        let mut last = runner.outputs(base.clone())?;
        self.note_not_finite(last.first_not_finite(runner.promise.length()));
        let late = largest_move(&old.values, &last.values).0;
        let is_state = |early: f32| late > STATE * early;
        for _ in 0..REPEATS_FOR_STATE {
            if !is_state(self.adjacent) || late <= SETTLING * self.scale() {
                break;
            }
            let next = runner.outputs(base.clone())?;
            self.adjacent = self.adjacent.max(largest_move(&last.values, &next.values).0);
            last = next;
        }
        if is_state(self.adjacent) && late > SETTLING * self.scale() {
            // The first one: later ones only differ by more.
            self.state = self.state.or(Some((self.adjacent, late)));
        }
        self.noise = self.noise.max(late);
        Ok(())
    }

    fn note_not_finite(&mut self, place: Option<(usize, usize)>) {
        let first = |known: (usize, usize)| place.map_or(known, |place| place.min(known));
        self.not_finite = self.not_finite.map(first).or(place);
    }

    fn record(&mut self, promise: &ReceptiveFields, seen: Observation, poisoned: &[bool]) {
        let row = promise.row(seen.row);
        let is_hidden = |query: usize| {
            let mut keys = seen.changed.iter().filter(|&&(changed, _)| changed == seen.row);
            keys.all(|&(_, key)| !row.may_move.get(query, key))
        };
        if let Some(query) = (0..poisoned.len()).find(|&query| poisoned[query] && is_hidden(query))
        {
            if seen.way == Way::HiddenNan {
                let cell = (seen.row, query, seen.changed[0].1);
                self.poisoned = Some(self.poisoned.map_or(cell, |first| first.min(cell)));
            } else {
                self.note_not_finite(Some((seen.row, query)));
            }
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
