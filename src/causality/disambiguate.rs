//! Disambiguation: a few more passes tell apart what the influence matrix can't.
//!
//! Three flaws show every position to every other one: a mask that is missing, a statistic over the
//! sequence, and a mask that comes after the softmax. With embeddings they can be told apart by how
//! the output moves:
//!
//! - a mean or variance over the sequence stays as it is when each feature is shuffled among the
//!   positions by itself;
//! - where hidden keys only take part in the softmax's sum, they shrink or stretch the attention
//!   output and can't turn it: small changes move the output along one line.
//!
//! Two flaws of a cache leave the matrix as it should be. A key that was stored twice moves later
//! queries twice as much, beside all other keys; positions that restart change every key's weight.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::diagnosis::Diagnosis;
use super::input::{Change, ModelInput};
use super::perturb::{Outputs, PathRunner, largest_move};
use super::schedule;
use crate::Result;

/// Small changes tried, and their size.
const NUDGES: usize = 8;
const NUDGE: f32 = 0.01;

/// Names a leak of all `keys` into a query, seen from the unchanged inputs `base`.
pub(super) fn full_leak<I: ModelInput>(
    runner: &PathRunner<'_, I>,
    (base, old): (&[I::Value], &Outputs),
    (row, query): (usize, usize),
    keys: &[usize],
) -> Result<Diagnosis> {
    let numbers = I::numbers(runner.size);
    let length = runner.promise.length();
    let has_features = base.first().is_some_and(|&value| I::nudged(value, 0.0).is_some());
    if !has_features || keys.len() < 3 {
        return Ok(Diagnosis::MaskMissing);
    }
    let at = (row * length + query) * old.width..(row * length + query + 1) * old.width;
    let before = &old.values[at.clone()];
    let place = |key: usize, number: usize| (row * length + key) * numbers + number;
    let mut rng = StdRng::seed_from_u64(runner.seed);

    let positions: Vec<_> = keys.iter().map(|&key| (row, key)).collect();
    let random =
        runner.outputs(runner.changed(base, &positions, Change::Random, usize::MAX - 1))?;
    let mut shuffled = base.to_vec();
    for number in 0..numbers {
        let mut values: Vec<_> = keys.iter().map(|&key| base[place(key, number)]).collect();
        values.shuffle(&mut rng);
        keys.iter().zip(values).for_each(|(&key, value)| shuffled[place(key, number)] = value);
    }
    let shuffled = runner.outputs(shuffled)?;
    let move_of = |new: &Outputs| largest_move(before, &new.values[at.clone()]).0;
    if move_of(&shuffled) < 0.01 * move_of(&random) {
        return Ok(Diagnosis::SequenceStatistics);
    }

    if old.width < 3 {
        return Ok(Diagnosis::MaskMissing); // too few directions for a line to stand out
    }
    let mut moves = Vec::with_capacity(NUDGES);
    for _ in 0..NUDGES {
        let mut nudged = base.to_vec();
        for &key in keys {
            for number in 0..numbers {
                let value = &mut nudged[place(key, number)];
                *value = I::nudged(*value, rng.random_range(-NUDGE..NUDGE)).unwrap_or(*value);
            }
        }
        let new = runner.outputs(nudged)?;
        let after = &new.values[at.clone()];
        moves.push(before.iter().zip(after).map(|(old, new)| new - old).collect::<Vec<f64>>());
    }
    Ok(match share_of_one_line(&moves) > 0.98 {
        true => Diagnosis::AppliedAfterSoftmax,
        false => Diagnosis::MaskMissing,
    })
}

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

/// How much of the moves' squared size lies along their main direction: the largest eigenvalue of
/// their Gram matrix over its trace.
fn share_of_one_line(moves: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let gram: Vec<Vec<f64>> =
        moves.iter().map(|a| moves.iter().map(|b| dot(a, b)).collect()).collect();
    let trace: f64 = (0..gram.len()).map(|i| gram[i][i]).sum();
    // Irrational steps, so that the start is not itself a lesser direction.
    let mut vector: Vec<f64> = (1..=gram.len()).map(|i| (i as f64).sqrt()).collect();
    let mut largest = 0.0;
    for step in 0..100 {
        let next: Vec<f64> = gram
            .iter()
            .map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum::<f64>())
            .collect();
        largest = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        if largest == 0.0 {
            // Orthogonal to the start: start elsewhere.
            vector.iter_mut().enumerate().for_each(|(i, x)| *x = f64::from(u8::from(i == step)));
            continue;
        }
        vector = next.iter().map(|x| x / largest).collect();
    }
    if trace > 0.0 { largest / trace } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_from_a_plane() {
        let line: Vec<_> =
            (1..6).map(|n| vec![f64::from(n), -2.0 * f64::from(n), 0.5 * f64::from(n)]).collect();
        assert!((share_of_one_line(&line) - 1.0).abs() < 1e-9);
        let plane = vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![-1.0, 0.0, 0.0]];
        assert!((share_of_one_line(&plane) - 2.0 / 3.0).abs() < 1e-9);
    }
}
