//! Which token lies in which slot of a layer's cache, as arithmetic alone.
//!
//! A layer that sees all of its past keeps token `i` in slot `i`. A layer with a window of `w` keys
//! needs the last `w - 1` tokens before the next one, and its sinks: the first tokens, which stay
//! visible for ever. Its slots hold
//!
//! ```text
//! slot   0 .. sinks       sinks .. used
//! token  0 .. sinks       first .. total        first >= sinks
//! ```
//!
//! Tokens lie in increasing order always, so that a mask over their positions stays a range. Old
//! tokens are not overwritten one by one, which would break that order: they stay, hidden by the
//! mask, until the slots are full, and then all that no query can see any more go at once. With
//! `2 w` slots behind the sinks that happens every `w` tokens, and costs one copied row per token.

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::mask::Past;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotLayout {
    /// Number of first tokens that are never dropped.
    sinks: usize,
    /// The token in slot `sinks`.
    first: usize,
    /// Number of slots in use.
    used: usize,
}

/// What appending does to a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    /// What is kept of the present tokens.
    pub kept: SlotLayout,
    /// `kept` and the new tokens: the keys of this pass.
    pub shown: SlotLayout,
    /// What stays for the next pass; other than `shown` if more tokens came than there are slots.
    pub stored: SlotLayout,
}

impl SlotLayout {
    /// Nothing stored yet; the first `sinks` tokens will stay.
    fn new(sinks: usize) -> Self {
        Self { sinks, first: sinks, used: 0 }
    }

    /// Whether a layer with this past may have come to this state by `total` tokens.
    pub(crate) fn is_of(&self, past: Past, total: usize) -> bool {
        let sinks = Self::new_for(past).sinks;
        let rolled = self.first > sinks;
        let held = match past {
            Past::Whole => !rolled,
            Past::Window { window, .. } => {
                self.first <= sinks.max((total + 1).saturating_sub(window.max(1)))
            }
        };
        self.sinks == sinks
            && self.first >= sinks
            && (!rolled || (self.used >= sinks && self.first <= total))
            && self.total() == total
            && self.most_slots(past).is_none_or(|most| self.used <= most)
            && held
    }

    /// Nothing stored yet, for a layer that keeps this past.
    pub(crate) fn new_for(past: Past) -> Self {
        match past {
            Past::Whole => Self::new(0),
            Past::Window { sinks, .. } => Self::new(sinks),
        }
    }

    /// Number of slots in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Number of tokens that came so far, dropped ones included.
    pub(crate) fn total(&self) -> usize {
        if self.first > self.sinks { self.first + self.used - self.sinks } else { self.used }
    }

    /// Index of the token in each slot, or `None` where slot `i` holds token `i`.
    pub(crate) fn tokens(&self) -> Option<Arc<[i64]>> {
        (self.first > self.sinks)
            .then(|| (0..self.sinks).chain(self.first..self.total()).map(|i| i as i64).collect())
    }

    /// The slots that hold what `kept`, a later state, keeps of this one.
    pub(crate) fn slots_of(&self, kept: &SlotLayout) -> [Range<usize>; 2] {
        if kept.first == self.first {
            return [0..kept.used, 0..0];
        }
        [0..self.sinks, self.sinks + (kept.first - self.first)..self.used]
    }

    /// The most slots that are ever used, where that is bounded.
    pub(crate) fn most_slots(&self, past: Past) -> Option<usize> {
        match past {
            Past::Whole => None,
            Past::Window { window, .. } => {
                Some(self.sinks.saturating_add(window.max(1).saturating_mul(2)))
            }
        }
    }

    /// Appends `new` tokens and drops those that no coming query sees, once there is no more room.
    pub(crate) fn append(&self, new: usize, past: Past) -> Append {
        let fits =
            |layout: &SlotLayout| self.most_slots(past).is_none_or(|most| layout.used <= most);
        let with_new = |kept: &SlotLayout| SlotLayout { used: kept.used + new, ..*kept };
        let kept = if fits(&with_new(self)) { *self } else { self.needed(past) };
        let shown = with_new(&kept);
        let stored = if fits(&shown) { shown } else { shown.needed(past) };
        Append { kept, shown, stored }
    }

