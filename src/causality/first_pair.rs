//! The first pair: where a leak comes and goes with the input, the first cell that was seen to leak is
//! seldom the first one that can. More inputs are drawn until an earlier one shows, or none does.

use super::input::{Change, ModelInput};
use super::leaks::PathAnalysis;
use super::perturb::{Observation, Outputs};
use crate::Result;

/// Fresh inputs that are tried: for a query, for a key, and between rows, where each shows all of them.
const ATTEMPTS_FOR_QUERY: usize = 24;
const ATTEMPTS_FOR_KEY: usize = 128;
const ATTEMPTS_BETWEEN_ROWS: usize = 40;

/// Rounds and passes that the measurements do not reach.
const FRESH_ROUND: usize = 1 << 12;

/// A leak at a cell `(query, key)` before `first`, as row, query, key and size.
pub(super) fn before<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    first: (usize, usize),
) -> Result<Option<(usize, usize, usize, f32)>> {
    if path.measured.rows_mixed {
        return Ok(None); // the rows would answer for each other
    }
    let hidden = |query: usize| path.promise().row(0).hidden_from(query);
    let mut query = first.0;
    for earlier in 0..first.0 {
        let moves = |attempt| leak(path, attempt, earlier, &hidden(earlier));
        if try_each(ATTEMPTS_FOR_QUERY, moves)?.is_some() {
            query = earlier;
            break;
        }
    }
    let last = if query == first.0 { first.1 } else { path.length() };
    let mut keys: Vec<usize> = hidden(query).into_iter().filter(|&key| key < last).collect();
    let mut found = None;
    for attempt in 0..ATTEMPTS_FOR_KEY {
        for key in keys.clone() {
            if let Some((row, size)) = leak(path, attempt, query, &[key])? {
                found = Some((row, query, key, size));
                keys.retain(|&other| other < key);
                break;
            }
        }
        if keys.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// The first that there is.
fn try_each<T>(
    attempts: usize,
    mut attempt: impl FnMut(usize) -> Result<Option<T>>,
) -> Result<Option<T>> {
    for number in 0..attempts {
        if let Some(found) = attempt(number)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the keys together move the query of a row from which they are hidden, in fresh inputs: the
/// row, and the size.
fn leak<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    attempt: usize,
    query: usize,
    keys: &[usize],
) -> Result<Option<(usize, f32)>> {
    let (runner, batch) = (path.runner, path.promise().batch());
    let base = runner.base(FRESH_ROUND + attempt);
    let change = [Change::Extreme, Change::Random][attempt % 2];
    let places: Vec<_> =
        (0..batch).flat_map(|row| keys.iter().map(move |&key| (row, key))).collect();
    let old = runner.outputs(base.clone())?;
    let new = runner.outputs(runner.changed(&base, &places, change, FRESH_ROUND + attempt))?;
    let is_hidden = |row: usize| {
        let may_move = &path.promise().row(row).may_move;
        keys.iter().all(|&key| !may_move.get(query, key))
    };
    let rows = (0..batch).filter(|&row| is_hidden(row));
    let mut moves = rows.map(|row| (row, runner.moves(&old, &new, row)[query].0));
    Ok(moves.find(|&(_, size)| size > path.tolerance()))
}

/// An output that another row moved.
pub(super) struct BetweenRows<V> {
    pub base: Vec<V>,
    pub old: Outputs,
    pub seen: Observation,
    pub query: usize,
}

/// A leak between rows at an output `(query, row)` before `first`, in fresh inputs.
pub(super) fn between_rows<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    mut first: (usize, usize),
) -> Result<Option<BetweenRows<I::Value>>> {
    let mut found = None;
    for attempt in 0..ATTEMPTS_BETWEEN_ROWS {
        if first == (0, 0) {
            break;
        }
        let base = path.runner.base(FRESH_ROUND + attempt);
        let old = path.runner.outputs(base.clone())?;
        for (seen, _) in path.runner.observe_rows(&base, &old)? {
            let query = (0..path.length()).find(|&query| seen.moves[query] > path.tolerance());
            if let Some(query) = query.filter(|&query| (query, seen.row) < first) {
                first = (query, seen.row);
                let (base, old) = (base.clone(), old.clone());
                found = Some(BetweenRows { base, old, seen, query });
            }
        }
    }
    Ok(found)
}

/// Whether some row is moved by rows behind it alone, in fresh inputs.
pub(super) fn is_moved_by_later_rows<I: ModelInput>(path: &PathAnalysis<'_, I>) -> Result<bool> {
    for attempt in 0..ATTEMPTS_BETWEEN_ROWS {
        let base = path.runner.base(FRESH_ROUND + attempt);
        let old = path.runner.outputs(base.clone())?;
        let moved = path.runner.observe_rows(&base, &old)?.into_iter().any(|(seen, _)| {
            seen.changed.iter().all(|&(row, _)| row > seen.row)
                && seen.moves.iter().any(|&size| size > path.tolerance())
        });
        if moved {
            return Ok(true);
        }
    }
    Ok(false)
}
