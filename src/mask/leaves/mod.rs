//! The leaves: the plain rules that masks are combined from, one in each file.
//!
//! | leaf | query `q` sees key `k` if |
//! |---|---|
//! | [`Mask::all_visible`] | always |
//! | [`Mask::look_ahead`] | `k <= q` |
//! | [`Mask::window_keys`]`(w)` | `q - w < k <= q` |
//! | [`Mask::look_back`]`(w)` | `q - w <= k <= q` |
//! | [`Mask::look_around`]`(a, b)` | `q - a <= k <= q + b` |
//! | [`Mask::dilated_window`]`(w, d)` | `q - w < k <= q`, and `d` divides `q - k` |
//! | [`Mask::lengths`] | `k < length` of its row: right padding |
//! | [`Mask::pad_counts`] | `k >= count` of its row: left padding |
//! | [`Mask::padding`] | the token of `k` isn't the pad id |
//! | [`Mask::prefix`]`(n)`, [`Mask::sinks`]`(n)` | `k < n` |
//! | [`Mask::chunks`]`(c)` | `q / c = k / c`, rounded down |
//! | [`Mask::document_lengths`], [`Mask::document_ids`] | both lie in one document |
//! | [`Mask::from_hidden`], [`Mask::from_hidden_keys`], and the same from `visible` | its flag says so |
//!
//! `q` and `k` are positions, so a rule means the same in a full sequence, in a chunk of it, and
//! behind a cache. Only flags of tensors go by index. Position 0 is the first place of a row; for
//! rows that begin with padding, [`Mask::left_padded`] lets it be the first token.
//!
//! A new leaf is a file with its constructor and its `Predicate`, and its lines here.

mod all_visible;
mod behind_pads;
mod chunks;
mod dilated_window;
mod documents;
mod flags;
mod look_ahead;
mod padding;
mod predicate;
mod prefix;
mod window;

use std::fmt::{Display, Formatter, Result};
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::{Mask, rule::Rule};
pub(super) use behind_pads::BehindPads;
pub(super) use documents::Documents;
pub(super) use flags::HiddenFlags;
pub(super) use predicate::{Cell, Predicate};

/// A leaf of the tree. The names of the variants are those of saved masks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Leaf {
    AllVisible,
    LookAhead,
    Lengths(padding::Lengths),
    PadCounts(padding::PadCounts),
    WindowKeys(window::WindowKeys),
    LookBack(window::LookBack),
    LookAround(window::LookAround),
    DilatedWindow(dilated_window::DilatedWindow),
    Prefix(prefix::Prefix),
    Sinks(prefix::Sinks),
    Chunks(chunks::Chunks),
    BehindPads(BehindPads),
    Documents(Documents),
    Flags(HiddenFlags),
}

impl Leaf {
    /// What the leaf says.
    pub(super) fn predicate(&self) -> &dyn Predicate {
        match self {
            Self::AllVisible => &all_visible::AllVisible,
            Self::LookAhead => &look_ahead::LookAhead,
            Self::Lengths(leaf) => leaf,
            Self::PadCounts(leaf) => leaf,
            Self::WindowKeys(leaf) => leaf,
            Self::LookBack(leaf) => leaf,
            Self::LookAround(leaf) => leaf,
            Self::DilatedWindow(leaf) => leaf,
            Self::Prefix(leaf) => leaf,
            Self::Sinks(leaf) => leaf,
            Self::Chunks(leaf) => leaf,
            Self::BehindPads(leaf) => leaf,
            Self::Documents(leaf) => leaf,
            Self::Flags(leaf) => leaf,
        }
    }
}

/// The leaf, in the words of its constructor.
impl Display for Leaf {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.predicate().fmt(f)
    }
}

impl From<Leaf> for Mask {
    fn from(leaf: Leaf) -> Self {
        Self::new(Rule::Leaf(leaf))
    }
}

/// A count as a position; a count that no position reaches is as good as the last one.
fn position(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn not_zero(field: &'static str, value: usize) -> crate::Result<NonZeroUsize> {
    NonZeroUsize::new(value).ok_or_else(|| crate::Error::Config {
        field,
        expected: "at least 1 key (a query's own); leave the part out to hide nothing".into(),
        got: "0".into(),
    })
}
