//! The walks over a rule's tree: whoever asks something of all leaves passes it here.

use super::Mask;
use super::leaves::Leaf;
use super::rule::Rule;
use crate::Result;

/// How what was found of the two sides is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// A key is visible where both sides show it.
    And,
    /// A key is visible where at least one side shows it.
    Or,
}

impl Mask {
    /// The same tree with other leaves; a leaf for which there is none stays as it is.
    pub(super) fn map_leaves(&self, other: &impl Fn(&Leaf) -> Option<Leaf>) -> Self {
        match self.rule() {
            Rule::Leaf(leaf) => other(leaf).map_or_else(|| self.clone(), Self::from),
            Rule::And(a, b) => a.map_leaves(other) & b.map_leaves(other),
            Rule::Or(a, b) => a.map_leaves(other) | b.map_leaves(other),
            Rule::Not(a) => !a.map_leaves(other),
        }
    }

    /// The first error of any leaf, from left to right.
    pub(super) fn try_leaves(&self, check: &impl Fn(&Leaf) -> Result<()>) -> Result<()> {
        self.fold(&|leaf, _| check(leaf), &|_, a, b| a.and(b))
    }

    /// What all leaves give, joined from the leaves up.
    ///
    /// A `!` is carried down to the leaves (De Morgan): `of_leaf` is told whether the leaf or its
    /// opposite is meant, and only `And` and `Or` are left to join.
    pub(super) fn fold<T>(
        &self,
        of_leaf: &impl Fn(&Leaf, bool) -> T,
        join: &impl Fn(Join, T, T) -> T,
    ) -> T {
        self.fold_from(false, of_leaf, join)
    }

    fn fold_from<T>(
        &self,
        opposite: bool,
        of_leaf: &impl Fn(&Leaf, bool) -> T,
        join: &impl Fn(Join, T, T) -> T,
    ) -> T {
        let (how, a, b) = match (self.rule(), opposite) {
            (Rule::Leaf(leaf), _) => return of_leaf(leaf, opposite),
            (Rule::Not(a), _) => return a.fold_from(!opposite, of_leaf, join),
            (Rule::And(a, b), false) | (Rule::Or(a, b), true) => (Join::And, a, b),
            (Rule::Or(a, b), false) | (Rule::And(a, b), true) => (Join::Or, a, b),
        };
        join(how, a.fold_from(opposite, of_leaf, join), b.fold_from(opposite, of_leaf, join))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_not_is_carried_to_the_leaves() {
        let mask = !((Mask::look_ahead() | !Mask::sinks(1)) & Mask::lengths([2]));
        let text = mask.fold(
            &|leaf, opposite| format!("{}{leaf}", if opposite { "not " } else { "" }),
            &|join, a, b| format!("({a} {join:?} {b})"),
        );
        assert_eq!(text, "((not look_ahead And sinks(1)) Or not lengths([2]))");
    }

    #[test]
    fn other_leaves_leave_the_tree_as_it_is() {
        let mask = !(Mask::look_ahead() | !Mask::sinks(1)) & Mask::lengths([2]);
        let other = mask.map_leaves(&|leaf| (*leaf == Leaf::LookAhead).then_some(Leaf::AllVisible));
        assert_eq!(other.to_string(), "!(all_visible | !sinks(1)) & lengths([2])");
    }
}
