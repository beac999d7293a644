//! Two flaws of a cache leave the matrix of who moves whom as it should be. A key that was stored twice
//! moves later queries twice as much, beside all other keys; positions that restart change every
//! key's weight. A few more passes tell them apart.

use super::input::{Change, ModelInput};
use super::perturb::PathRunner;
use super::schedule;
use crate::Result;

/// Fresh inputs, and keys beside the suspects, that two paths are compared on.
const COMPARISONS: usize = 3;
const OTHER_KEYS: usize = 8;

/// The key that counts twice on `path`, if it is one of the two before the first query whose
/// outputs differ.
pub(super) fn repeated_key<I: ModelInput>(
    plain: &PathRunner<'_, I>,
    path: &PathRunner<'_, I>,
    first: usize,
) -> Result<Option<usize>> {
    let (batch, length) = (plain.promise.batch(), plain.promise.length());
    let suspects = [first.saturating_sub(1), first];
    let step = length.div_ceil(OTHER_KEYS).max(1);
    let mut keys: Vec<usize> = (0..length).step_by(step).chain(suspects).collect();
    keys.retain(|key| key + 2 < length); // the last ones have too few later queries to speak of
    keys.sort_unstable();
    keys.dedup();

    // Sum of the squared moves of later queries by each key, on both paths.
    let mut moved = vec![[0f64; 2]; keys.len()];
    for round in 0..COMPARISONS {
        let base = plain.base(schedule::ROUNDS + round);
        for (side, runner) in [plain, path].into_iter().enumerate() {
            let old = runner.outputs(base.clone())?;
            for (&key, moved) in keys.iter().zip(&mut moved) {
                let everywhere: Vec<_> = (0..batch).map(|row| (row, key)).collect();
                let changed =
                    runner.changed(&base, &everywhere, Change::Random, usize::MAX - 2 - round);
                let new = runner.outputs(changed)?;
                let later = first.max(key + 1)..length;
                let moves = (0..batch).map(|row| runner.moves(&old, &new, row));
                let sizes = moves.flat_map(|moves| moves[later.clone()].to_vec());
                moved[side] += sizes.map(|(size, _)| f64::from(size).powi(2)).sum::<f64>();
            }
        }
    }
    let ratios = moved.iter().map(|[plain, path]| (path / plain).sqrt());
    let (suspected, others): (Vec<_>, Vec<_>) =
        keys.iter().zip(ratios).partition(|(key, _)| suspects.contains(key));
    let Some((&key, ratio)) = suspected.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Ok(None);
    };
    let mut others: Vec<f64> = others.into_iter().map(|(_, ratio)| ratio).collect();
    others.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (others.first(), others.last()) else { return Ok(None) };
    let usual = others[others.len() / 2];
    // The others keep their proportions, as they only share their weight with one key more. The
    // repeated one has up to twice its weight: less where it had much of it before.
    let twice = ratio > 1.15 * usual && ratio > 1.1 * most && *most < 1.2 * least;
    Ok(twice.then_some(key))
}
