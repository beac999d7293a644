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
    if promise.own_hidden && cells.iter().all(|(query, key)| query == key) {
        return Diagnosis::TargetSeen;
    }
    // Where outputs are one later than inputs, the first query sees nothing, and nobody the last key.
    let is_dead = |query: usize| promise.is_dead(query) && !(promise.own_hidden && query == 0);
    let is_padding =
        |key: usize| promise.is_padding(key) && !(promise.own_hidden && key + 1 == length);
    if cells.iter().all(|&(query, _)| is_dead(query)) {
        return Diagnosis::DeadRows;
    }
    if cells.iter().all(|&(_, key)| is_padding(key)) {
        return Diagnosis::PaddingSeen;
    }
    let future: Vec<_> = cells.iter().copied().filter(|(query, key)| key > query).collect();
    if future.is_empty() {
        return name_past(promise, &cells);
    }

    let nearest = future.iter().map(|(query, key)| key - query).min().unwrap_or(0);
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
    let exposed: Vec<usize> =
        (0..length).filter(|&query| share(&|q, _| q == query) >= FULL).collect();
    let could_leak: Vec<usize> =
        (0..length).filter(|&q| (q + 1..length).any(|key| !promise.may_move.get(q, key))).collect();
    // Where one key is seen, a softmax gives it all the weight, whatever the scores.
    let sees_one =
        |query: usize| (0..length).filter(|&k| promise.visible.get(query, k)).count() == 1;
    let is_quiet = |query: &usize| (0..length).all(|key| !leaks.get(*query, key));
    let (alone, several): (Vec<_>, Vec<_>) = could_leak.iter().copied().partition(|&q| sees_one(q));
    let of_several = exposed.iter().filter(|query| several.contains(query)).count();
    if !alone.is_empty()
        && alone.iter().all(is_quiet)
        && several.len() > 1
        && of_several as f64 >= FULL * several.len() as f64
    {
        return Diagnosis::QueriesOrKeysMixed;
    }
    if let Some(name) = name_band(promise, &future, moved, layers) {
        return name;
    }
    if let Some(keys) = prefix_keys(promise, &future).or_else(|| global_keys(promise, &future)) {
        return Diagnosis::GlobalKeys { keys };
    }
    if let Some(keys) = block_size(promise, leaks, &future) {
        return Diagnosis::WithinBlocks { keys };
    }
    if let Some(keys) = bordered_blocks(length, &future) {
        return Diagnosis::BlockBorders { keys };
    }
    if exposed.len() as f64 >= FULL * could_leak.len() as f64 {
        let past: Vec<_> = all_cells(length)
            .filter(|&(query, key)| key < query && promise.visible.get(query, key))
            .collect();
        let seen = past.iter().filter(|(query, key)| moved.get(*query, *key)).count();
        return match (seen as f64) < (1.0 - FULL) * past.len() as f64 {
            true => Diagnosis::MaskInverted,
            false => Diagnosis::MaskMissing,
        };
    }
    // Neither a shape nor everything: it most likely comes and goes with the input.
    Diagnosis::FiniteFill
}

/// What a pattern means where the outputs are losses, which have no attention of their own.
pub(super) fn name_of_losses(seen: Diagnosis) -> Diagnosis {
    match seen {
        Diagnosis::MaskMissing
        | Diagnosis::MaskInverted
        | Diagnosis::QueriesOrKeysMixed
        | Diagnosis::FiniteFill => Diagnosis::LossOverSequence,
        other => other,
    }
}

/// A band beside the diagonal: the same distances ahead for all queries, and not all of them.
fn name_band(
    promise: &ReceptiveField,
    future: &[(usize, usize)],
    moved: &BitMatrix,
    layers: Option<usize>,
) -> Option<Diagnosis> {
    let length = moved.length();
    let hidden_at = |distance: usize| {
        (0..length - distance)
            .map(move |query| (query, query + distance))
            .filter(|&(query, key)| !promise.may_move.get(query, key))
    };
    let mut distances: Vec<usize> = future.iter().map(|(query, key)| key - query).collect();
    distances.sort_unstable();
    distances.dedup();
    let furthest = *distances.last()?;
    let (mut hidden, mut leaking) = (0, 0);
    for &distance in &distances {
        hidden += hidden_at(distance).count();
        leaking += future.iter().filter(|(query, key)| key - query == distance).count();
    }
    if furthest + 1 >= length || (leaking as f64) < FULL * hidden as f64 {
        return None;
    }
    // How far back promised keys move anything.
    let back = cells_of(moved)
        .into_iter()
        .filter(|(query, key)| key <= query)
        .map(|(query, key)| query - key)
        .max()
        .unwrap_or(0);
    let promised_back = cells_of(&promise.may_move)
        .into_iter()
        .filter(|(query, key)| key <= query)
        .map(|(query, key)| query - key)
        .max()
        .unwrap_or(0);
    if back == furthest && back < promised_back {
        return Some(Diagnosis::CentredWindow { reach: furthest });
    }
    if distances.len() < furthest {
        return Some(Diagnosis::WrongAlignment { by: None });
    }
    Some(match furthest == layers.unwrap_or(1) {
        true => Diagnosis::OffByOne,
        false => Diagnosis::WrongAlignment { by: Some(furthest as i64) },
    })
}

