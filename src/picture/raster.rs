//! A matrix as few enough cells to be drawn, each of one colour.

/// How a cell is painted, over the colour of an empty one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Paint {
    /// As SVG writes it: `#1f5f99`.
    pub(crate) colour: &'static str,
    /// From 0 (an empty cell) to 1.
    pub(crate) opacity: f32,
}

impl Paint {
    /// Nothing over the empty cell.
    pub(crate) const EMPTY: Self = Self { colour: "#e6e6e6", opacity: 0.0 };
    /// Nothing over the paper.
    pub(crate) const WHITE: Self = Self { colour: "#ffffff", opacity: 1.0 };
    /// A key that is seen.
    pub(crate) const VISIBLE: Self = Self { colour: "#1f5f99", opacity: 1.0 };

    /// The same colour, so much of it.
    pub(crate) fn faded(self, opacity: f32) -> Self {
        if opacity > 0.0 { Self { opacity, ..self } } else { Self::EMPTY }
    }
}

/// Painted blocks of cells, `[rows, columns]`.
pub(crate) struct Raster {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) paints: Vec<Paint>,
    /// Queries in a block.
    pub(crate) query_step: usize,
    /// Keys in a block.
    pub(crate) key_step: usize,
}

impl Raster {
    /// At most `most` blocks along an axis, each painted `paint` by the mean of its shades, which go
    /// from 0 to 1. `row` appends the shades of the keys of one query.
    pub(crate) fn of_shades(
        [queries, keys]: [usize; 2],
        most: usize,
        paint: Paint,
        mut row: impl FnMut(usize, &mut Vec<f32>),
    ) -> Self {
        let [query_step, key_step] = [queries, keys].map(|cells| step(cells, most));
        let (rows, columns) = (queries.div_ceil(query_step), keys.div_ceil(key_step));
        let mut shades = vec![0.0; rows * columns];
        let mut cells = Vec::with_capacity(keys);
        for query in 0..queries {
            cells.clear();
            row(query, &mut cells);
            let queries_in_block = query_step.min(queries - query / query_step * query_step);
            for (column, block) in cells.chunks(key_step).enumerate() {
                shades[query / query_step * columns + column] +=
                    block.iter().sum::<f32>() / (block.len() * queries_in_block) as f32;
            }
        }
        let paints = shades.into_iter().map(|shade| paint.faded(shade)).collect();
        Self { rows, columns, paints, query_step, key_step }
    }

    /// At most `most` blocks along an axis. `block` paints one, by the first query and the first key
    /// in it and the number of cells along its sides.
    pub(crate) fn of_blocks(
        length: usize,
        most: usize,
        block: impl Fn(usize, usize, usize) -> Paint,
    ) -> Self {
        let step = step(length, most);
        let starts = || (0..length).step_by(step);
        let paints = starts().flat_map(|query| starts().map(move |key| (query, key)));
        let paints: Vec<Paint> = paints.map(|(query, key)| block(query, key, step)).collect();
        let rows = starts().count();
        Self { rows, columns: rows, paints, query_step: step, key_step: step }
    }

    pub(crate) fn row(&self, row: usize) -> &[Paint] {
        &self.paints[row * self.columns..][..self.columns]
    }

    pub(crate) fn in_blocks(&self) -> bool {
        self.query_step > 1 || self.key_step > 1
    }
}

/// The cells in a block along an axis of so many.
fn step(cells: usize, most: usize) -> usize {
    cells.div_ceil(most).max(1)
}
