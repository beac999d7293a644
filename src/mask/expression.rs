//! A mask as text: the expression that made it.

use std::fmt::{Display, Formatter, Result, Write};

use super::Mask;
use super::documents::Documents;
use super::leaf::{Band, Flags, Leaf, Source};
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

impl Display for Leaf {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Band(band) => band.fmt(f),
            Self::Documents(documents) => documents.fmt(f),
            Self::Flags(flags) => flags.fmt(f),
        }
    }
}

impl Display for Band {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::AllVisible => f.write_str("all_visible"),
            Self::LookAhead => f.write_str("look_ahead"),
            Self::Lengths(lengths) => write!(f, "lengths({})", List(lengths)),
            Self::PadCounts(counts) => write!(f, "pad_counts({})", List(counts)),
            Self::WindowKeys(keys) => write!(f, "window_keys({keys})"),
            Self::LookBack(keys) => write!(f, "look_back({keys})"),
            Self::LookAround { back, ahead } => write!(f, "look_around({back}, {ahead})"),
            Self::Prefix(keys) => write!(f, "prefix({keys})"),
            Self::Sinks(keys) => write!(f, "sinks({keys})"),
            Self::Chunks(keys) => write!(f, "chunks({keys})"),
            Self::BehindPads { band, counts, keys } => {
                let what = if *keys { "left_padded" } else { "queries_left_padded" };
                write!(f, "{band}.{what}({})", List(counts))
            }
        }
    }
}

impl Display for Documents {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let whole = self.in_one_piece();
        f.write_str(if whole { "document_lengths(" } else { "document_pieces(" })?;
        let rows: Vec<String> = (0..self.rows())
            .map(|row| {
                let piece = |(id, length)| {
                    if whole { format!("{length}") } else { format!("{length} of {id}") }
                };
                List(&self.pieces(row).map(piece).collect::<Vec<_>>()).to_string()
            })
            .collect();
        write!(f, "{})", List(&rows))
    }
}

impl Display for Flags {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let [batch, heads, queries, keys] = self.cells.shape;
        match self.source {
            Source::Padding { pad_id } => write!(f, "padding(pad_id {pad_id})"),
            Source::Keys => write!(f, "hidden_keys([{batch}, {keys}])"),
            Source::Cells => write!(f, "hidden_cells([{batch}, {heads}, {queries}, {keys}])"),
        }
    }
}

/// `[1, 2, 3]`, cut short after a few.
struct List<'a, T>(&'a [T]);

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
