//! A mask as text: the expression that made it.

use std::fmt::{Display, Formatter, Result, Write};

use super::Mask;
use super::rule::Rule;

/// The expression, in the words of the constructors: `look_ahead & lengths([3, 5])`. Long lists are
/// cut short.
impl Display for Mask {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.rule() {
            Rule::Leaf(leaf) => leaf.fmt(f),
            Rule::Not(a) => {
                f.write_char('!')?;
                operand(a, f, |rule| matches!(rule, Rule::And(..) | Rule::Or(..)))
            }
            Rule::And(a, b) => infix(a, " & ", b, f, |rule| matches!(rule, Rule::Or(..))),
            Rule::Or(a, b) => infix(a, " | ", b, f, |rule| matches!(rule, Rule::And(..))),
        }
    }
}

fn infix(
    a: &Mask,
    operator: &str,
    b: &Mask,
    f: &mut Formatter<'_>,
    in_brackets: fn(&Rule) -> bool,
) -> Result {
    operand(a, f, in_brackets)?;
    f.write_str(operator)?;
    operand(b, f, in_brackets)
}

fn operand(mask: &Mask, f: &mut Formatter<'_>, in_brackets: fn(&Rule) -> bool) -> Result {
    if in_brackets(mask.rule()) { write!(f, "({mask})") } else { mask.fmt(f) }
}

/// `[1, 2, 3]`, cut short after a few.
pub(super) struct List<'a, T>(pub(super) &'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        const MOST: usize = 8;
        f.write_char('[')?;
        for (index, item) in self.0.iter().take(MOST).enumerate() {
            write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
        }
        if self.0.len() > MOST {
            write!(f, ", .. {} in all", self.0.len())?;
        }
        f.write_char(']')
    }
}
