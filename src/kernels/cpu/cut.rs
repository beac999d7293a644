//! How a product is cut for the threads.

use std::ops::Range;

/// Rows and columns of a block: its factors are packed once for many products, and stay in a core's
/// cache.
const BLOCK_SIZE: [usize; 2] = [512, 256];
/// Blocks that keep a few threads busy.
const ENOUGH_BLOCKS: usize = 4;
/// Multiplications that are worth a task.
const TASK: usize = 1 << 20;

/// A result of some rows and columns, cut into blocks for the threads: by its sizes alone, so that it does
/// not depend on their number.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub size: [usize; 2],
    /// Powers of two, which threads share evenly.
    pub blocks: [usize; 2],
}

impl Cut {
    /// For products over so many.
    pub fn new(size: [usize; 2], inner: usize) -> Self {
        let mut blocks = [1, 1];
        loop {
            let number = blocks[0] * blocks[1];
            // rows and columns of a block, as multiples of `BLOCK_SIZE`
            let excess =
                [0, 1].map(|axis| size[axis] as f64 / (blocks[axis] * BLOCK_SIZE[axis]) as f64);
            let fits = number >= ENOUGH_BLOCKS && excess[0] <= 1.0 && excess[1] <= 1.0;
            if fits || size[0] * size[1] * inner / (2 * number) < TASK {
                return Self { size, blocks };
            }
            blocks[usize::from(excess[0] < excess[1])] *= 2;
        }
    }

    pub fn len(self) -> usize {
        self.blocks[0] * self.blocks[1]
    }

    /// Rows and columns of a block, and where it begins among the elements; nothing where whole vectors
    /// left nothing for it.
    pub fn block(self, block: usize) -> Option<(Range<usize>, Range<usize>, usize)> {
        let [rows, columns] = [block / self.blocks[1], block % self.blocks[1]];
        let part = |axis: usize, index: usize| {
            // Whole vectors, but for the last one.
            let length = self.size[axis].div_ceil(self.blocks[axis]).next_multiple_of(16);
            let end = |index: usize| self.size[axis].min(index * length);
            end(index)..end(index + 1)
        };
        let (rows, columns) = (part(0, rows), part(1, columns));
        let start = rows.start * self.size[1] + columns.start;
        (!rows.is_empty() && !columns.is_empty()).then_some((rows, columns, start))
    }
}
