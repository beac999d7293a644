//! Rows of tensors, as the products read them.

use std::mem::MaybeUninit;

use pulp::Simd;

use super::panel::KeySet;
use super::strided::Strided;
use super::{Real, Source};

/// One row of a tensor where it lies.
#[derive(Clone, Copy)]
pub(super) struct TensorRow<'a, T> {
    data: &'a [T],
    step: usize,
}

impl<'a, T: Real> Strided<'a, T> {
    /// Row `[batch, head, row]`.
    #[inline]
    pub(super) fn row(&self, [batch, head, row]: [usize; 3]) -> TensorRow<'a, T> {
        let start = batch * self.strides[0] + head * self.strides[1] + row * self.strides[2];
        TensorRow { data: self.data.get(start..).unwrap_or_default(), step: self.strides[3] }
    }
}

impl<'a, T: Real> TensorRow<'a, T> {
    /// The row in one piece: itself, or a copy.
    #[inline(always)]
    pub(super) fn whole<'b>(self, width: usize, copy: &'b mut [T]) -> &'b [T]
    where
        'a: 'b,
    {
        if self.step == 1 {
            return &self.data[..width];
        }
        self.copy_to(width, copy, T::ONE);
        copy
    }

    #[inline(always)]
    pub(super) fn get(&self, column: usize) -> T {
        self.data[column * self.step]
    }

    /// The row times a factor, then zeros; a factor of zero makes zeros of anything.
    #[inline(always)]
    pub(super) fn copy_to(&self, width: usize, to: &mut [T], factor: T) {
        let (used, rest) = to.split_at_mut(width);
        rest.fill(T::ZERO);
        if factor == T::ZERO {
            used.fill(T::ZERO);
        } else if self.step == 1 {
            for (to, &from) in used.iter_mut().zip(self.data) {
                *to = from;
                *to *= factor;
            }
        } else {
            for (column, to) in used.iter_mut().enumerate() {
                *to = self.get(column);
                *to *= factor;
            }
        }
    }
}

/// Whether a row holds neither NaN nor infinity, which times zero are not zero.
#[inline(always)]
pub(super) fn is_finite<T: Real, S: Simd>(simd: S, row: &[T]) -> bool {
    let vectors = T::vectors::<S>(row);
    let zero = T::splat(simd, T::ZERO);
    let zeros = vectors.iter().fold(zero, |zeros, &x| T::mul_add(simd, x, zero, zeros));
    let rest = &row[vectors.len() * T::lanes::<S>()..];
    T::sum(simd, zeros) == T::ZERO && rest.iter().all(|x| x.is_finite())
}

/// Rows of keys or values.
#[derive(Clone, Copy)]
pub(super) struct TensorRows<'a, T> {
    pub(super) data: &'a [T],
    pub(super) step: usize,
}

/// Products that read rows for which it pays to copy them to one piece. Rows of a projection stand
/// `heads * width` apart, often a power of two, so that many compete for few places in a cache.
pub(super) const MANY_READERS: usize = 6;

impl<'a, T: Real> TensorRows<'a, T> {
    /// `count` rows from `[batch, head, first]` on, at least `padded` wide, for so many `readers`:
    /// where they lie, if they can be computed with there; else a copy, padded with zeros. What stands
    /// in fewer bits is copied always.
    #[inline(always)]
    pub(super) fn read<'b, S: Simd>(
        simd: S,
        source: &Source<'a, T>,
        at: [usize; 3],
        count: usize,
        padded: usize,
        readers: usize,
        copy: &'b mut [T],
    ) -> TensorRows<'b, T>
    where
        'a: 'b,
    {
        if let Source::Real(from) = source {
            let width = from.shape[3];
            let ([a, b, c, step], [batch, head, first]) = (from.strides, at);
            if step == 1 && padded == width && (c == width || readers < MANY_READERS) {
                return TensorRows {
                    data: &from.data[batch * a + head * b + first * c..],
                    step: c,
                };
            }
        }
        source.copy_rows(simd, at, count, padded, copy);
        TensorRows { data: copy, step: padded }
    }

    #[inline(always)]
    pub(super) fn skip(self, rows: usize) -> Self {
        Self { data: &self.data[rows * self.step..], step: self.step }
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize, width: usize) -> &'a [T] {
        &self.data[row * self.step..][..width]
    }

    /// Those of `rows` that are not finite.
    #[inline(always)]
    pub(super) fn non_finite<S: Simd>(&self, simd: S, rows: KeySet, width: usize) -> KeySet {
        if self.are_finite(simd, rows, width) {
            return 0;
        }
        let (mut non_finite, mut rest) = (rows, rows);
        while rest != 0 {
            let row = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            if is_finite(simd, self.row(row, width)) {
                non_finite &= !(1 << row);
            }
        }
        non_finite
    }

    /// Whether all of `rows` are finite, with a few sums for all of them.
    #[inline(always)]
    fn are_finite<S: Simd>(&self, simd: S, rows: KeySet, width: usize) -> bool {
        let zero = T::splat(simd, T::ZERO);
        let mut zeros = [zero; 4];
        let (mut finite, mut rest) = (true, rows);
        while rest != 0 {
            let row = self.row(rest.trailing_zeros() as usize, width);
            rest &= rest - 1;
            let (fours, others) = T::vectors::<S>(row).as_chunks::<4>();
            for four in fours {
                for i in 0..4 {
                    zeros[i] = T::mul_add(simd, four[i], zero, zeros[i]);
                }
            }
            for &x in others {
                zeros[0] = T::mul_add(simd, x, zero, zeros[0]);
            }
            let whole = width / T::lanes::<S>() * T::lanes::<S>();
            finite &= row[whole..].iter().all(|x| x.is_finite());
        }
        for zeros in zeros {
            finite &= T::sum(simd, zeros) == T::ZERO;
        }
        finite
    }

    /// A copy of the first `count` rows with zeros in place of non-finite ones.
    #[cold]
    pub(super) fn without(&self, non_finite: KeySet, count: usize, width: usize) -> Vec<T> {
        let mut copy = Vec::with_capacity(count * width);
        for row in 0..count {
            let zero = non_finite >> row & 1 == 1;
            copy.extend(self.row(row, width).iter().map(|&x| if zero { T::ZERO } else { x }));
        }
        copy
    }
}

