//! Arrays on the host that broadcast: what masks are lowered in. Every axis stays 1 for as long as
//! nothing depends on it.

use std::sync::Arc;

use crate::{Error, Result};

/// `[batch, heads, queries, keys]`, row-major, each axis full or 1.
#[derive(Clone)]
pub(super) struct BroadcastArray<T> {
    pub(super) shape: [usize; 4],
    pub(super) data: Arc<[T]>,
}

impl<T: Copy> BroadcastArray<T> {
    pub(super) fn new(shape: [usize; 4], data: Vec<T>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Self { shape, data: data.into() }
    }

    /// `f` of every entry.
    pub(super) fn map<U>(&self, f: impl Fn(T) -> U) -> BroadcastArray<U> {
        BroadcastArray {
            shape: self.shape,
            data: self.data.iter().map(|&value| f(value)).collect(),
        }
    }

    /// `f` of two arrays, cell by cell, broadcast against each other.
    pub(super) fn zip<U>(&self, other: &Self, f: impl Fn(T, T) -> U) -> Result<BroadcastArray<U>> {
        let pairs = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
        if self.shape == other.shape {
            return Ok(BroadcastArray { shape: self.shape, data: pairs(&self.data, &other.data) });
        }
        let shape = broadcast_shape(self.shape, other.shape)?;
        let (a, b) = (self.expand(shape), other.expand(shape));
        Ok(BroadcastArray { shape, data: pairs(&a.data, &b.data) })
    }

    /// The array with every axis as long as in `shape`.
    pub(super) fn expand(&self, shape: [usize; 4]) -> Self {
        if self.shape == shape {
            return self.clone();
        }
        let [batch, heads, queries, keys] = shape;
        let mut data = Vec::with_capacity(shape.iter().product());
        for b in 0..batch {
            for h in 0..heads {
                for q in 0..queries {
                    match self.row(b, h, q) {
                        [one] if keys != 1 => data.resize(data.len() + keys, *one),
                        row => data.extend_from_slice(row),
                    }
                }
            }
        }
        Self::new(shape, data)
    }

    /// The entries along the last axis.
    pub(super) fn row(&self, batch: usize, head: usize, query: usize) -> &[T] {
        let [batches, heads, queries, keys] = self.shape;
        let at = |index, size| if size == 1 { 0 } else { index };
        let row = (at(batch, batches) * heads + at(head, heads)) * queries + at(query, queries);
        &self.data[row * keys..][..keys]
    }
}

impl<T: Copy> BroadcastArray<Option<T>> {
    /// The entries, if every one is there.
    pub(super) fn all(&self) -> Option<BroadcastArray<T>> {
        let data = self.data.iter().copied().collect::<Option<_>>()?;
        Some(BroadcastArray { shape: self.shape, data })
    }
}

/// The common shape of two arrays that broadcast against each other.
fn broadcast_shape(a: [usize; 4], b: [usize; 4]) -> Result<[usize; 4]> {
    let mut shape = a;
    for (axis, size) in shape.iter_mut().enumerate() {
        if *size == 1 {
            *size = b[axis];
        } else if b[axis] != 1 && b[axis] != *size {
            return Err(Error::Mask {
                mask: "hidden_cells",
                expected: format!("shapes that broadcast against each other, such as {a:?} twice"),
                got: format!("{a:?} and {b:?} ([batch, heads, queries, keys])"),
            });
        }
    }
    Ok(shape)
}
