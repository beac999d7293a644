//! Lowering: from a rule and a grid to the spans and flags that a kernel gets.
//!
//! One walk down the tree. A `!` is carried to the leaves (De Morgan), where its result is mostly a
//! span again; the results are combined on the way up by the algebra of [`Parts`]. Look-ahead,
//! windows, lengths, prefixes, chunks and documents in one piece cost `O(queries)`; nothing but
//! flags, and unions with a gap, costs `queries * keys`.

use super::array::Array;
use super::documents::Documents;
use super::leaf::{Band, Flags, Leaf};
use super::parts::Parts;
use super::rule::Rule;
use super::{Grid, LoweredMask, Mask, Span};
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
        let parts = lower(self, false, grid)?.finish(grid);
        Ok(LoweredMask::new(grid.clone(), parts))
    }

    /// Refuses a grid that a leaf was not made for.
    pub(super) fn check(&self, grid: &Grid) -> Result<()> {
        match self.rule() {
            Rule::Leaf(leaf) => leaf.check(grid),
            Rule::And(a, b) | Rule::Or(a, b) => a.check(grid).and_then(|()| b.check(grid)),
            Rule::Not(a) => a.check(grid),
        }
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
        let parts = Parts::of(self).and(Parts::of(&more))?.finish(grid);
        Ok(Self::new(grid.clone(), parts))
    }
}

/// The parts of `mask`, or of its opposite.
fn lower(mask: &Mask, opposite: bool, grid: &Grid) -> Result<Parts> {
    match (mask.rule(), opposite) {
        (Rule::Leaf(leaf), false) => Ok(leaf_parts(leaf, grid)),
        (Rule::Leaf(leaf), true) => leaf_parts(leaf, grid).not(grid),
        (Rule::Not(a), opposite) => lower(a, !opposite, grid),
        (Rule::And(a, b), false) | (Rule::Or(a, b), true) => {
            lower(a, opposite, grid)?.and(lower(b, opposite, grid)?)
        }
        (Rule::Or(a, b), false) | (Rule::And(a, b), true) => {
            lower(a, opposite, grid)?.or(lower(b, opposite, grid)?, grid)
        }
    }
}

fn leaf_parts(leaf: &Leaf, grid: &Grid) -> Parts {
    match leaf {
        Leaf::Band(Band::AllVisible) => Parts::default(),
        Leaf::Band(band) => Parts::spans(band_spans(band, grid)),
        Leaf::Documents(documents) if documents.in_one_piece() => {
            Parts::spans(document_spans(documents, grid))
        }
        Leaf::Documents(documents) => Parts::flags(document_cells(documents, grid), grid),
        Leaf::Flags(Flags { cells, .. }) => {
            Parts::flags(Array { shape: cells.shape, data: cells.hidden.clone() }, grid)
        }
    }
}

fn band_spans(band: &Band, grid: &Grid) -> Array<Span> {
    let batch = if band.depends_on_batch() { grid.batch() } else { 1 };
    let queries = if band.depends_on_query() { grid.queries() } else { 1 };
    let cells = (0..batch).flat_map(|b| (0..queries).map(move |q| (b, q)));
    let spans = cells.map(|(b, q)| {
        let visible = band.visible_positions(b, grid.query_position(q));
        grid.span_of(visible.start, visible.end)
    });
    Array::new([batch, 1, queries, 1], spans.collect())
}

fn document_spans(documents: &Documents, grid: &Grid) -> Array<Span> {
    let mut spans = Vec::with_capacity(grid.batch() * grid.queries());
    for b in 0..grid.batch() {
        let pieces = documents.piece_of_position(b);
        spans.extend((0..grid.queries()).map(|q| {
            let (start, end) = pieces[grid.query_position(q) as usize];
            grid.span_of(start, end)
        }));
    }
    Array::new([grid.batch(), 1, grid.queries(), 1], spans)
}

fn document_cells(documents: &Documents, grid: &Grid) -> Array<bool> {
    let mut hidden = Vec::with_capacity(grid.batch() * grid.queries() * grid.keys());
    for b in 0..grid.batch() {
        for q in 0..grid.queries() {
            let id = documents.id(b, grid.query_position(q));
            hidden.extend((0..grid.keys()).map(|k| documents.id(b, grid.key_position(k)) != id));
        }
    }
    Array::new([grid.batch(), 1, grid.queries(), grid.keys()], hidden)
}
