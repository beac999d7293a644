//! What to do about tensors that do not fit, where their names tell it.

use std::collections::BTreeSet;

use super::table::Table;
use crate::WeightsMismatch;

/// How many prefixes of tensors to ignore a hint proposes at most: more are no list to copy.
const PROPOSED: usize = 8;

/// Endings of tensors that only quantised weights have, with what makes them.
const QUANTISED: [(&str, &str); 9] = [
    (".qweight", "GPTQ or AWQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".g_idx", "GPTQ"),
    (".scales", "GPTQ, AWQ or MLX"),
    (".weight_scale", "compressed-tensors or FP8"),
    (".weight_scale_inv", "FP8"),
    (".weight_packed", "compressed-tensors"),
    (".absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
];

/// What to do about `mismatch`: of the tensors called `names`, those behind `prefix` are not the ones
/// that `table` names. The parameters `missing` have none; those of other parameters are `used`.
pub fn hints(
    names: &BTreeSet<&str>,
    table: &Table,
    mismatch: &WeightsMismatch,
    missing: &[String],
    used: &BTreeSet<String>,
    prefix: &str,
) -> Vec<String> {
    if let Some(hint) = quantised(mismatch) {
        return vec![hint];
    }
    // A wrong prefix takes nearly everything away.
    let most = missing.len() > used.len();
    if let Some(found) = elsewhere(names, table, missing).filter(|_| most) {
        let option = if found.is_empty() {
            "leave out LoadOptions::with_prefix".to_string()
        } else {
            format!("LoadOptions::with_prefix({found:?})")
        };
        let behind = if found.is_empty() { "without a prefix" } else { "behind a prefix" };
        return vec![format!("all that is missing is there {behind}: {option}")];
    }
    let mut hints = Vec::new();
    if let Some(ignored) = to_ignore(&mismatch.unused, used, prefix) {
        hints.push(format!(
            "if what is unused belongs to parts that this model leaves out: \
             LoadOptions::with_ignored({ignored:?})"
        ));
    }
    hints
}

/// What made the tensors, if they are quantised.
fn quantised(mismatch: &WeightsMismatch) -> Option<String> {
    let tensors = mismatch.unused.iter().chain(mismatch.wrong_type.iter().map(|(name, _)| name));
    let by_name = tensors.clone().find_map(|name| {
        QUANTISED.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, what)| *what)
    });
    let by_type = || {
        let is_low = |(_, dtype): &(String, String)| dtype.starts_with('F') || dtype == "i8";
        mismatch.wrong_type.iter().any(is_low).then_some("FP8, FP4 or int8")
    };
    by_name.or_else(by_type).map(|what| {
        format!(
            "these weights are quantised ({what}), which this crate does not read: take the \
             checkpoint that they were made from"
        )
    })
}

/// The prefix behind which everything that is missing stands, if there is one: by the names of the
/// whole model, or by those of the model without its head.
fn elsewhere(names: &BTreeSet<&str>, table: &Table, missing: &[String]) -> Option<String> {
    for table in [table.clone(), table.clone().without_base()] {
        let name = |path: &String| table.find(path).map(|(name, _)| name);
        let spelled: BTreeSet<String> = missing.iter().filter_map(name).collect();
        // Long names tell more: `norm.weight` is the end of many.
        let Some(longest) = spelled.iter().max_by_key(|name| name.len()) else { continue };
        let mut prefixes: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_suffix(longest.as_str()))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        prefixes.sort_by_key(|prefix| prefix.len());
        let holds_all = |prefix: &&str| {
            spelled.iter().all(|name| names.contains(format!("{prefix}{name}").as_str()))
        };
        if let Some(prefix) = prefixes.into_iter().find(holds_all) {
            return Some(prefix.into());
        }
    }
    None
}

/// The shortest beginnings of the unused names that no used one has, if they are few.
fn to_ignore(unused: &[String], used: &BTreeSet<String>, prefix: &str) -> Option<BTreeSet<String>> {
    let beginnings: BTreeSet<String> = unused
        .iter()
        .map(|name| {
            let dots = name.match_indices('.').map(|(dot, _)| &name[..=dot]);
            let mut dots = dots.filter(|beginning| beginning.len() > prefix.len());
            let free = |beginning: &&str| {
                let next = used.range(beginning.to_string()..).next();
                next.is_none_or(|used| !used.starts_with(beginning))
            };
            dots.find(free).unwrap_or(name).to_string()
        })
        .collect();
    (!beginnings.is_empty() && beginnings.len() <= PROPOSED).then_some(beginnings)
}
