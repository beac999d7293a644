//! Leaks: from what was measured to what is reported.

use super::diagnosis::Diagnosis;
use super::first_pair;
use super::influence::Influence;
use super::input::ModelInput;
use super::measure::Measurements;
use super::patterns;
use super::perturb::{Observation, PathRunner};
use super::receptive_field::{BitMatrix, ReceptiveFields};
use super::report::{Leak, Path, PathReport, Poisoned};
use super::schedule::Way;
use super::suspect::Suspect;
use super::weights::{self, WeightFindings};
use crate::Result;

/// What the user asked for.
#[derive(Clone, Copy)]
pub(super) struct CheckSettings {
    /// Whether the promise was given, and so its other half is held against the model too: what is
    /// visible must be seen.
    pub promise_given: bool,
    pub layers: Option<usize>,
    /// Overrides the measured tolerance.
    pub tolerance: Option<f32>,
    /// How far paths may differ, in units of the largest output.
    pub agreement: f32,
    /// The outputs are losses of the tokens.
    pub losses: bool,
    /// The model is looked at with disturbed weights too.
    pub disturbed: bool,
}

/// A leak up to this part of the allowed influence is called rounding.
const ROUNDING: f32 = 1e-6;

/// One path, with all that was measured on it.
pub(super) struct PathAnalysis<'a, I: ModelInput> {
    pub path: &'a Path,
    pub runner: &'a PathRunner<'a, I>,
    pub measured: &'a Measurements<I::Value>,
    pub settings: CheckSettings,
}

