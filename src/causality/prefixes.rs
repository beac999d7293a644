//! Prefixes alone: what a model says of the first positions must not depend on how many follow.
//!
//! Changed tokens don't show that: the length stays. So the model is also run on the prefixes by
//! themselves. Other lengths are sums of another order, so that differences up to the agreement of
//! paths do not count.

use super::diagnosis::Diagnosis;
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::perturb::{largest_move, to_host};
use super::report::Leak;
use super::schedule::{self, Way};
use crate::{Error, Result};

/// The first output that is another one where what follows is cut off.
pub(super) fn leak<I: ModelInput>(path: &PathAnalysis<'_, I>) -> Result<Option<Leak>> {
    let (runner, length, batch) = (path.runner, path.length(), path.promise().batch());
    let (base, old) = &path.measured.bases[0];
    let numbers = I::numbers(runner.size);
    let tolerance = path.settings.agreement * path.measured.scale() + path.tolerance();
    let mut first: Option<Leak> = None;
    for prefix in schedule::prefixes(length) {
        let values: Vec<_> = (0..batch)
            .flat_map(|row| base[row * length * numbers..][..prefix * numbers].to_vec())
            .collect();
        let input = I::tensor(values, batch, prefix, runner.size, runner.device);
        let (output, _) = (runner.run)(input);
        runner.count_pass();
        if output.dims() != [batch, prefix, old.width] {
            return Err(Error::ModelOutput {
                output: "the model's output for a prefix of its input",
                expected: format!("the shape [{batch}, {prefix}, {}]", old.width),
                got: format!("{:?}", output.dims()),
            });
        }
        let new = to_host(output);
        for row in 0..batch {
            let may_move = &path.promise().row(row).may_move;
            for query in 0..prefix {
                if (prefix..length).any(|key| may_move.get(query, key)) {
                    continue; // a prefix that all see
                }
                let at = |length: usize| (row * length + query) * old.width;
                let before = &old.values[at(length)..][..old.width];
                let (size, poisoned) = largest_move(before, &new[at(prefix)..][..old.width]);
                let is_first =
                    first.as_ref().is_none_or(|leak| (query, prefix) < (leak.query, leak.key));
                if (size > tolerance || poisoned) && is_first {
                    first = Some(Leak {
                        path: path.path.clone(),
                        way: Way::Length,
                        row,
                        query,
                        key_row: row,
                        key: prefix,
                        size,
                        diagnosis: Diagnosis::LengthSeen,
                    });
                }
            }
        }
    }
    Ok(first)
}
