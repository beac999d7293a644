//! Tensors of four axes by their strides.

/// Row-major strides of `shape`, 0 on axes of size 1, so that they broadcast.
pub(super) fn broadcast_strides(shape: &[usize; 4]) -> [usize; 4] {
    let mut strides = [0; 4];
    let mut step = 1;
    for axis in (0..4).rev() {
        strides[axis] = if shape[axis] == 1 { 0 } else { step };
        step *= shape[axis];
    }
    strides
}

#[inline]
pub(super) fn offset(strides: &[usize; 4], index: [usize; 4]) -> usize {
    (0..4).map(|axis| strides[axis] * index[axis]).sum()
}

/// Where row `row` of a head starts in a result, `[batch, rows, heads, width]` row-major: heads
/// stand inside, so that merging them costs no copy.
#[inline]
pub(super) fn result_row(sizes: [usize; 3], [batch, head, row]: [usize; 3]) -> usize {
    let [heads, rows, width] = sizes;
    ((batch * rows + row) * heads + head) * width
}

/// A tensor `[batch, heads, rows, width]` read by strides; an expanded axis has stride 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a, T> {
    pub(super) data: &'a [T],
    pub(super) shape: [usize; 4],
    pub(super) strides: [usize; 4],
}

impl<'a, T> Strided<'a, T> {
    /// # Panics
    ///
    /// If an index within `shape` would read outside of `data`.
    pub(crate) fn new(data: &'a [T], shape: [usize; 4], strides: [usize; 4]) -> Self {
        if shape.iter().all(|&size| size > 0) {
            let last = offset(&strides, shape.map(|size| size - 1));
            assert!(last < data.len(), "{shape:?} by {strides:?} in {} elements", data.len());
        }
        Self { data, shape, strides }
    }

    /// A row-major tensor.
    #[cfg(test)]
    pub(crate) fn contiguous(data: &'a [T], shape: [usize; 4]) -> Self {
        let [_, b, c, d] = shape;
        Self::new(data, shape, [b * c * d, c * d, d, 1])
    }

    #[cfg(test)]
    pub(super) fn get(&self, index: [usize; 4]) -> T
    where
        T: Copy,
    {
        self.data[offset(&self.strides, index)]
    }
}
