//! The first pair: where a leak comes and goes with the input, the first cell that was seen to leak is
//! seldom the first one that can. More inputs are drawn until an earlier one shows, or none does.

use super::input::{Change, ModelInput};
use super::leaks::PathAnalysis;
use crate::Result;

/// Fresh inputs that are tried.
const ATTEMPTS: usize = 32;

/// Rounds and passes that the measurements do not reach.
const FRESH_ROUND: usize = 1 << 12;

/// A leak at a cell `(query, key)` before `first`, as row, query, key and size.
pub(super) fn before<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    first: (usize, usize),
) -> Result<Option<(usize, usize, usize, f32)>> {
    let (runner, promise, length) = (path.runner, path.promise(), path.length());
    if path.measured.rows_mixed {
        return Ok(None); // the rows would answer for each other
    }
    let is_hidden = |query: usize, key: usize| {
        (0..promise.tables()).any(|table| !promise.row(table).may_move.get(query, key))
    };
    let mut cells: Vec<(usize, usize)> = (0..length)
        .flat_map(|query| (0..length).map(move |key| (query, key)))
        .filter(|&(query, key)| (query, key) < first && is_hidden(query, key))
        .collect();
    let mut found = None;
    for attempt in 0..ATTEMPTS {
        if cells.is_empty() {
            break;
        }
        let base = runner.base(FRESH_ROUND + attempt);
        let old = runner.outputs(base.clone())?;
        let change = [Change::Extreme, Change::Random][attempt % 2];
        let mut keys: Vec<usize> = cells.iter().map(|&(_, key)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let places: Vec<_> = (0..promise.batch()).map(|row| (row, key)).collect();
            let pass = FRESH_ROUND + attempt;
            let new = runner.outputs(runner.changed(&base, &places, change, pass))?;
            let leak = (0..promise.batch())
                .flat_map(|row| {
                    let moves = runner.moves(&old, &new, row).into_iter().enumerate();
                    moves.map(move |(query, (size, _))| (row, query, key, size))
                })
                .filter(|&(row, query, key, size)| {
                    size > path.tolerance()
                        && !promise.row(row).may_move.get(query, key)
                        && cells.contains(&(query, key))
                })
                .min_by_key(|&(row, query, ..)| (query, row));
            if let Some(leak) = leak {
                cells.retain(|&cell| cell < (leak.1, leak.2));
                found = Some(leak);
            }
        }
    }
    Ok(found)
}

/// Fresh inputs that are tried between rows: each shows all of them.
const ATTEMPTS_BETWEEN_ROWS: usize = 12;

/// A query of a row, what moves it, and by how much.
type BetweenRows = ((usize, usize), (usize, usize), f32);

/// A leak between rows at an output `(query, row)` before `first`: the row and query, the row and
/// position that moved it, and the size.
pub(super) fn between_rows<I: ModelInput>(
    path: &PathAnalysis<'_, I>,
    mut first: (usize, usize),
) -> Result<Option<BetweenRows>> {
    let (runner, tolerance) = (path.runner, path.tolerance());
    let mut found = None;
    for attempt in 0..ATTEMPTS_BETWEEN_ROWS {
        if first == (0, 0) {
            break;
        }
        let base = runner.base(FRESH_ROUND + attempt);
        let old = runner.outputs(base.clone())?;
        for (seen, _) in runner.observe_rows(&base, &old)? {
            let moved = (0..path.length()).find(|&query| seen.moves[query] > tolerance);
            if let Some(query) = moved
                && (query, seen.row) < first
            {
                first = (query, seen.row);
                let from = runner.narrow(&base, &old, &seen, query, tolerance)?;
                found = Some(((seen.row, query), from, seen.moves[query]));
            }
        }
    }
    Ok(found)
}
