//! Products of matrices on the CPU, cut into blocks for the threads.

use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;

use super::cut::Cut;
use super::matrix::{Matrix, turned};
use super::{gemv, threads};

/// Elements up to which a transposed matrix is copied to rows before a product: what stays in a
/// core's cache.
const MOST_TURNED: usize = 1 << 18;

/// What a product is added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// To this, in each row.
    Bias(&'a [f32]),
    /// To what stands there already.
    Sum,
}

impl<'a> Start<'a> {
    fn of(bias: Option<&'a [f32]>) -> Self {
        bias.map_or(Self::Zero, Self::Bias)
    }

    /// The part of some columns.
    fn columns_of(self, range: &Range<usize>) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[range.clone()]),
            other => other,
        }
    }
}

/// `a b`, row-major, plus `bias` in each row.
pub(super) fn product(a: Matrix, b: Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    let len = a.rows * b.columns;
    let start = Start::of(bias);
    check(a, b, start);
    if in_one_piece(a, b) {
        let mut sum = vec![0.0; len];
        add_in_one_piece(a, b, start, &mut sum);
        return sum;
    }
    // Not filled before: each task does that for its block.
    let mut sum = Vec::with_capacity(len);
    // SAFETY: there is room for all of the product; afterwards every element of it was written.
    unsafe {
        write_blocks(a, b, start, sum.as_mut_ptr());
        sum.set_len(len);
    }
    sum
}

/// The products, row-major, and beside them so many `others`, all handed over to the threads as one: to
/// wake them up takes as long as a small product, and none waits for another.
pub(super) fn products_and<const N: usize>(
    factors: [Option<(Matrix, Matrix)>; N],
    others: usize,
    other: impl Fn(usize) + Sync,
) -> [Option<Vec<f32>>; N] {
    let mut parts = Vec::new();
    let mut cut = [const { None }; N];
    let mut products = [const { None }; N];
    for (index, factors) in factors.into_iter().enumerate() {
        let Some((a, b)) = factors else { continue };
        check(a, b, Start::Zero);
        if in_one_piece(a, b) {
            products[index] = Some(product(a, b, None));
            continue;
        }
        let blocks = Blocks::new(a, b, Start::Zero);
        let mut product = Vec::with_capacity(a.rows * b.columns);
        parts.extend((0..blocks.cut.len()).map(|block| (index, block)));
        cut[index] = Some((blocks, BlockPointer(product.as_mut_ptr())));
        products[index] = Some(product);
    }
    threads::for_each(parts.len() + others, usize::MAX, |part| match parts.get(part) {
        Some(&(index, block)) => {
            let (blocks, to) = cut[index].as_ref().expect("a product with parts");
            // SAFETY: `check` went through, nothing is empty, there is room for all of the product, and
            // each block is written once.
            unsafe { blocks.write(block, to.at(0)) };
        }
        None => other(part - parts.len()),
    });
    for (product, cut) in products.iter_mut().zip(&cut) {
        if let (Some(product), Some((blocks, _))) = (product, cut) {
            // SAFETY: all blocks, hence all elements, were written.
            unsafe { product.set_len(blocks.a.rows * blocks.b.columns) };
        }
    }
    products
}

/// Writes `a b`, row-major, to `to`, or adds it to what stands there.
pub(super) fn product_to(a: Matrix, b: Matrix, start: Start, to: &mut [f32]) {
    assert!(to.len() == a.rows * b.columns, "a product that does not fit");
    check(a, b, start);
    if in_one_piece(a, b) {
        add_in_one_piece(a, b, start, to);
    } else {
        // SAFETY: `to` has room for all of the product, and holds numbers where they are added to.
        unsafe { write_blocks(a, b, start, to.as_mut_ptr()) };
    }
}

/// `a bᵀ`, row-major, plus `bias` in each row, where `write_rows` writes any of the `columns` rows of
/// `b`, one behind the other.
pub(super) fn product_by_panels(
    a: Matrix,
    columns: usize,
    bias: Option<&[f32]>,
    write_rows: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    thread_local! {
        /// Kept by the thread: fresh memory from the system costs more than to write to it.
        static PANEL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }

    let (rows, inner) = (a.rows, a.columns);
    assert!(bias.is_none_or(|bias| bias.len() == columns), "a bias that does not fit");
    a.check();
    let start = Start::of(bias);
    let mut sum = Vec::with_capacity(rows * columns);
    let cut = Cut::new([rows, columns], inner);
    let to = BlockPointer(sum.as_mut_ptr());
    threads::for_each(cut.len(), usize::MAX, |block| {
        let Some((of_rows, of_columns, first)) = cut.block(block) else { return };
        let mut kept = PANEL.take();
        let length = of_columns.len() * inner;
        if kept.len() < length {
            kept = vec![0.0; length];
        }
        write_rows(of_columns.clone(), &mut kept[..length]);
        let b = Matrix::rows(&kept[..length], inner).transposed();
        b.check();
        let (a, start) = (a.rows_of(&of_rows), start.columns_of(&of_columns));
        // SAFETY: `check` above covers all of `a`, hence these rows, and `b`; there is room for all of the
        // product, of which each block is written once.
        unsafe { write_product(a, b, start, to.at(first), columns) };
        PANEL.set(kept);
    });
    // SAFETY: all blocks, hence all elements, were written.
    unsafe { sum.set_len(rows * columns) };
    sum
}

