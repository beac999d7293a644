//! The rule: a small tree of leaves under `&`, `|` and `!`.
//!
//! A [`Mask`] holds no `[queries, keys]` matrix. It says for one cell at a time, by the position of
//! its query and of its key, whether the query may see the key; a [`Grid`](super::Grid) supplies
//! the positions when it is asked.

use std::ops::{BitAnd, BitOr, Not};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::leaves::{Documents, HiddenFlags, Leaf};

/// Which keys each query may see: a rule, small and cheap to clone, that knows no backend.
///
/// Made from leaves ([`Mask::look_ahead`], [`Mask::lengths`], [`Mask::window_keys`], ...) and
/// combined:
///
/// | expression | a key is visible where |
/// |---|---|
/// | `a & b` | both say visible: both restrictions apply |
/// | `a \| b` | at least one says visible |
/// | `!a` | `a` says hidden |
///
/// `Display` prints the expression, serde saves and loads it, `==` compares expressions (for what
/// they mean on a grid, ask [`Mask::equals`]). The leaves, in a table: [`leaves`](super::leaves).
///
/// ```
/// use burn_decoder::mask::{Grid, Mask};
///
/// let mask = Mask::look_ahead() & Mask::lengths([3, 2]);
/// assert_eq!(mask.to_string(), "look_ahead & lengths([3, 2])");
///
/// let lowered = mask.lower(&Grid::square(2, 3))?;
/// assert!(lowered.is_visible(0, 0, 2, 2));
/// assert!(!lowered.is_visible(0, 0, 1, 2)); // the future
/// assert!(!lowered.is_visible(1, 0, 2, 2)); // the padding of row 1
/// # Ok::<(), burn_decoder::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a mask is a value: operators and methods give a new one"]
pub struct Mask(pub(super) Arc<Rule>);

/// One node of the tree. Whoever walks it does so by [`tree`](super::tree).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    #[serde(with = "saved_leaf")]
    Leaf(Leaf),
    And(Mask, Mask),
    Or(Mask, Mask),
    Not(Mask),
}

impl Mask {
    pub(super) fn new(rule: Rule) -> Self {
        Self(Arc::new(rule))
    }

    pub(super) fn rule(&self) -> &Rule {
        &self.0
    }
}

impl Not for Mask {
    type Output = Mask;

    fn not(self) -> Mask {
        Mask::new(Rule::Not(self))
    }
}

impl Not for &Mask {
    type Output = Mask;

    fn not(self) -> Mask {
        !self.clone()
    }
}

/// `left op right` for each mixture of values and references.
macro_rules! binary_operator {
    ($($trait:ident $function:ident $rule:ident)*) => {$(
        impl $trait<Mask> for Mask {
            type Output = Mask;

            fn $function(self, right: Mask) -> Mask {
                Mask::new(Rule::$rule(self, right))
            }
        }

        impl $trait<&Mask> for Mask {
            type Output = Mask;

            fn $function(self, right: &Mask) -> Mask {
                self.$function(right.clone())
            }
        }

        impl $trait<Mask> for &Mask {
            type Output = Mask;

            fn $function(self, right: Mask) -> Mask {
                self.clone().$function(right)
            }
        }

        impl $trait<&Mask> for &Mask {
            type Output = Mask;

            fn $function(self, right: &Mask) -> Mask {
                self.clone().$function(right.clone())
            }
        }
    )*};
}

binary_operator! {
    BitAnd bitand And
    BitOr bitor Or
}

// By hand, because serde's own `Arc` support is a feature that nothing else here needs.
impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Rule::deserialize(deserializer).map(Self::new)
    }
}

/// A leaf in a file: those by position lie one level deeper than the others, under `band`.
mod saved_leaf {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum SavedLeaf {
        Band(Leaf),
        Documents(Documents),
        Flags(HiddenFlags),
    }

    pub(super) fn serialize<S: Serializer>(leaf: &Leaf, serializer: S) -> Result<S::Ok, S::Error> {
        let saved = match leaf.clone() {
            Leaf::Documents(documents) => SavedLeaf::Documents(documents),
            Leaf::Flags(flags) => SavedLeaf::Flags(flags),
            band => SavedLeaf::Band(band),
        };
        saved.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Leaf, D::Error> {
        Ok(match SavedLeaf::deserialize(deserializer)? {
            SavedLeaf::Band(band) => band,
            SavedLeaf::Documents(documents) => Leaf::Documents(documents),
            SavedLeaf::Flags(flags) => Leaf::Flags(flags),
        })
    }
}