impl<I: ModelInput> PathAnalysis<'_, I> {
    pub(super) fn promise(&self) -> &ReceptiveFields {
        self.runner.promise
    }

    pub(super) fn tolerance(&self) -> f32 {
        self.measured.tolerance(self.settings.tolerance)
    }

    pub(super) fn length(&self) -> usize {
        self.promise().length()
    }

    /// What moved in one table, alone or by its gradient.
    pub(super) fn moved(&self, table: usize) -> BitMatrix {
        let (length, tolerance) = (self.length(), self.tolerance());
        let may_move = &self.promise().row(table).may_move;
        let least = self.least_hidden_gradient();
        BitMatrix::from_fn(length, |query, key| {
            let cell = query * length + key;
            let least = if may_move.get(query, key) { 0.0 } else { least };
            let gradients = self.measured.gradients.as_ref();
            self.measured.moves.iter().any(|round| round[table][cell] > tolerance)
                || gradients.is_some_and(|all| all.tables[table][cell] > least)
        })
    }

    /// Up to which size a derivative by a hidden key does not count: 0, unless there are so much larger
    /// ones that it is the rounding of a sum that should be 0.
    fn least_hidden_gradient(&self) -> f32 {
        let Some(gradients) = &self.measured.gradients else { return 0.0 };
        let length = self.length();
        let largest = |allowed: bool| {
            let cells = self.tables().flat_map(|table| {
                let may_move = &self.promise().row(table).may_move;
                let cells = gradients.tables[table].iter().enumerate();
                cells.filter(move |(cell, _)| may_move.get(cell / length, cell % length) == allowed)
            });
            cells.fold(0f32, |most, (_, &size)| most.max(size))
        };
        let rounding = ROUNDING * largest(true);
        if largest(false) > rounding { rounding } else { 0.0 }
    }

    pub(super) fn tables(&self) -> std::ops::Range<usize> {
        0..self.promise().tables()
    }

    /// The report on this path, set against the plain one (`None` if this is it). `weights`: what
    /// the returned weights of any path said, to help with the names.
    pub fn report(
        &self,
        plain: Option<&Self>,
        weights: Option<&WeightFindings>,
    ) -> Result<PathReport> {
        let leaks = self.leaks(weights)?;
        let missing = self.missing(plain);
        let disagreement = match plain {
            Some(plain) => self.disagreement(plain, leaks.first(), missing.first())?,
            None => None,
        };
        let influence = self.tables().map(|table| {
            let row = self.promise().is_row_bound().then_some(table);
            Influence::new(row, &self.promise().row(table).may_move, &self.moved(table))
        });
        Ok(PathReport {
            path: self.path.clone(),
            leaks,
            unproven: self.unproven(),
            dead: Vec::new(),
            missing,
            disagreement,
            poisoned: self.measured.poisoned.map(|(row, query, key)| Poisoned { row, query, key }),
            noise: self.measured.noise,
            tolerance: self.tolerance(),
            by_gradient: self.measured.gradients.is_some(),
            influence: influence.collect(),
        })
    }

    fn leaks(&self, weights: Option<&WeightFindings>) -> Result<Vec<Leak>> {
        let leak = |way, (row, query), (key_row, key), size| Leak {
            path: self.path.clone(),
            way,
            row,
            query,
            key_row,
            key,
            size,
            diagnosis: Diagnosis::Unknown, // named below
        };

        let mut leaks: Vec<Leak> = self.leak_between_rows()?.into_iter().collect();

        let mut cells: Vec<BitMatrix> = self
            .tables()
            .map(|table| {
                let may_move = &self.promise().row(table).may_move;
                let moved = self.moved(table);
                BitMatrix::from_fn(self.length(), |q, k| moved.get(q, k) && !may_move.get(q, k))
            })
            .collect();
        let mut by_position = Vec::new();
        if let Some((row, query, key, size)) = self.first_cell(&self.largest_moves()) {
            by_position.push(leak(Way::OneKey, (row, query), (row, key), size));
        }
        for way in [Way::HiddenRandom, Way::HiddenExtreme] {
            let hidden = |seen: &Observation, query: usize| {
                let row = self.promise().row(seen.row);
                seen.changed.iter().all(|&(_, key)| !row.may_move.get(query, key))
            };
            if let Some((seen, query)) = self.first_move(way, hidden) {
                let cells = &mut cells[self.promise().table_of(seen.row)];
                let known = seen.changed.iter().find(|&&(_, key)| cells.get(query, key));
                let from = known.map_or_else(|| self.narrow(seen, query), |&known| Ok(known))?;
                cells.set(query, from.1);
                by_position.push(leak(way, (seen.row, query), from, seen.moves[query]));
            }
        }
        let gradients = self.measured.gradients.as_ref();
        if let Some((row, query, key, size)) = gradients
            .and_then(|all| self.first_cell_over(&all.tables, self.least_hidden_gradient()))
        {
            by_position.push(leak(Way::Gradient, (row, query), (row, key), size));
        }
        let own_weights = weights::read::<I>(self.promise(), self.measured);
        if let Some((row, query, key, size)) = own_weights.and_then(|found| found.leak) {
            by_position.push(leak(Way::Weights, (row, query), (row, key), size));
        }

        if !by_position.is_empty() {
            let diagnosis = self.name(&cells, weights)?;
            let comes_and_goes =
                matches!(diagnosis, Diagnosis::ChoiceByOthers | Diagnosis::FiniteFill);
            if comes_and_goes && leaks.is_empty() {
                // The rows of a pass carry a probe each: one may have answered for another.
                leaks.extend(self.rare_leak_between_rows()?);
            }
            if comes_and_goes
                && leaks.is_empty()
                && let Some(first) = by_position.iter().map(|leak| (leak.query, leak.key)).min()
                && let Some((row, query, key, size)) = first_pair::before(self, first)?
            {
                by_position.insert(0, leak(Way::OneKey, (row, query), (row, key), size));
            }
            by_position.iter_mut().for_each(|leak| leak.diagnosis = diagnosis.clone());
        }
        leaks.extend(by_position);
        Ok(leaks)
    }

    /// The name of the leaks `cells` (per table).
    fn name(&self, cells: &[BitMatrix], weights: Option<&WeightFindings>) -> Result<Diagnosis> {
        if self.is_rounding() {
            return Ok(Diagnosis::Rounding);
        }
        let count = |flags: &BitMatrix| {
            (0..self.length() * self.length())
                .filter(|cell| flags.get(cell / self.length(), cell % self.length()))
                .count()
        };
        let table = self.tables().max_by_key(|&table| (count(&cells[table]), !table));
        let Some(table) = table.filter(|&table| count(&cells[table]) > 0) else {
            // Only the weights leak: name what they show.
            return Ok(weights.map_or(Diagnosis::Unknown, |found| self.name_by_weights(found)));
        };
        let row = self.promise().row(table);
        let seen =
            patterns::name_leaks(row, &cells[table], &self.moved(table), self.settings.layers);
        let seen = match seen {
            // What enters a cache first, enters it together.
            Diagnosis::GlobalKeys { keys }
                if *self.path == Path::Cached && keys.iter().copied().eq(1..=keys.len()) =>
            {
                Diagnosis::WithinBlocks { keys: keys.len() + 1 }
            }
            other => other,
        };
        if self.settings.losses {
            return Ok(patterns::name_of_losses(seen));
        }
        if let (Diagnosis::MaskMissing, Some(found)) = (&seen, weights) {
            return Ok(self.name_by_weights(found));
        }
        if self.measured.noise > 0.0 {
            return Ok(seen); // small differences would drown
        }
        let leaking = |query: &usize| (0..self.length()).any(|key| cells[table].get(*query, key));
        let leaking: Vec<usize> = (0..self.length()).filter(leaking).collect();
        // The first query is a special one in many a transform.
        let place = if seen == Diagnosis::MaskMissing { leaking.len() / 3 } else { 0 };
        let query = leaking.get(place).copied().unwrap_or(0);
        let keys: Vec<usize> = match seen {
            Diagnosis::WithinBlocks { .. } => {
                (0..self.length()).filter(|&key| cells[table].get(query, key)).collect()
            }
            _ => row.hidden_from(query),
        };
        let places = keys.into_iter().map(|key| (table, key)).collect();
        let suspect = self.suspect(0, (table, query), places);
        // Few cells can have any shape by chance.
        let may_be_chance = matches!(
            seen,
            Diagnosis::WrapsAround
                | Diagnosis::GlobalKeys { .. }
                | Diagnosis::WithinBlocks { .. }
                | Diagnosis::BlockBorders { .. }
                | Diagnosis::WrongAlignment { by: None }
        );
        let always = match may_be_chance || seen == Diagnosis::FiniteFill {
            true => self.is_always_the_same()?,
            false => None,
        };
        let seen = match always {
            Some(true) if !may_be_chance => Diagnosis::PositionsReordered,
            Some(false) => Diagnosis::FiniteFill,
            _ => seen,
        };
        let name = suspect.name(seen)?;
        // A fill is far from any small score, and a choice is as near.
        if name == Diagnosis::FiniteFill && self.leaks_when_small()? {
            return Ok(Diagnosis::ChoiceByOthers);
        }
        Ok(name)
    }

    fn suspect(
        &self,
        round: usize,
        (row, query): (usize, usize),
        places: Vec<(usize, usize)>,
    ) -> Suspect<'_, I> {
        let (base, old) = &self.measured.bases[round];
        Suspect { runner: self.runner, base, old, row, query, places }
    }

    fn name_by_weights(&self, found: &WeightFindings) -> Diagnosis {
        match found.leaking_heads.len() {
            0 if found.sums_off => Diagnosis::AppliedAfterSoftmax,
            0 => Diagnosis::MaskMissing,
            heads if heads < found.heads => {
                Diagnosis::SomeHeads { heads: found.leaking_heads.clone() }
            }
            _ => Diagnosis::MaskMissing,
        }
    }

    /// True if every leak is a last-bits affair beside what is allowed to move.
    fn is_rounding(&self) -> bool {
        let tables =
            self.measured.moves.iter().chain(self.measured.gradients.iter().map(|all| &all.tables));
        let small = |round: &Vec<Vec<f32>>| {
            self.tables().all(|table| {
                let may_move = &self.promise().row(table).may_move;
                let largest = |allowed: bool| {
                    let cells = round[table].iter().enumerate();
                    cells
                        .filter(|&(cell, _)| {
                            may_move.get(cell / self.length(), cell % self.length()) == allowed
                        })
                        .fold(0f32, |most, (_, &size)| most.max(size))
                };
                largest(false) <= ROUNDING * largest(true)
            })
        };
        let small_together = self.measured.observations.iter().all(|seen| {
            let scale = self.measured.scale();
            let hidden = |query: &usize| {
                let row = self.promise().row(seen.row);
                seen.changed.iter().all(|&(_, key)| !row.may_move.get(*query, key))
            };
            seen.way == Way::OtherRows
                || (0..self.length()).filter(hidden).all(|q| seen.moves[q] <= ROUNDING * scale)
        });
        let mut tables = tables;
        tables.all(small) && small_together
    }

    /// The first query that moved in observations of a way, by row and query.
    fn first_move(
        &self,
        way: Way,
        counts: impl Fn(&Observation, usize) -> bool,
    ) -> Option<(&Observation, usize)> {
        self.measured
            .observations
            .iter()
            .filter(|seen| seen.way == way)
            .flat_map(|seen| (0..self.length()).map(move |query| (seen, query)))
            .filter(|&(seen, query)| seen.moves[query] > self.tolerance() && counts(seen, query))
            .min_by_key(|&(seen, query)| (query, seen.row))
    }

    fn narrow(&self, seen: &Observation, query: usize) -> Result<(usize, usize)> {
        let (base, old) = &self.measured.bases[seen.round];
        self.runner.narrow(base, old, seen, query, self.tolerance())
    }

    /// The larger move of both rounds, per table.
    fn largest_moves(&self) -> Vec<Vec<f32>> {
        let [random, extreme] = &self.measured.moves;
        let larger =
            |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a.max(*b)).collect();
        random.iter().zip(extreme).map(larger).collect()
    }

    /// The first leaking cell, as (row, query, key, size).
    fn first_cell(&self, sizes: &[Vec<f32>]) -> Option<(usize, usize, usize, f32)> {
        self.first_cell_over(sizes, self.tolerance())
    }

    fn first_cell_over(
        &self,
        sizes: &[Vec<f32>],
        tolerance: f32,
    ) -> Option<(usize, usize, usize, f32)> {
        let length = self.length();
        self.tables()
            .flat_map(|table| (0..length * length).map(move |cell| (table, cell)))
            .map(|(table, cell)| (table, cell / length, cell % length, sizes[table][cell]))
            .filter(|&(table, query, key, size)| {
                size > tolerance && !self.promise().row(table).may_move.get(query, key)
            })
            .min_by_key(|&(table, query, key, _)| (query, key, table))
    }
}
