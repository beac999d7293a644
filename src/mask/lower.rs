//! Lowering: from a rule and a grid to the spans and flags that a kernel gets.
//!
//! One fold over the tree. A `!` is carried to the leaves (De Morgan), where its result is mostly
//! one range of keys again, or two; the results are combined on the way up by the algebra of
//! [`MaskParts`]. Look-ahead, windows, lengths, prefixes, chunks, documents in one piece, and what is
//! combined of them with at most one gap in a row (a window with sinks) cost `O(queries)`; nothing
//! but flags and rows with more gaps costs `queries * keys`.

use super::leaves::Leaf;
use super::parts::MaskParts;
use super::tree::Join;
use super::{Grid, LoweredMask, Mask};
use crate::{Error, Result};

impl Mask {
    /// Evaluates the rule on a grid, into what a kernel gets.
    ///
    /// Do it once for a batch and hand the result to every layer.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if a part was made for other sizes than the grid has.
    pub fn lower(&self, grid: &Grid) -> Result<LoweredMask> {
        if u32::try_from(grid.keys()).is_err() {
            return Err(Error::Mask {
                mask: "Mask::lower",
                expected: format!("at most {} keys", u32::MAX),
                got: grid.keys().to_string(),
            });
        }
        self.check(grid)?;
        if grid.batch() == 0 || grid.queries() == 0 || grid.keys() == 0 {
            return Ok(LoweredMask::all_visible(grid.clone()));
        }
        let parts = self.parts(grid)?.finish(grid);
        Ok(LoweredMask::new(grid.clone(), parts))
    }

    /// Refuses a grid that a leaf was not made for.
    pub(super) fn check(&self, grid: &Grid) -> Result<()> {
        self.try_leaves(&|leaf| leaf.predicate().check(grid))
    }

    /// The parts of the rule, on a grid that every leaf was made for.
    fn parts(&self, grid: &Grid) -> Result<MaskParts> {
        let of_leaf = |leaf: &Leaf, opposite| {
            let parts = leaf.predicate().lower(grid);
            if opposite { parts.not(grid) } else { Ok(parts) }
        };
        self.fold(&of_leaf, &|join, a, b| match join {
            Join::And => a?.and(b?, grid),
            Join::Or => a?.or(b?, grid),
        })
    }
}

impl LoweredMask {
    /// Hides what `mask` hides, too, on the same grid.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if a part of `mask` was made for other sizes than the grid has.
    pub fn and(&self, mask: &Mask) -> Result<Self> {
        let grid = self.grid();
        let more = mask.lower(grid)?;
        if self.is_all_visible() {
            return Ok(more);
        }
        let parts = MaskParts::of(self).and(MaskParts::of(&more), grid)?.finish(grid);
        Ok(Self::new(grid.clone(), parts))
    }
}