/// Panics where the parts do not fit each other.
fn check(a: Matrix, b: Matrix, start: Start) {
    assert!(b.rows == a.columns, "matrices that do not fit");
    if let Start::Bias(bias) = start {
        assert!(bias.len() == b.columns, "a bias that does not fit");
    }
    a.check();
    b.check();
}

/// Whether the product is not cut into blocks.
fn in_one_piece(a: Matrix, b: Matrix) -> bool {
    a.rows == 0 || b.columns == 0 || a.columns == 0 || gemv::fit(a, b)
}

fn add_in_one_piece(a: Matrix, b: Matrix, start: Start, to: &mut [f32]) {
    match start {
        Start::Zero => to.fill(0.0),
        Start::Bias(bias) if !bias.is_empty() => {
            to.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        }
        Start::Bias(_) | Start::Sum => {}
    }
    if !to.is_empty() && a.columns > 0 {
        gemv::add_product(a, b, to);
    }
}

/// A product in blocks.
struct Blocks<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    start: Start<'a>,
    cut: Cut,
    /// Whether each block of rows would turn `b` anew, element by element, as it packs it.
    turns: bool,
    /// Then `b` by rows, turned by whoever needs it first.
    turned: OnceLock<Vec<f32>>,
}

impl<'a> Blocks<'a> {
    fn new(a: Matrix<'a>, b: Matrix<'a>, start: Start<'a>) -> Self {
        let cut = Cut::new([a.rows, b.columns], a.columns);
        let small = b.rows * b.columns <= MOST_TURNED;
        let turns = b.is_transposed() && small && cut.blocks[0] > 1;
        Self { a, b, start, cut, turns, turned: OnceLock::new() }
    }

    /// Writes one of them.
    ///
    /// # Safety
    ///
    /// `check(a, b, start)` went through, nothing is empty, and `to` is valid for writing the product, of
    /// which nobody else touches this block; with [`Start::Sum`] numbers stand there.
    unsafe fn write(&self, block: usize, to: *mut f32) {
        let Some((rows, columns, first)) = self.cut.block(block) else { return };
        let b = match self.turns {
            true => Matrix::rows(self.turned.get_or_init(|| turned(self.b)), self.b.columns),
            false => self.b,
        };
        let start = self.start.columns_of(&columns);
        let (a, b) = (self.a.rows_of(&rows), b.columns_of(&columns));
        // SAFETY: `check` covers all of `a` and `b`, hence these parts, turned or not; the block begins
        // with element `first` of the product.
        unsafe { write_product(a, b, start, to.add(first), self.cut.size[1]) };
    }
}

/// Writes the product block by block.
///
/// # Safety
///
/// `check(a, b, start)` went through, nothing is empty, and `to` is valid for writing the product,
/// which nobody else touches; with [`Start::Sum`] numbers stand there.
unsafe fn write_blocks(a: Matrix, b: Matrix, start: Start, to: *mut f32) {
    let (blocks, to) = (Blocks::new(a, b, start), BlockPointer(to));
    threads::for_each(blocks.cut.len(), usize::MAX, |block| {
        // SAFETY: the caller's promise; each block is written once.
        unsafe { blocks.write(block, to.at(0)) };
    });
}

/// The output, of which each task writes its own block.
struct BlockPointer(*mut f32);

// SAFETY: tasks write disjoint elements, and the vector behind it outlives them.
unsafe impl Sync for BlockPointer {}

