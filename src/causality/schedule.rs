//! The schedule: which inputs are changed in which forward pass. Known before the first pass runs, so
//! that its cost can be told.
//!
//! One forward pass carries one probe per row of the batch, since rows must not move each other
//! (which is checked first).

use serde::{Deserialize, Serialize};

use super::input::Change;
use super::receptive_field::ReceptiveFields;

/// A way of looking for a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Whole rows of the batch are changed; the outputs of the others must stay.
    OtherRows,
    /// One position is changed; the outputs of the queries it is hidden from must stay.
    OneKey,
    /// All positions hidden from a query are changed at once, to random values: for look-ahead a
    /// random suffix behind a prefix, and prefixes of many lengths are tried.
    HiddenRandom,
    /// The same with extreme values.
    HiddenExtreme,
    /// The same with NaN. What it finds is reported as poisoned, not as a leak: `0 * NaN` is NaN.
    HiddenNan,
    /// The gradient of an output by an input that is hidden from it must be zero.
    Gradient,
    /// The returned attention weights of hidden keys must be zero.
    Weights,
    /// One position is changed; what the cross-attention reads must stay.
    Memory,
    /// What follows a prefix is cut off; the outputs of the prefix must stay.
    Length,
    /// Every id is put in a place; the probabilities by which the loss judges them must sum to 1.
    Targets,
}

/// Some positions of one row to change in one pass.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub way: Way,
    pub change: Change,
    pub row: usize,
    pub keys: Vec<usize>,
}

/// The probes of one forward pass: at most one for each row.
pub(super) type ProbePass = Vec<Probe>;

/// How often everything is looked at, from fresh inputs each time.
pub(super) const ROUNDS: usize = 2;

/// Equal runs at the start: a first one for the backend to settle (autotuning), which is not
/// compared, and two that are.
pub(super) const REPEATS: usize = 3;

/// The passes of one round. `lanes`: how many rows may carry probes in one pass.
pub(super) fn passes(
    promise: &ReceptiveFields,
    changes: &[Change],
    lanes: usize,
    round: usize,
) -> Vec<ProbePass> {
    let length = promise.length();
    // The first round looks with random values, the second one with extreme ones.
    let change = if round == 0 { Change::Random } else { Change::Extreme };
    let one_key = (0..length)
        .map(|key| move |_row: usize| Some((Way::OneKey, change, vec![key])))
        .collect::<Vec<_>>();
    let mut passes = pack(promise, lanes, &one_key);

    for &change in changes {
        let way = match change {
            Change::Random => Way::HiddenRandom,
            Change::Extreme => Way::HiddenExtreme,
            Change::NotANumber if round == 0 => Way::HiddenNan,
            Change::NotANumber => continue,
        };
        let hidden = sampled_queries(length)
            .map(|query| {
                move |row: usize| {
                    let keys = promise.row(row).hidden_from(query);
                    (!keys.is_empty()).then_some((way, change, keys))
                }
            })
            .collect::<Vec<_>>();
        passes.extend(pack(promise, lanes, &hidden));
    }
    passes
}

/// Puts probes into passes: each row tries each probe if the rows differ, else they share them out.
fn pack<F>(promise: &ReceptiveFields, lanes: usize, probes: &[F]) -> Vec<ProbePass>
where
    F: Fn(usize) -> Option<(Way, Change, Vec<usize>)>,
{
    let probe_in = |row: usize, probe: &F| {
        probe(row).map(|(way, change, keys)| Probe { way, change, row, keys })
    };
    let passes: Vec<ProbePass> = if !promise.is_row_bound() {
        let present: Vec<_> = probes.iter().filter(|probe| probe(0).is_some()).collect();
        let share = |chunk: &[&F]| {
            chunk.iter().enumerate().filter_map(|(row, probe)| probe_in(row, probe)).collect()
        };
        present.chunks(lanes).map(share).collect()
    } else {
        let rows: Vec<usize> = (0..promise.batch()).collect();
        let together = |probe: &F, rows: &[usize]| -> ProbePass {
            rows.iter().filter_map(|&row| probe_in(row, probe)).collect()
        };
        probes
            .iter()
            .flat_map(|probe| rows.chunks(lanes).map(move |rows| together(probe, rows)))
            .collect()
    };
    passes.into_iter().filter(|pass| !pass.is_empty()).collect()
}

/// The prefixes that are looked at alone: of 1, 2, 3, 4, 7, 8, 15, 16, ... tokens, but for the whole.
pub(super) fn prefixes(length: usize) -> impl Iterator<Item = usize> {
    sampled_queries(length).map(|query| query + 1).filter(move |&prefix| prefix < length)
}

/// Queries whose hidden keys are all changed at once: 0, 1, 2, 3, 6, 7, 14, 15, 30, 31, ... and the
/// last two, so that the prefixes have 1, 2, 3, 4, 7, 8, 15, 16, ... tokens.
fn sampled_queries(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |&query| {
        let prefix = query + 1;
        prefix <= 4
            || prefix.is_power_of_two()
            || (prefix + 1).is_power_of_two()
            || prefix + 1 >= length
    })
}

/// The groups of rows to change so that each row is seen to leave each other one alone: for every
/// bit of the row number, the rows with and those without it.
pub(super) fn row_groups(batch: usize) -> Vec<Vec<usize>> {
    let bits = usize::BITS - batch.saturating_sub(1).leading_zeros();
    (0..bits)
        .flat_map(|bit| [0, 1].map(|side| (bit, side)))
        .map(|(bit, side)| (0..batch).filter(|row| row >> bit & 1 == side).collect())
        .collect()
}

/// The queries to differentiate, one for each row of a pass.
pub(super) fn gradient_passes(promise: &ReceptiveFields, lanes: usize) -> Vec<Vec<(usize, usize)>> {
    let (batch, length) = (promise.batch(), promise.length());
    let pairs: Vec<(usize, usize)> = if promise.is_row_bound() {
        (0..length).flat_map(|query| (0..batch).map(move |row| (row, query))).collect()
    } else {
        (0..length).map(|query| (query % lanes, query)).collect()
    };
    pairs.chunks(lanes).map(<[_]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_set_against_each_other_row() {
        for batch in 1..=9 {
            let groups = row_groups(batch);
            for changed in 0..batch {
                for watched in (0..batch).filter(|&row| row != changed) {
                    let apart = |g: &Vec<usize>| g.contains(&changed) && !g.contains(&watched);
                    assert!(groups.iter().any(apart), "{changed} against {watched} of {batch}");
                }
            }
        }
    }
}
