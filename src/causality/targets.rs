//! Targets: a loss must not know its token from elsewhere.
//!
//! Whatever a causal model is, `exp(-loss)` of a token, summed over all ids that could stand in its
//! place, is 1: they are the probabilities of one distribution, which the past alone decides. (A label
//! smoothing makes it less than 1, never more: Kraft's inequality.) Where the model has seen the token,
//! each id is judged by another distribution, and the sum is anything. So every id is put in a place,
//! and a sum above 1 is a leak that changes of later tokens can't show.

use super::diagnosis::Diagnosis;
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::report::Leak;
use super::schedule::Way;
use super::verdict::Unproven;
use crate::Result;

/// How far a sum of probabilities may lie from 1: the rounding of losses in `f32`, and of more
/// terms than any test has.
const SUM_TOLERANCE: f64 = 1e-3;

/// Ids that can be tried in every row; a larger vocabulary is not tried.
const MOST_PASSES_A_PLACE: usize = 64;

/// What the sums of probabilities say.
pub(super) struct TargetFindings {
    pub leak: Option<Leak>,
    pub unproven: Option<Unproven>,
}

/// Tries every id at places of the sequence.
pub(super) fn look<I: ModelInput>(path: &PathAnalysis<'_, I>) -> Result<TargetFindings> {
    let (runner, batch, length) = (path.runner, path.promise().batch(), path.length());
    let ids = runner.size;
    // Rows share the ids out.
    let passes = ids.div_ceil(batch);
    if passes > MOST_PASSES_A_PLACE {
        let unproven = Some(Unproven::TargetsNotTried { vocabulary: ids });
        return Ok(TargetFindings { leak: None, unproven });
    }
    // At most twice as many passes as there are tokens, but one place at least.
    let places = (2 * length / passes).clamp(1, length.saturating_sub(1).max(1));
    let step = (length.saturating_sub(1)).div_ceil(places).max(1);
    let mut first: Option<Leak> = None;
    let mut above = false;
    for place in (1..length).step_by(step) {
        // All rows alike, but for the id at the place.
        let (base, _) = &path.measured.bases[0];
        let context = &base[..length];
        let mut sum = 0.0;
        for pass in 0..passes {
            let mut values = Vec::with_capacity(batch * length);
            for row in 0..batch {
                values.extend_from_slice(context);
                if let Some(value) = I::of_id((pass * batch + row).min(ids - 1) as i64) {
                    values[row * length + place] = value;
                }
            }
            let losses = runner.outputs(values)?;
            let tried = (pass * batch..ids.min((pass + 1) * batch)).len();
            let loss = |row: usize| losses.values[(row * length + place) * losses.width];
            sum += (0..tried).map(|row| (-loss(row)).exp()).sum::<f64>();
        }
        eprintln!("place {place} sum {sum}");
        above |= sum > 1.0 + SUM_TOLERANCE;
        if (sum - 1.0).abs() > SUM_TOLERANCE && first.is_none() {
            first = Some(Leak {
                path: path.path.clone(),
                way: Way::Targets,
                row: 0,
                query: place,
                key_row: 0,
                key: place,
                size: (sum - 1.0).abs() as f32,
                diagnosis: Diagnosis::TargetSeen,
            });
        }
    }
    Ok(match (first, above) {
        (Some(leak), true) => TargetFindings { leak: Some(leak), unproven: None },
        (Some(leak), false) => TargetFindings {
            leak: None,
            unproven: Some(Unproven::NoProbabilities { query: leak.query, missing: leak.size }),
        },
        (None, _) => TargetFindings { leak: None, unproven: None },
    })
}
