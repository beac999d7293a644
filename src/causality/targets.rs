//! Targets: a loss must not know its token from elsewhere.
//!
//! Whatever a causal model is, `exp(-loss)` of a token, summed over all ids that could stand in its
//! place, is 1: they are the probabilities of one distribution, which the past alone decides. Where the
//! model has seen the token, each id is judged by another distribution, and the sum is anything. So
//! every id is put in a place, and a sum that is not 1 is a leak that changes of later tokens can't
//! show.
//!
//! Label smoothing by `s` makes a loss `(1 - s) loss + s mean(loss over all ids)`, and the sum less than
//! 1. It can be undone: if one `s` makes the sums of all places 1, nothing was seen, as far as that goes.

use super::diagnosis::Diagnosis;
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::report::Leak;
use super::schedule::Way;
use super::verdict::Unproven;
use crate::Result;

/// How far a sum of probabilities may lie from 1: the rounding of losses in `f32`, and in half
/// precision.
const SUM_TOLERANCE: f64 = 1e-4;
const HALF_TOLERANCE: f64 = 2e-2;

/// Forward passes that the ids of one place may take; a larger vocabulary is not tried.
const MOST_PASSES_A_PLACE: usize = 64;

/// What the sums of probabilities say.
pub(super) struct TargetFindings {
    pub leak: Option<Leak>,
    pub unproven: Option<Unproven>,
}

/// Tries every id at places of the sequence.
pub(super) fn look<I: ModelInput>(path: &PathAnalysis<'_, I>) -> Result<TargetFindings> {
    let (ids, batch, length) = (path.runner.size, path.promise().batch(), path.length());
    let passes = ids.div_ceil(batch);
    if passes > MOST_PASSES_A_PLACE {
        let unproven = Some(Unproven::TargetsNotTried { vocabulary: ids });
        return Ok(TargetFindings { leak: None, unproven });
    }
    // About twice as many passes as there are tokens, but one place at least.
    let places = (2 * length / passes).clamp(1, length.saturating_sub(1).max(1));
    let step = length.saturating_sub(1).div_ceil(places).max(1);
    let tried = (1..length)
        .step_by(step)
        .map(|place| Ok((place, losses_of_ids(path, place)?)))
        .collect::<Result<Vec<_>>>()?;

    // Half precision leaves the last bits of a single one empty.
    let is_half = |loss: &f64| (*loss as f32).to_bits() & 0x1fff == 0;
    let tolerance = match tried.iter().all(|(_, losses)| losses.iter().all(is_half)) {
        true => HALF_TOLERANCE,
        false => SUM_TOLERANCE,
    };
    let off = |losses: &[f64]| sum(losses, 0.0) - 1.0;
    let Some((place, losses)) = tried.iter().find(|(_, losses)| off(losses).abs() > tolerance)
    else {
        return Ok(TargetFindings { leak: None, unproven: None });
    };
    let size = off(losses).abs() as f32;
    let is_smoothed = smoothing(losses).is_some_and(|smoothing| {
        tried.iter().all(|(_, losses)| (sum(losses, smoothing) - 1.0).abs() < HALF_TOLERANCE)
    });
    if is_smoothed {
        let unproven = Some(Unproven::NoProbabilities { query: *place, missing: size });
        return Ok(TargetFindings { leak: None, unproven });
    }
    let leak = Leak {
        path: path.path.clone(),
        way: Way::Targets,
        row: 0,
        query: *place,
        key_row: 0,
        key: *place,
        size,
        diagnosis: Diagnosis::TargetSeen,
    };
    Ok(TargetFindings { leak: Some(leak), unproven: None })
}

/// The losses of all ids at a place behind the same tokens. The rows share the ids out.
fn losses_of_ids<I: ModelInput>(path: &PathAnalysis<'_, I>, place: usize) -> Result<Vec<f64>> {
    let (ids, batch, length) = (path.runner.size, path.promise().batch(), path.length());
    let context = &path.measured.bases[0].0[..length];
    let mut losses = Vec::with_capacity(ids);
    for first in (0..ids).step_by(batch) {
        let mut values = Vec::with_capacity(batch * length);
        for row in 0..batch {
            values.extend_from_slice(context);
            if let Some(value) = I::of_id((first + row).min(ids - 1) as i64) {
                values[row * length + place] = value;
            }
        }
        let outputs = path.runner.outputs(values)?;
        let rows = 0..batch.min(ids - first);
        losses.extend(rows.map(|row| outputs.values[(row * length + place) * outputs.width]));
    }
    Ok(losses)
}

/// The sum of the probabilities, once a smoothing is undone.
fn sum(losses: &[f64], smoothing: f64) -> f64 {
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    losses.iter().map(|loss| ((smoothing * mean - loss) / (1.0 - smoothing)).exp()).sum()
}

/// The smoothing that makes the sum 1, if it is less without.
fn smoothing(losses: &[f64]) -> Option<f64> {
    let (mut low, mut high) = (0.0, 0.95);
    if sum(losses, low) > 1.0 || sum(losses, high) < 1.0 {
        return None;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if sum(losses, middle) < 1.0 { low = middle } else { high = middle }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smoothing_is_found_and_undone() {
        let probabilities = [0.5, 0.3, 0.15, 0.05f64];
        let plain = probabilities.map(|p| -p.ln());
        assert!((sum(&plain, 0.0) - 1.0).abs() < 1e-12);
        let mean = plain.iter().sum::<f64>() / 4.0;
        let smoothed = plain.map(|loss| 0.9 * loss + 0.1 * mean);
        assert!(sum(&smoothed, 0.0) < 1.0);
        assert!((smoothing(&smoothed).unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(smoothing(&plain.map(|loss| loss - 0.1)), None);
    }
}