/// The keys that leak inside a square at the start of the sequence, which they fill, if the leaks lie in
/// one and there is something behind it.
fn prefix_keys(promise: &ReceptiveField, future: &[(usize, usize)]) -> Option<Vec<usize>> {
    let length = promise.may_move.length();
    let end = future.iter().map(|&(_, key)| key).max()? + 1;
    let hidden = all_cells(end)
        .filter(|&(query, key)| key > query && !promise.may_move.get(query, key))
        .count();
    let mut keys: Vec<usize> = future.iter().map(|&(_, key)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    (end < length && hidden > 1 && future.len() as f64 >= FULL * hidden as f64).then_some(keys)
}

/// The size of the blocks of which each last query sees the first key of the next block, if that is
/// all.
fn bordered_blocks(length: usize, future: &[(usize, usize)]) -> Option<usize> {
    let (&(first, _), &(second, _)) = (future.first()?, future.get(1)?);
    let size = second - first;
    let borders = (first..length - 1).step_by(size.max(1));
    (size > 1 && first < size && future.iter().copied().eq(borders.map(|query| (query, query + 1))))
        .then_some(size)
}

/// The few keys that all leaks come from, if each is seen by all queries before it.
fn global_keys(promise: &ReceptiveField, future: &[(usize, usize)]) -> Option<Vec<usize>> {
    let length = promise.may_move.length();
    let mut keys: Vec<usize> = future.iter().map(|&(_, key)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let is_seen_by_all = |key: &usize| {
        let hidden = (0..*key).filter(|&query| !promise.may_move.get(query, *key)).count();
        let leaking = future.iter().filter(|(_, other)| other == key).count();
        hidden >= 2 && leaking as f64 >= FULL * hidden as f64
    };
    (3 * keys.len() <= length && keys.iter().all(is_seen_by_all)).then_some(keys)
}

/// The size of the blocks inside which all leaks lie, and which they fill. The blocks may start
/// behind a few positions (a prompt), and the first one may be quiet (a softmax over equal keys).
fn block_size(
    promise: &ReceptiveField,
    leaks: &BitMatrix,
    future: &[(usize, usize)],
) -> Option<usize> {
    let length = leaks.length();
    let sizes = 2..length;
    let starts = sizes.flat_map(|size| (0..size).map(move |start| (size, start)));
    let fits = |&(size, start): &(usize, usize)| {
        // A block that begins late must come at least twice to be one.
        if start > 0 && start + 2 * size > length {
            return false;
        }
        let block = |position: usize| (position + size - start) / size;
        if future.iter().any(|&(query, key)| block(query) != block(key)) {
            return false;
        }
        let fills = |first: usize| {
            let cells: Vec<_> = all_cells(length)
                .filter(|&(query, key)| query >= first && key > query && block(query) == block(key))
                .filter(|&(query, key)| !promise.may_move.get(query, key))
                .collect();
            let leaking = cells.iter().filter(|(query, key)| leaks.get(*query, *key)).count();
            cells.len() > 1 && leaking as f64 >= FULL * cells.len() as f64
        };
        fills(start) || (start == 0 && size * 2 < length && fills(size))
    };
    starts
        .clone()
        .find(|place| place.1 == 0 && fits(place))
        .or_else(|| starts.clone().find(fits))
        .map(|(size, _)| size)
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

#[cfg(test)]
mod tests {
    use super::super::receptive_field::ReceptiveFields;
    use super::*;
    use crate::mask::Mask;

    /// The name of leaks of a model that should look ahead to none of 13 positions.
    fn name(leaks: impl Fn(usize, usize) -> bool) -> Diagnosis {
        let promise = ReceptiveFields::new(&Mask::look_ahead(), 1, 13, None, false).unwrap();
        let leaks = BitMatrix::from_fn(13, |query, key| key > query && leaks(query, key));
        let moved = BitMatrix::from_fn(13, |query, key| key <= query || leaks.get(query, key));
        name_leaks(promise.row(0), &leaks, &moved, None)
    }

    #[test]
    fn borders_come_at_each_block() {
        let borders = |size: usize, start: usize| {
            move |query: usize, key: usize| key == query + 1 && key % size == start
        };
        assert_eq!(name(borders(4, 0)), Diagnosis::BlockBorders { keys: 4 });
        assert_eq!(name(borders(3, 0)), Diagnosis::BlockBorders { keys: 3 });
        // Behind a part of a block.
        assert_eq!(name(borders(4, 2)), Diagnosis::BlockBorders { keys: 4 });
        // One at every position is no border.
        assert_eq!(name(borders(1, 0)), Diagnosis::OffByOne);
        // A missing border, a late first one, a cell beside one.
        for odd in [
            name(|query, key| borders(3, 0)(query, key) && key != 6),
            name(|query, key| borders(4, 0)(query, key) && key != 4),
            name(|query, key| borders(4, 0)(query, key) || (query, key) == (5, 6)),
            name(|query, key| borders(4, 0)(query, key) || (query, key) == (3, 5)),
        ] {
            assert_eq!(odd, Diagnosis::FiniteFill);
        }
    }

    #[test]
    fn a_prefix_is_a_square_at_the_start() {
        let prefix = |end: usize| move |_: usize, key: usize| key < end;
        assert_eq!(name(prefix(3)), Diagnosis::GlobalKeys { keys: vec![1, 2] });
        assert_eq!(name(prefix(6)), Diagnosis::GlobalKeys { keys: vec![1, 2, 3, 4, 5] });
        // One cell has no shape, and a square of everything is no prefix.
        assert_eq!(name(prefix(2)), Diagnosis::FiniteFill);
        assert_eq!(name(prefix(13)), Diagnosis::MaskMissing);
    }
}