impl BlockPointer {
    /// # Safety
    ///
    /// `offset` lies within the vector's room.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// Writes `a b` to the matrix at `to` with rows `stride` apart.
///
/// # Safety
///
/// All elements of `a` and `b` lie in their data, and a bias has `b.columns`; `to` is valid for
/// writing `a.rows` rows of `b.columns` elements, `stride` apart, which nobody else touches, and
/// holds numbers with [`Start::Sum`].
unsafe fn write_product(a: Matrix, b: Matrix, start: Start, to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise; what `gemm` adds to stood there or has been written here.
    unsafe {
        if let Start::Bias(bias) = start {
            for row in 0..a.rows {
                to.add(row * stride).copy_from_nonoverlapping(bias.as_ptr(), b.columns);
            }
        }
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            to,
            1,
            stride as isize,
            !matches!(start, Start::Zero),
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Threads;
    use crate::kernels::cpu::threads::tests::alone;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| ((i * 31 + seed) as f32 * 12.9898).sin() * 43758.547 % 1.0;
        (0..len).map(number).collect()
    }

    /// The same matrix, its columns in one piece each.
    fn by_columns(b: Matrix) -> Vec<f32> {
        let column = |j: usize| (0..b.rows).map(move |k| b.data[k * b.columns + j]);
        (0..b.columns).flat_map(column).collect()
    }

    #[test]
    fn products_agree_with_a_loop_in_every_layout() {
        let _alone = alone();
        // Less than a vector, over several tasks between rows or columns, wider than the widest
        // matrix that is cut between its rows.
        let sizes = [[1, 1], [7, 3], [64, 96], [1031, 67], [139, 577], [37, 4099]];
        for ([inner, columns], rows) in sizes
            .into_iter()
            .flat_map(|size| [1, 2, 3, 4, 5, 7, 8, 9, 16, 17].map(move |r| (size, r)))
        {
            let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
            let bias = numbers(columns, 3);
            let (a, b) = (Matrix::rows(&a, inner), Matrix::rows(&b, columns));
            let transposed = by_columns(b);
            let transposed = Matrix::rows(&transposed, inner).transposed();
            // A part of rows that lie further apart.
            let wide: Vec<f32> =
                (0..inner).flat_map(|k| [b.row(k), &[f32::NAN; 5]].concat()).collect();
            let wide = Matrix { columns, ..Matrix::rows(&wide, columns + 5) };
            let layouts = [("rows", b), ("columns", transposed), ("part", wide)];
            for ((layout, b_as), bias) in
                layouts.into_iter().flat_map(|l| [(l, None), (l, Some(&bias[..]))])
            {
                let got = product(a, b_as, bias);
                let helped = Threads::Spinning(7).run(|| product(a, b_as, bias));
                assert_eq!(got, helped, "{layout} {rows} x {inner} x {columns}: helpers");
                let mut twice = got.clone();
                product_to(a, b_as, Start::Sum, &mut twice);
                let bias_in = |at: usize| bias.map_or(0.0, |bias| bias[at % columns]);
                for (at, (&twice, &got)) in twice.iter().zip(&got).enumerate() {
                    let expected = 2.0 * got - bias_in(at);
                    let tolerance = 1e-6 * (inner as f32).sqrt();
                    assert!((twice - expected).abs() <= tolerance, "{twice} for {expected}");
                }
                for (at, &got) in got.iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let term = |k: usize| a.row(i)[k] as f64 * b.row(k)[j] as f64;
                    let start = bias.map_or(0.0, |bias| bias[j] as f64);
                    let expected = start + (0..inner).map(term).sum::<f64>();
                    // Some roundings of sums that are no larger than √inner.
                    let tolerance = 1e-6 * (inner as f64).sqrt();
                    assert!(
                        (got as f64 - expected).abs() <= tolerance,
                        "{layout} {rows} x {inner} x {columns} at {i}, {j}: \
                         {got}, expected {expected}"
                    );
                }
            }
        }
    }

    /// So that its blocks of rows do not turn it each.
    #[test]
    fn a_transposed_matrix_is_turned_once_and_gives_the_same_bits() {
        let (rows, inner, columns) = (521, 67, 139);
        assert!(Cut::new([rows, columns], inner).blocks[0] > 1);
        let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
        let (a, b) = (Matrix::rows(&a, inner), Matrix::rows(&b, columns));
        let by_columns = by_columns(b);
        let transposed = Matrix::rows(&by_columns, inner).transposed();
        assert_eq!(turned(transposed), b.data);
        let got = product(a, transposed, None);
        assert_eq!(got, product(a, b, None));
        for (at, &got) in got.iter().enumerate() {
            let (i, j) = (at / columns, at % columns);
            let expected: f64 = (0..inner).map(|k| a.row(i)[k] as f64 * b.row(k)[j] as f64).sum();
            assert!((got as f64 - expected).abs() <= 1e-5, "{i}, {j}: {got}, not {expected}");
        }
    }

    #[test]
    fn a_product_of_few_rows_has_the_same_bits_with_any_number_of_threads() {
        let _alone = alone();
        for (rows, inner, columns) in [(1, 1031, 67), (3, 139, 577), (2, 37, 4099), (16, 139, 577)]
        {
            let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (a, b) = (Matrix::rows(&a, inner), Matrix::rows(&b, columns));
                let product = || product(a, b, None);
                pool.install(|| [product(), Threads::Spinning(7).run(product)])
            };
            assert_eq!(with(1), with(3));
            let [plain, helped] = with(2);
            assert_eq!(plain, helped);
        }
    }
}