/// `count` rows as columns: `to` is `[width of a row][width]`, the columns left over are zero.
#[inline(always)]
pub(super) fn transpose<T: Real>(
    from: &Strided<T>,
    [batch, head, first]: [usize; 3],
    count: usize,
    to: &mut [T],
    width: usize,
) {
    if count < width {
        to.fill(T::ZERO);
    }
    let columns = from.shape[3];
    let row = |lane: usize| from.row([batch, head, first + lane]);
    let fours = if from.strides[3] == 1 { count / 4 * 4 } else { 0 };
    for lane in (0..fours).step_by(4) {
        let rows = [0, 1, 2, 3].map(|i| &row(lane + i).data[..columns]);
        for c in (0..columns / 4 * 4).step_by(4) {
            let [r0, r1, r2, r3] = rows;
            let block = T::transposed([four(r0, c), four(r1, c), four(r2, c), four(r3, c)]);
            for i in 0..4 {
                to[(c + i) * width + lane..][..4].copy_from_slice(&block[i]);
            }
        }
        for c in columns / 4 * 4..columns {
            for i in 0..4 {
                to[c * width + lane + i] = rows[i][c];
            }
        }
    }
    for lane in fours..count {
        for c in 0..columns {
            to[c * width + lane] = row(lane).get(c);
        }
    }
}

/// The same of rows that may stand in fewer bits; `copy` has room for them.
#[inline(always)]
pub(super) fn transpose_source<T: Real, S: Simd>(
    simd: S,
    from: &Source<T>,
    at: [usize; 3],
    count: usize,
    to: &mut [T],
    width: usize,
    copy: &mut [T],
) {
    match from {
        Source::Real(from) => transpose(from, at, count, to, width),
        _ => {
            let columns = to.len() / width;
            from.copy_rows(simd, at, count, columns, copy);
            let strides = [0, 0, columns, 1];
            let rows = Strided { data: copy, shape: [1, 1, count, columns], strides };
            transpose(&rows, [0, 0, 0], count, to, width);
        }
    }
}

/// Four lanes of all columns, from `lane` on, as four rows.
#[inline(always)]
pub(super) fn rows_of_columns<T: Real>(
    columns: &[T],
    width: usize,
    lane: usize,
    to: [&mut [MaybeUninit<T>]; 4],
) {
    let [a, b, c, d] = to;
    let len = columns.len() / width;
    let column = |at: usize| four(columns, at * width + lane);
    for at in (0..len.saturating_sub(3)).step_by(4) {
        let block = T::transposed([column(at), column(at + 1), column(at + 2), column(at + 3)]);
        a[at..at + 4].write_copy_of_slice(&block[0]);
        b[at..at + 4].write_copy_of_slice(&block[1]);
        c[at..at + 4].write_copy_of_slice(&block[2]);
        d[at..at + 4].write_copy_of_slice(&block[3]);
    }
    for at in len / 4 * 4..len {
        for (to, x) in [&mut *a, &mut *b, &mut *c, &mut *d].into_iter().zip(column(at)) {
            to[at].write(x);
        }
    }
}

#[inline(always)]
fn four<T: Copy>(data: &[T], at: usize) -> [T; 4] {
    *data[at..].first_chunk().expect("four elements")
}

#[inline(always)]
pub(super) fn dot<T: Real, S: Simd>(simd: S, a: &[T], b: &[T]) -> T {
    let (vectors_a, vectors_b) = (T::vectors::<S>(a), T::vectors::<S>(b));
    let mut sums = [T::splat(simd, T::ZERO); 2];
    for (a, b) in vectors_a.chunks(2).zip(vectors_b.chunks(2)) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum = T::mul_add(simd, a, b, *sum);
        }
    }
    let mut sum = T::sum(simd, T::add(simd, sums[0], sums[1]));
    let rest = vectors_a.len() * T::lanes::<S>();
    for (&a, &b) in a[rest..].iter().zip(&b[rest..]) {
        let mut part = a;
        part *= b;
        sum += part;
    }
    sum
}
