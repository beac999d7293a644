//! What returned attention weights say: the heads that leak, sums that are not 1, hidden tokens.

use super::input::ModelInput;
use super::measure::Measurements;
use super::receptive_field::ReceptiveFields;

/// How far the sum of a row of weights may lie from 1.
const SUM_TOLERANCE: f64 = 1e-3;

use super::perturb::size_of;

/// What the weights of one path say.
#[derive(Default)]
pub(super) struct WeightFindings {
    /// Number of heads.
    pub heads: usize,
    /// Heads that give a hidden key weight.
    pub leaking_heads: Vec<usize>,
    /// The first row and query with a weight of NaN.
    pub not_finite: Option<(usize, usize)>,
    /// The first hidden key with weight: row, query, key and the weight.
    pub leak: Option<(usize, usize, usize, f32)>,
    /// Rows of weights do not sum to 1.
    pub sums_off: bool,
    /// An id that no query gives weight to, wherever it stands, while all other ids get some: the
    /// id, its first row, query and key, and the number of hidden cells.
    pub hidden_id: Option<(i64, [usize; 3], usize)>,
}

/// Reads the weights of all rounds; `None` if the path returned none.
pub(super) fn read<I: ModelInput>(
    promise: &ReceptiveFields,
    measured: &Measurements<I::Value>,
) -> Option<WeightFindings> {
    let (batch, length) = (promise.batch(), promise.length());
    let mut findings = WeightFindings::default();
    let mut hidden_ids = Vec::new();
    let mut seen_ids = Vec::new();
    let mut hidden_cells = 0;
    let mut first_hidden = None;
    for (base, outputs) in &measured.bases {
        let weights = outputs.weights.as_deref()?;
        let heads = weights.len() / (batch * length * length);
        findings.heads = heads;
        let weight = |row: usize, head: usize, query: usize, key: usize| {
            weights[((row * heads + head) * length + query) * length + key]
        };
        for row in 0..batch {
            let visible = &promise.row(row).visible;
            for head in 0..heads {
                for query in 0..length {
                    let of_query = (0..length).map(|key| weight(row, head, query, key));
                    let sum: f64 = of_query.clone().sum();
                    let is_dead = promise.row(row).is_dead(query);
                    findings.sums_off |= !is_dead && (sum - 1.0).abs() > SUM_TOLERANCE;
                    if of_query.clone().any(f64::is_nan) {
                        findings.not_finite.get_or_insert((row, query));
                    }
                    let leak = of_query.enumerate().find(|&(key, weight)| {
                        !visible.get(query, key) && weight != 0.0 && !weight.is_nan()
                    });
                    if let Some((key, weight)) = leak {
                        findings.leak.get_or_insert((row, query, key, size_of(weight)));
                        if !findings.leaking_heads.contains(&head) {
                            findings.leaking_heads.push(head);
                        }
                    }
                }
            }
            for key in 0..length {
                let queries = || (0..length).filter(|&query| visible.get(query, key));
                let Some(id) = I::id(base[row * length + key]) else { continue };
                let Some(first) = queries().next() else { continue };
                let is_seen = queries()
                    .any(|query| (0..heads).any(|head| weight(row, head, query, key) != 0.0));
                if is_seen {
                    seen_ids.push(id);
                } else {
                    hidden_ids.push(id);
                    hidden_cells += queries().count();
                    first_hidden.get_or_insert([row, first, key]);
                }
            }
        }
    }
    findings.leaking_heads.sort_unstable();
    hidden_ids.sort_unstable();
    hidden_ids.dedup();
    if let (&[id], Some(first)) = (&hidden_ids[..], first_hidden)
        && !seen_ids.contains(&id)
    {
        findings.hidden_id = Some((id, first, hidden_cells));
    }
    Some(findings)
}
