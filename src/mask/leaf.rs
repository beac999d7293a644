//! The leaves: the plain rules that masks are combined from.
//!
//! Most leaves say: *a query at position `q` sees one range of positions*. Those are all of
//! [`Band`]; the rest are flags in a tensor, [`Flags`]. A band is asked by position, so it means
//! the same in a full sequence, in a chunk of it and behind a rolling cache; flags are asked by
//! tensor index, since a tensor has nothing else.

use std::num::NonZeroUsize;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::documents::Documents;
use super::{Grid, HiddenCells};
use crate::{Error, Result};

/// A leaf of the tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Leaf {
    Band(Band),
    Documents(Documents),
    Flags(Flags),
}

/// A rule under which each query sees one range of positions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Band {
    AllVisible,
    LookAhead,
    Lengths(Vec<usize>),
    PadCounts(Vec<usize>),
    WindowKeys(NonZeroUsize),
    LookBack(usize),
    LookAround {
        back: usize,
        ahead: usize,
    },
    Prefix(usize),
    Sinks(usize),
    Chunks(NonZeroUsize),
    /// `band`, where position 0 of row `b` lies behind `counts[b]` padded places: that of its
    /// queries, and that of its `keys` too unless they are those of a memory.
    BehindPads {
        band: Box<Band>,
        counts: Vec<usize>,
        keys: bool,
    },
}

impl Band {
    /// The positions that the query at `query` sees in batch row `batch`.
    pub(super) fn visible_positions(&self, batch: usize, query: i64) -> Range<i64> {
        let window =
            |back, ahead| query.saturating_sub(back)..query.saturating_add(ahead).saturating_add(1);
        match self {
            Self::AllVisible => i64::MIN..i64::MAX,
            Self::LookAhead => i64::MIN..query.saturating_add(1),
            Self::Lengths(lengths) => i64::MIN..position(lengths[batch]),
            Self::PadCounts(counts) => position(counts[batch])..i64::MAX,
            Self::WindowKeys(keys) => window(position(keys.get() - 1), 0),
            Self::LookBack(back) => window(position(*back), 0),
            Self::LookAround { back, ahead } => window(position(*back), position(*ahead)),
            Self::Prefix(keys) | Self::Sinks(keys) => i64::MIN..position(*keys),
            Self::Chunks(size) => {
                let size = position(size.get());
                let start = query.div_euclid(size).saturating_mul(size);
                start..start.saturating_add(size)
            }
            Self::BehindPads { band, counts, keys } => {
                let pads = position(counts[batch]);
                let visible = band.visible_positions(batch, query.saturating_sub(pads));
                let by = if *keys { pads } else { 0 };
                visible.start.saturating_add(by)..visible.end.saturating_add(by)
            }
        }
    }

    /// Whether the rule differs between rows of the batch.
    pub(super) fn depends_on_batch(&self) -> bool {
        matches!(self, Self::Lengths(_) | Self::PadCounts(_) | Self::BehindPads { .. })
    }

    /// Whether the rule differs between queries.
    pub(super) fn depends_on_query(&self) -> bool {
        match self {
            Self::LookAhead
            | Self::WindowKeys(_)
            | Self::LookBack(_)
            | Self::LookAround { .. }
            | Self::Chunks(_) => true,
            Self::AllVisible
            | Self::Lengths(_)
            | Self::PadCounts(_)
            | Self::Prefix(_)
            | Self::Sinks(_) => false,
            Self::BehindPads { band, .. } => band.depends_on_query(),
        }
    }
}

/// A count as a position; a count that no position reaches is as good as the last one.
pub(super) fn position(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Flags of a tensor, and where they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Flags {
    pub(super) source: Source,
    pub(super) cells: HiddenCells,
}

/// What the flags of a [`Flags`] leaf say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// Every token equal to this id is hidden.
    Padding {
        /// The id.
        pad_id: i64,
    },
    /// A tensor of flags for each key.
    Keys,
    /// A tensor of flags for each cell.
    Cells,
}

impl Leaf {
    /// Refuses sizes that the leaf was not made for.
    pub(super) fn check(&self, grid: &Grid) -> Result<()> {
        match self {
            Self::Band(Band::Lengths(lengths)) => check_counts("lengths", lengths, grid),
            Self::Band(Band::PadCounts(counts)) => check_counts("pad_counts", counts, grid),
            Self::Band(Band::BehindPads { counts, .. }) => check_rows("left_padded", counts, grid),
            Self::Band(_) => Ok(()),
            Self::Documents(documents) => documents.check(grid),
            Self::Flags(flags) => flags.check(grid),
        }
    }
}

/// One count for each row of the batch.
fn check_rows(mask: &'static str, counts: &[usize], grid: &Grid) -> Result<()> {
    if counts.len() != grid.batch() {
        return Err(Error::Mask {
            mask,
            expected: format!("one for each of the {} rows of the batch", grid.batch()),
            got: format!("{} of them", counts.len()),
        });
    }
    Ok(())
}

/// One count for each row of the batch, none beyond the last key.
fn check_counts(mask: &'static str, counts: &[usize], grid: &Grid) -> Result<()> {
    check_rows(mask, counts, grid)?;
    let most = grid.positions_end();
    match counts.iter().position(|&count| position(count) > most) {
        None => Ok(()),
        Some(row) => Err(Error::Mask {
            mask,
            expected: format!(
                "at most {most}, as the keys end there; cut it to the keys if they are meant to be \
                 the front of a longer sequence"
            ),
            got: format!("{} in batch row {row}", counts[row]),
        }),
    }
}

impl Flags {
    fn check(&self, grid: &Grid) -> Result<()> {
        let mask = match self.source {
            Source::Padding { .. } => "padding",
            Source::Keys => "hidden_keys",
            Source::Cells => "hidden_cells",
        };
        let [batch, heads, queries, keys] = self.cells.shape;
        let fits = |axis, size| axis == 1 || axis == size;
        if fits(batch, grid.batch()) && fits(queries, grid.queries()) && fits(keys, grid.keys()) {
            return Ok(());
        }
        Err(Error::Mask {
            mask,
            expected: format!(
                "a shape that broadcasts to [batch {}, heads, queries {}, keys {}]",
                grid.batch(),
                grid.queries(),
                grid.keys()
            ),
            got: format!("[{batch}, {heads}, {queries}, {keys}]"),
        })
    }
}
