//! One cell at a time: is it visible, and if not, which part of the mask hides it?
//!
//! Answered from the rule itself, by walking the tree. Lowering is not asked, so the two can be
//! held against each other.

use std::fmt;

use super::leaf::{Band, Flags, Leaf, Source, position};
use super::rule::Rule;
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

/// A cell by index and by position.
struct Cell {
    batch: usize,
    head: usize,
    query: usize,
    key: usize,
    query_position: i64,
    key_position: i64,
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
        let cell = self.cell(grid, [batch, head, query, key])?;
        let mut parts = Vec::new();
        self.explain(&cell, false, &mut parts);
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
        let (query_position, key_position) = (grid.query_position(query), grid.key_position(key));
        Ok(Cell { batch, head, query, key, query_position, key_position })
    }

    /// The number of heads that the mask tells apart.
    fn heads(&self) -> usize {
        match self.rule() {
            Rule::Leaf(Leaf::Flags(flags)) => flags.cells.shape[1],
            Rule::Leaf(_) => 1,
            Rule::Not(a) => a.heads(),
            Rule::And(a, b) | Rule::Or(a, b) => match (a.heads(), b.heads()) {
                (1, heads) | (heads, 1) => heads,
                (a, b) => a.min(b),
            },
        }
    }

    fn shows(&self, cell: &Cell) -> bool {
        match self.rule() {
            Rule::Leaf(leaf) => leaf.shows(cell),
            Rule::And(a, b) => a.shows(cell) && b.shows(cell),
            Rule::Or(a, b) => a.shows(cell) || b.shows(cell),
            Rule::Not(a) => !a.shows(cell),
        }
    }

    /// Adds the parts for which this mask, or its opposite, hides the cell; none if it shows it.
    fn explain(&self, cell: &Cell, opposite: bool, parts: &mut Vec<HidingPart>) {
        if self.shows(cell) != opposite {
            return;
        }
        match self.rule() {
            Rule::Leaf(leaf) if opposite => parts.push(HidingPart {
                cause: Cause::Opposite,
                mask: !self,
                fact: format!(
                    "{leaf} shows key position {} to query position {}",
                    cell.key_position, cell.query_position
                ),
            }),
            Rule::Leaf(leaf) => {
                let (cause, fact) = leaf.fact(cell);
                parts.push(HidingPart { cause, mask: self.clone(), fact });
            }
            Rule::And(a, b) | Rule::Or(a, b) => {
                a.explain(cell, opposite, parts);
                b.explain(cell, opposite, parts);
            }
            Rule::Not(a) => a.explain(cell, !opposite, parts),
        }
    }
}

impl Leaf {
    fn shows(&self, cell: &Cell) -> bool {
        match self {
            Self::Band(band) => {
                band.visible_positions(cell.batch, cell.query_position).contains(&cell.key_position)
            }
            Self::Documents(documents) => {
                documents.id(cell.batch, cell.query_position)
                    == documents.id(cell.batch, cell.key_position)
            }
            Self::Flags(Flags { cells, .. }) => {
                !cells.is_hidden(cell.batch, cell.head, cell.query, cell.key)
            }
        }
    }

    /// Why this leaf hides the cell.
    fn fact(&self, cell: &Cell) -> (Cause, String) {
        let (query, key) = (cell.query_position, cell.key_position);
        match self {
            Self::Band(band) => band.fact(cell),
            Self::Documents(documents) => (
                Cause::Document,
                format!(
                    "key position {key} belongs to document {}, query position {query} to {}",
                    documents.id(cell.batch, key),
                    documents.id(cell.batch, query)
                ),
            ),
            Self::Flags(Flags { source, .. }) => match source {
                Source::Padding { pad_id } => {
                    (Cause::Padding, format!("key {} is the pad token {pad_id}", cell.key))
                }
                Source::Keys => (Cause::Flag, format!("key {} is flagged", cell.key)),
                Source::Cells => {
                    (Cause::Flag, format!("query {}, key {} is flagged", cell.query, cell.key))
                }
            },
        }
    }
}

impl Band {
    fn fact(&self, cell: &Cell) -> (Cause, String) {
        let (query, key) = (cell.query_position, cell.key_position);
        let visible = self.visible_positions(cell.batch, query);
        let future =
            || (Cause::Future, format!("key position {key} comes after query position {query}"));
        let outside = |cause, whole: &str| {
            let (first, last) = (visible.start, visible.end - 1);
            let fact = format!(
                "key position {key} is outside {first}..={last}, the {whole} of query position \
                 {query}"
            );
            (cause, fact)
        };
        match self {
            Self::AllVisible => unreachable!("all_visible hides nothing"),
            Self::LookAhead => future(),
            Self::WindowKeys(_) | Self::LookBack(_) if key > query => future(),
            Self::WindowKeys(_) | Self::LookBack(_) | Self::LookAround { .. } => {
                outside(Cause::Window, "window")
            }
            Self::Chunks(_) => outside(Cause::Chunk, "chunk"),
            Self::Lengths(lengths) => (
                Cause::Padding,
                format!("key position {key} is not before length {}", lengths[cell.batch]),
            ),
            Self::PadCounts(counts) => (
                Cause::Padding,
                format!("key position {key} is before the pad count {}", counts[cell.batch]),
            ),
            Self::Prefix(keys) | Self::Sinks(keys) => {
                (Cause::Prefix, format!("key position {key} is not one of the first {keys}"))
            }
            Self::BehindPads { band, counts, keys } => {
                let pads = position(counts[cell.batch]);
                let moved = Cell {
                    query_position: query - pads,
                    key_position: if *keys { key - pads } else { key },
                    ..*cell
                };
                let (cause, fact) = band.fact(&moved);
                (cause, format!("{fact}, as counted behind {pads} padded places"))
            }
        }
    }
}
