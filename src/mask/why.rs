//! One cell at a time: is it visible, and if not, which part of the mask hides it?
//!
//! Answered from the rule itself, leaf by leaf. Lowering is not asked, so the two can be
//! held against each other.

use std::fmt;

use super::leaves::{Cell, Leaf};
use super::tree::Join;
use super::{Grid, Mask};
use crate::{Error, Result};

/// Why a cell is hidden: every part of the mask that has a share in it.
///
/// Of `a & b` the ones that hide the cell; of `a | b` both, since both must.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The parts, from left to right.
    pub parts: Vec<HidingPart>,
}

/// One leaf that hides a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct HidingPart {
    /// What kind of hiding this is.
    pub cause: Cause,
    /// The leaf, or the leaf under `!`.
    pub mask: Mask,
    /// What holds in this cell.
    pub fact: String,
}

/// Kinds of hiding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The key comes after the query.
    Future,
    /// The key is padding.
    Padding,
    /// The key lies outside the query's window.
    Window,
    /// The key lies behind the prefix, or is none of the sinks.
    Prefix,
    /// The key lies in another chunk.
    Chunk,
    /// The key belongs to another document.
    Document,
    /// A flag of a tensor hides the key or the cell.
    Flag,
    /// The leaf stands under `!` and would show the key.
    Opposite,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future => "future",
            Self::Padding => "padding",
            Self::Window => "outside the window",
            Self::Prefix => "outside the prefix",
            Self::Chunk => "another chunk",
            Self::Document => "another document",
            Self::Flag => "flag",
            Self::Opposite => "opposite",
        })
    }
}

impl fmt::Display for HidingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.cause, self.mask, self.fact)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl Mask {
    /// Whether the query may see the key, asked of the rule for this one cell.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if the cell lies outside the grid, or a part was made for other sizes.
    pub fn is_visible(
        &self,
        grid: &Grid,
        batch: usize,
        head: usize,
        query: usize,
        key: usize,
    ) -> Result<bool> {
        Ok(self.shows(&self.cell(grid, [batch, head, query, key])?))
    }

    /// Why the query may not see the key; none if it may.
    ///
    /// ```
    /// use burn_decoder::mask::{Grid, Mask};
    ///
    /// let mask = Mask::look_ahead() & Mask::lengths([4]);
    /// let reason = mask.why_hidden(&Grid::square(1, 6), 0, 0, 3, 5)?.unwrap();
    /// assert_eq!(
    ///     reason.to_string(),
    ///     "future: look_ahead: key position 5 comes after query position 3; \
    ///      padding: lengths([4]): key position 5 is not before length 4"
    /// );
    /// # Ok::<(), burn_decoder::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Mask::is_visible`].
    pub fn why_hidden(
        &self,
        grid: &Grid,
        batch: usize,
        head: usize,
        query: usize,
        key: usize,
    ) -> Result<Option<Reason>> {
        let parts = self.hiding_parts(&self.cell(grid, [batch, head, query, key])?);
        Ok((!parts.is_empty()).then_some(Reason { parts }))
    }

    fn cell(&self, grid: &Grid, [batch, head, query, key]: [usize; 4]) -> Result<Cell> {
        self.check(grid)?;
        let heads = self.heads();
        let inside = batch < grid.batch()
            && query < grid.queries()
            && key < grid.keys()
            && (heads == 1 || head < heads);
        if !inside {
            return Err(Error::Mask {
                mask: "cell",
                expected: format!(
                    "one of [batch {}, heads {heads}, queries {}, keys {}]",
                    grid.batch(),
                    grid.queries(),
                    grid.keys()
                ),
                got: format!("[{batch}, {head}, {query}, {key}]"),
            });
        }
        Ok(Cell::of(grid, [batch, head, query, key]))
    }

    /// The number of heads that the mask tells apart.
    fn heads(&self) -> usize {
        self.fold(&|leaf, _| leaf.predicate().heads(), &|_, a, b| match (a, b) {
            (1, heads) | (heads, 1) => heads,
            (a, b) => a.min(b),
        })
    }

    fn shows(&self, cell: &Cell) -> bool {
        self.fold(&|leaf, opposite| leaf.predicate().is_visible(cell) != opposite, &|join, a, b| {
            match join {
                Join::And => a && b,
                Join::Or => a || b,
            }
        })
    }

    /// The parts that hide the cell; none if the mask shows it.
    fn hiding_parts(&self, cell: &Cell) -> Vec<HidingPart> {
        let of_leaf = |leaf: &Leaf, opposite| match leaf.predicate().is_visible(cell) {
            shown if shown != opposite => Vec::new(),
            shown => vec![HidingPart::of(leaf, shown, cell)],
        };
        self.fold(&of_leaf, &|join, a, b| match join {
            // What either side shows is not hidden by the other.
            Join::Or if a.is_empty() || b.is_empty() => Vec::new(),
            Join::And | Join::Or => [a, b].concat(),
        })
    }
}

impl HidingPart {
    /// The leaf that hides a cell, or, under `!`, shows it.
    fn of(leaf: &Leaf, shown: bool, cell: &Cell) -> Self {
        let mask = Mask::from(leaf.clone());
        if !shown {
            let (cause, fact) = leaf.predicate().why_hidden(cell);
            return Self { cause, mask, fact };
        }
        let fact = format!(
            "{leaf} shows key position {} to query position {}",
            cell.key_position, cell.query_position
        );
        Self { cause: Cause::Opposite, mask: !mask, fact }
    }
}