    /// Without the tokens that the next query does not see.
    fn needed(&self, past: Past) -> Self {
        let Past::Window { window, .. } = past else { return *self };
        let total = self.total();
        let first = (total + 1).saturating_sub(window.max(1)).max(self.first);
        Self { first, used: self.used - (first - self.first), ..*self }
    }

    /// The state after token `total - 1`, or `None` if the next query would miss dropped tokens.
    pub(crate) fn trim(&self, total: usize, past: Past) -> Option<Self> {
        if total > self.total() {
            return None;
        }
        if total <= self.sinks {
            return Some(Self { used: total, ..Self::new(self.sinks) });
        }
        // The next query sees from here on, and the tokens between the sinks and `first` are gone.
        let oldest = match past {
            Past::Whole => 0,
            Past::Window { window, .. } => (total + 1).saturating_sub(window.max(1)),
        };
        let first = self.first.min(total);
        let lost = self.first > self.sinks && oldest.max(self.sinks) < first;
        (!lost).then(|| Self { first, used: self.sinks + total - first, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The tokens in the slots, by the plain definition of the layout.
    fn tokens(layout: &SlotLayout) -> Vec<i64> {
        match layout.tokens() {
            Some(tokens) => tokens.to_vec(),
            None => (0..layout.used as i64).collect(),
        }
    }

    proptest! {
        /// Whatever the chunks: every token that a query sees is there, in increasing order, the new
        /// ones last, and the slots stay bounded between passes.
        #[test]
        fn all_that_a_query_sees_is_kept(
            window in 0usize..7,
            sinks in 0usize..4,
            chunks in proptest::collection::vec(1usize..20, 1..30),
        ) {
            let past = Past::Window { window, sinks };
            let mut layout = SlotLayout::new(sinks);
            let mut total = 0;
            for new in chunks {
                let append = layout.append(new, past);
                let shown = tokens(&append.shown);
                prop_assert!(shown.is_sorted_by(|a, b| a < b));
                for query in total..total + new {
                    let start = (query + 1).saturating_sub(window.max(1));
                    for key in (0..sinks.min(query + 1)).chain(start..=query) {
                        prop_assert!(shown.contains(&(key as i64)), "query {query} misses {key}");
                    }
                }
                let kept: Vec<_> =
                    layout.slots_of(&append.kept).into_iter().flatten().map(|s| tokens(&layout)[s]).collect();
                prop_assert_eq!(&kept, &tokens(&append.kept));
                total += new;
                layout = append.stored;
                prop_assert_eq!(layout.total(), total);
                prop_assert!(layout.is_of(past, total));
                prop_assert!(layout.used() <= sinks + 2 * window.max(1));
            }
        }

        /// A trimmed layout holds a prefix of the tokens, enough for the next query, or is refused.
        #[test]
        fn trimmed_is_a_prefix(
            window in 0usize..7,
            sinks in 0usize..4,
            chunks in proptest::collection::vec(1usize..9, 1..12),
            share in 0.0f64..=1.0,
        ) {
            let past = Past::Window { window, sinks };
            let layout = chunks.iter().fold(SlotLayout::new(sinks), |l, &n| l.append(n, past).stored);
            let total = (layout.total() as f64 * share) as usize;
            let all = tokens(&layout);
            let enough = (0..sinks.min(total))
                .chain((total + 1).saturating_sub(window.max(1))..total)
                .all(|key| all.contains(&(key as i64)));
            let trimmed = layout.trim(total, past);
            prop_assert_eq!(trimmed.is_some(), enough);
            if let Some(trimmed) = trimmed {
                prop_assert_eq!(trimmed.total(), total);
                prop_assert!(trimmed.is_of(past, total));
                prop_assert_eq!(tokens(&trimmed), &all[..trimmed.used()]);
            }
        }
    }
}
