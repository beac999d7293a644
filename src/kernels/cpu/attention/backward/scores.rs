//! What a whole tile of weights, or of gradients of dot products, gives to its keys and queries.

use std::ops::Range;

use pulp::Simd;

use super::super::Real;
use super::super::tile_product::{Accumulate, Layout, Left, Product, Right};

/// Keys that are summed over the same queries; finer at the edge of what is visible costs more in
/// calls than it saves.
const KEY_BLOCK: usize = 32;

/// A tile, `[keys][row]`.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a, T> {
    pub(super) data: &'a [T],
    pub(super) row: usize,
    pub(super) keys: usize,
    pub(super) queries: usize,
    /// The keys of the tile that each panel sees; everything else is zero.
    pub(super) seen: &'a [Range<usize>],
    /// Queries in a panel.
    pub(super) panel: usize,
}

impl<T: Real> Scores<'_, T> {
    /// `out = data rows`: for each key the sum over queries, `[keys][width]`.
    #[inline(always)]
    pub(super) fn by_key<S: Simd>(&self, simd: S, rows: Right<T>, width: usize, out: &mut [T]) {
        let mut keys = 0..0;
        while keys.end < self.keys {
            keys = keys.end..self.keys.min(keys.end + KEY_BLOCK);
            let queries = self.queries_of(&keys);
            while keys.end < self.keys {
                let next = keys.end..self.keys.min(keys.end + KEY_BLOCK);
                if self.queries_of(&next) != queries {
                    break;
                }
                keys.end = next.end;
            }
            let data = &self.data[keys.start * self.row + queries.start..];
            let left = Left { data, layout: Layout::Rows(self.row) };
            let rows = Right { data: &rows.data[queries.start * rows.step..], step: rows.step };
            let out = &mut out[keys.start * width..];
            product(simd, [keys.len(), queries.len(), width], left, rows, out, Accumulate::Zero);
        }
    }

    /// `out += datat rows`: for each query the sum over keys, `[queries][width]`.
    #[inline(always)]
    pub(super) fn by_query<S: Simd>(&self, simd: S, rows: Right<T>, width: usize, out: &mut [T]) {
        let mut queries = 0..0;
        while queries.end < self.queries {
            let panel = queries.end / self.panel;
            let keys = self.seen[panel].clone();
            let same = self.seen[panel..].iter().take_while(|&seen| *seen == keys).count();
            queries = queries.end..self.queries.min((panel + same) * self.panel);
            let data = &self.data[keys.start * self.row + queries.start..];
            let left = Left { data, layout: Layout::Columns(self.row) };
            let rows = Right { data: &rows.data[keys.start * rows.step..], step: rows.step };
            let out = &mut out[queries.start * width..];
            product(simd, [queries.len(), keys.len(), width], left, rows, out, Accumulate::Itself);
        }
    }

    /// All queries that see one of these keys, and those between them.
    #[inline(always)]
    fn queries_of(&self, keys: &Range<usize>) -> Range<usize> {
        let sees = |seen: &Range<usize>| seen.start < keys.end && keys.start < seen.end;
        let first = self.seen.iter().position(sees).unwrap_or(0);
        let end = self.seen.iter().rposition(sees).map_or(0, |last| last + 1);
        first * self.panel..self.queries.min(end * self.panel)
    }
}

/// A product of any number of vectors in width.
#[inline(always)]
fn product<T: Real, S: Simd>(
    simd: S,
    [rows, depth, width]: [usize; 3],
    left: Left<T>,
    right: Right<T>,
    out: &mut [T],
    accumulate: Accumulate<T>,
) {
    let lanes = T::lanes::<S>();
    let mut column = 0;
    while column < width {
        let right = Right { data: &right.data[column..], step: right.step };
        let out = &mut out[column..];
        if column + 2 * lanes <= width {
            simd.vectorize(Product::<_, 2> {
                rows,
                depth,
                left,
                right,
                out,
                row: width,
                accumulate,
            });
            column += 2 * lanes;
        } else {
            simd.vectorize(Product::<_, 1> {
                rows,
                depth,
                left,
                right,
                out,
                row: width,
                accumulate,
            });
            column += lanes;
        }
    }
}
