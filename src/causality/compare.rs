//! The other half of the promise: what is visible must be seen, and every path must give the
//! outputs of the plain one.

use super::diagnosis::Diagnosis;
use super::disambiguate;
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::patterns;
use super::receptive_field::BitMatrix;
use super::report::{Disagreement, Leak, Missing, Path};
use super::weights;
use crate::{Error, Result};

impl<I: ModelInput> PathAnalysis<'_, I> {
    /// Promised influence that was never seen.
    pub(super) fn missing(&self, plain: Option<&Self>) -> Vec<Missing> {
        let own_weights = weights::read::<I>(self.promise(), self.measured);
        let hidden_id = own_weights.and_then(|found| found.hidden_id);
        let by_weights = hidden_id.map(|(id, [row, query, key], cells)| Missing {
            path: self.path.clone(),
            row,
            query,
            key,
            cells,
            diagnosis: Diagnosis::TokenHidden { id },
        });

        // Where equal runs differ, a move may be lost in the noise: then only gradients could tell.
        if *self.path == Path::Disturbed {
            return Vec::new();
        }
        let can_tell = self.tolerance() == 0.0 || self.measured.gradients.is_some();
        let asked = plain.is_some() || self.settings.promise_given;
        let tables = self.tables().filter(|_| can_tell && asked);
        let by_moves = tables.filter_map(|table| {
            let promised = match plain {
                // Another path owes what the plain one shows.
                Some(plain) => plain.moved(table),
                None => self.promise().row(table).visible.clone(),
            };
            let moved = self.moved(table);
            let missing = BitMatrix::from_fn(self.length(), |query, key| {
                query != key && promised.get(query, key) && !moved.get(query, key)
            });
            let cells = (0..self.length() * self.length())
                .map(|cell| (cell / self.length(), cell % self.length()))
                .filter(|&(query, key)| missing.get(query, key));
            let (query, key) = cells.clone().next()?;
            Some(Missing {
                path: self.path.clone(),
                row: table,
                query,
                key,
                cells: cells.count(),
                diagnosis: patterns::name_missing(&promised, &missing),
            })
        });
        by_weights.into_iter().chain(by_moves).collect()
    }

    /// Whether the outputs are those of the plain path.
    pub(super) fn disagreement(
        &self,
        plain: &Self,
        leak: Option<&Leak>,
        missing: Option<&Missing>,
    ) -> Result<Option<Disagreement>> {
        // Dropout and other weights change the outputs; that is their purpose.
        if matches!(self.path, Path::Dropout | Path::Disturbed) {
            return Ok(None);
        }
        let [expected, got] = [plain, self].map(|path| path.measured.bases[0].1.width);
        if expected != got {
            return Err(Error::ModelOutput {
                output: "the output of another path than the plain one",
                expected: format!("the plain one's width, {expected}"),
                got: format!("{got} on the {} path", self.path),
            });
        }
        let noise = self.measured.noise.max(plain.measured.noise);
        let tolerance = self.settings.agreement * plain.measured.scale() + 4.0 * noise;
        let rounds = plain.measured.bases.iter().zip(&self.measured.bases);
        let differences = rounds.flat_map(|((_, expected), (_, got))| {
            (0..self.promise().batch()).flat_map(move |row| {
                let moves = self.runner.moves(expected, got, row).into_iter().enumerate();
                moves.map(move |(query, (size, poisoned))| {
                    (row, query, if poisoned { f32::MAX } else { size })
                })
            })
        });
        // What a query that sees nothing puts out is nobody's concern.
        let differences: Vec<_> = differences
            .filter(|&(row, query, _)| !self.promise().row(row).is_dead(query))
            .filter(|&(_, _, size)| size > tolerance)
            .collect();
        let first = differences.iter().min_by_key(|(row, query, _)| (query, row));
        let Some(&(row, query, _)) = first else { return Ok(None) };
        let size = differences.iter().map(|&(_, _, size)| size).fold(0f32, f32::max);

        let diagnosis = match (leak, missing) {
            (Some(leak), _) => leak.diagnosis.clone(),
            (None, Some(missing)) => missing.diagnosis.clone(),
            (None, None) => {
                let repeated = disambiguate::repeated_key(plain.runner, self.runner, query)?;
                let last = self.length() - 1;
                let reaches_end = differences.iter().any(|&(_, query, _)| query == last);
                match repeated {
                    Some(key) => Diagnosis::KeyRepeated { key },
                    None if query > 0 && reaches_end => Diagnosis::PositionsRestarted,
                    None => Diagnosis::PathsDiffer,
                }
            }
        };
        Ok(Some(Disagreement {
            path: self.path.clone(),
            row,
            query,
            size: size.min(f32::MAX),
            tolerance,
            diagnosis,
        }))
    }
}
