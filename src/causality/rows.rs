//! Leaks between the rows of a batch: the first one, and what it most likely is.

use super::diagnosis::Diagnosis;
use super::first_pair::{self, BetweenRows};
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::report::Leak;
use super::schedule::Way;
use super::suspect::Suspect;
use crate::Result;

impl<I: ModelInput> PathAnalysis<'_, I> {
    /// The first leak between rows, by row and query.
    pub(super) fn leak_between_rows(&self) -> Result<Option<Leak>> {
        let first = self.measured.observations.iter().filter(|seen| seen.way == Way::OtherRows);
        let first = first
            .flat_map(|seen| (0..self.length()).map(move |query| (seen, query)))
            .filter(|&(seen, query)| seen.moves[query] > self.tolerance())
            .min_by_key(|&(seen, query)| (query, seen.row));
        let Some((seen, query)) = first else { return Ok(None) };
        if let Some(earlier) = first_pair::between_rows(self, (query, seen.row))? {
            return self.named(&earlier).map(Some);
        }
        let (base, old) = self.measured.bases[seen.round].clone();
        self.named(&BetweenRows { base, old, seen: seen.clone(), query }).map(Some)
    }

    /// A leak between rows that the measurements missed, since it comes and goes with the input.
    pub(super) fn rare_leak_between_rows(&self) -> Result<Option<Leak>> {
        let found = first_pair::between_rows(self, (usize::MAX, usize::MAX))?;
        found.map(|found| self.named(&found)).transpose()
    }

    fn named(&self, found: &BetweenRows<I::Value>) -> Result<Leak> {
        let BetweenRows { base, old, seen, query } = found;
        let (key_row, key) = self.runner.narrow(base, old, seen, *query, self.tolerance())?;
        let diagnosis = if !self.is_moved_by_later_rows()? {
            Diagnosis::CarriedBetweenRows
        } else if self.measured.noise > 0.0 {
            Diagnosis::RowsMixed // small differences would drown
        } else {
            let (row, places) = (seen.row, seen.changed.clone());
            let suspect = Suspect { runner: self.runner, base, old, row, query: *query, places };
            suspect.name(Diagnosis::RowsMixed)?
        };
        Ok(Leak {
            path: self.path.clone(),
            way: Way::OtherRows,
            row: seen.row,
            query: *query,
            key_row,
            key,
            size: seen.moves[*query],
            diagnosis,
        })
    }

    /// Whether some row is moved by rows behind it alone, or might be: of a single row nothing is
    /// known.
    fn is_moved_by_later_rows(&self) -> Result<bool> {
        Ok(self.promise().batch() < 2 || first_pair::is_moved_by_later_rows(self)?)
    }
}
