//! The rule: a small tree of leaves under `&`, `|` and `!`.
//!
//! A [`Mask`] holds no `[queries, keys]` matrix. It says for one cell at a time, by the position of
//! its query and of its key, whether the query may see the key; a [`Grid`](super::Grid) supplies
//! the positions when it is asked.

use std::ops::{BitAnd, BitOr, Not};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::leaf::Leaf;

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
/// they mean on a grid, ask [`Mask::equals`]).
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
#[derive(Clone, Debug, PartialEq)]
pub struct Mask(pub(super) Arc<Rule>);

/// One node of the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
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

impl From<Leaf> for Mask {
    fn from(leaf: Leaf) -> Self {
        Self::new(Rule::Leaf(leaf))
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
