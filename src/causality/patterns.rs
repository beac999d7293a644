//! Patterns: which name fits a set of leaks, or of missing influence.
//!
//! Each rule reads the influence matrix as one would by eye: a band beside the diagonal, a full
//! upper triangle, one column, the rows that see nothing. The first rule that fits gives the name.

use super::diagnosis::Diagnosis;
use super::receptive_field::{BitMatrix, ReceptiveField};

/// Share of cells that must fit for a pattern to count as full; a few moves can get lost in
/// rounding.
const FULL: f64 = 0.8;

/// Names a set of leaks of one row: cells that moved and must not.
///
/// [`Diagnosis::MaskMissing`] stands for a full leak; what else shows as one is told apart by the
/// caller, who can look closer.
pub(super) fn name_leaks(
    promise: &ReceptiveField,
    leaks: &BitMatrix,
    moved: &BitMatrix,
    layers: Option<usize>,
) -> Diagnosis {
    let length = leaks.length();
    let cells = cells_of(leaks);
    if cells.iter().all(|&(query, _)| promise.is_dead(query)) {
        return Diagnosis::DeadRows;
    }
    if cells.iter().all(|&(_, key)| promise.is_padding(key)) {
        return Diagnosis::PaddingSeen;
    }
    let future: Vec<_> = cells.iter().copied().filter(|(query, key)| key > query).collect();
    if future.is_empty() {
        return name_past(promise, &cells);
    }

    let nearest = future.iter().map(|(query, key)| key - query).min().unwrap_or(0);
    let furthest = future.iter().map(|(query, key)| key - query).max().unwrap_or(0);
    let share = |set: &dyn Fn(usize, usize) -> bool| {
        let hidden = |&(query, key): &(usize, usize)| !promise.may_move.get(query, key);
        let of: Vec<_> =
            all_cells(length).filter(|&(q, k)| k > q && set(q, k)).filter(hidden).collect();
        let leaking = of.iter().filter(|(query, key)| leaks.get(*query, *key)).count();
        leaking as f64 / of.len().max(1) as f64
    };

    if nearest > 1 && nearest > length / 2 && share(&|query, key| key - query >= nearest) >= FULL {
        return Diagnosis::WrapsAround;
    }
    if furthest + 1 < length && share(&|query, key| key - query <= furthest) >= FULL {
        return match furthest == layers.unwrap_or(1) {
            true => Diagnosis::OffByOne,
            false => Diagnosis::WrongAlignment { by: Some(furthest as i64) },
        };
    }
    let blocks = (2..length).find(|size| {
        future.iter().all(|(query, key)| query / size == key / size)
            && share(&|query, key| query / size == key / size) >= FULL
    });
    if let Some(keys) = blocks {
        return Diagnosis::WithinBlocks { keys };
    }

    let exposed: Vec<usize> =
        (0..length).filter(|&query| share(&|q, _| q == query) >= FULL).collect();
    let could_leak =
        (0..length).filter(|&q| (q + 1..length).any(|key| !promise.may_move.get(q, key))).count();
    if exposed.len() as f64 >= FULL * could_leak as f64 {
        let past: Vec<_> = all_cells(length)
            .filter(|&(query, key)| key < query && promise.visible.get(query, key))
            .collect();
        let seen = past.iter().filter(|(query, key)| moved.get(*query, *key)).count();
        return match (seen as f64) < (1.0 - FULL) * past.len() as f64 {
            true => Diagnosis::MaskInverted,
            false => Diagnosis::MaskMissing,
        };
    }
    // Neither a shape nor everything: it comes and goes with the input.
    Diagnosis::FiniteFill
}

/// Leaks from the past alone: a window or a document.
fn name_past(promise: &ReceptiveField, cells: &[(usize, usize)]) -> Diagnosis {
    let length = promise.visible.length();
    let reach = (0..length)
        .flat_map(|query| (0..=query).map(move |key| (query, key)))
        .filter(|&(query, key)| promise.may_move.get(query, key))
        .map(|(query, key)| query - key)
        .max()
        .unwrap_or(0);
    // A window hides by distance alone; documents hide near keys and show farther ones elsewhere.
    match cells.iter().map(|(query, key)| query - key).min() {
        Some(nearest) if nearest > reach => {
            let furthest = cells.iter().map(|(query, key)| query - key).max().unwrap_or(0);
            Diagnosis::WindowTooWide { by: furthest - reach }
        }
        _ => Diagnosis::DocumentsMixed,
    }
}

/// Names a set of cells that are promised, and never moved, out of those in `promised`.
pub(super) fn name_missing(promised: &BitMatrix, missing: &BitMatrix) -> Diagnosis {
    let length = missing.length();
    let is_promised = |query, key| query != key && promised.get(query, key);
    let cells = cells_of(missing);
    let total = all_cells(length).filter(|&(query, key)| is_promised(query, key)).count();
    if cells.len() == total {
        return Diagnosis::NothingFlows;
    }
    // Missing exactly where `set` holds?
    let exactly = |set: &dyn Fn(usize, usize) -> bool| {
        all_cells(length)
            .filter(|&(query, key)| is_promised(query, key))
            .all(|(query, key)| missing.get(query, key) == set(query, key))
    };
    if let Some(key) = (0..length).find(|&lost| exactly(&|_, key| key == lost)) {
        return Diagnosis::KeyLost { key };
    }
    if exactly(&|query, key| 0 < key && key < query) {
        return Diagnosis::WrongAlignment { by: None };
    }
    for distance in 1..length {
        if exactly(&|query, key| key < query && query - key <= distance) {
            // The query's own key is hidden before any other; its residual keeps that from showing.
            return Diagnosis::WrongAlignment { by: Some(-(distance as i64 + 1)) };
        }
        if exactly(&|query, key| key < query && query - key >= distance) {
            return Diagnosis::WindowTooNarrow { keys: distance };
        }
    }
    Diagnosis::HidesTooMuch
}

fn all_cells(length: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length).flat_map(move |query| (0..length).map(move |key| (query, key)))
}

fn cells_of(flags: &BitMatrix) -> Vec<(usize, usize)> {
    all_cells(flags.length()).filter(|&(query, key)| flags.get(query, key)).collect()
}
