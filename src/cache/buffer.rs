//! What the store of a layer does with keys and values, in whatever form they are kept.

use std::ops::Range;

use burn::tensor::{Int, Tensor, kind::Basic, s};

use crate::kernels::{Codes, Kept, first_codes, first_keys};

/// Does the same to floats and to codes.
macro_rules! in_kind {
    ($kept:expr, $tensor:ident => $do:expr) => {
        match $kept {
            Kept::Float($tensor) => Kept::Float($do),
            Kept::Coded(Codes { codes: $tensor, coding, width }) => {
                Kept::Coded(Codes { codes: $do, coding, width })
            }
        }
    };
}

/// Slots, `[batch, kv_heads, slots, head_dim]`.
impl Kept {
    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.dims()[2]
    }

    /// Writes `new` into the slots from `at` on.
    pub(super) fn assign(self, at: usize, new: Self) -> Self {
        let slots = at..at + new.slots();
        match (self, new) {
            (Self::Float(buffer), Self::Float(new)) => {
                Self::Float(buffer.slice_assign(s![.., .., slots, ..], new))
            }
            (Self::Coded(buffer), Self::Coded(new)) => {
                let codes = buffer.codes.slice_assign(s![.., .., slots, ..], new.codes);
                Self::Coded(Codes { codes, ..buffer })
            }
            _ => unreachable!("a cache keeps all in one form"),
        }
    }

    /// The first `used` slots, without a copy where the backend can.
    pub(super) fn first(&self, used: usize) -> Self {
        match self.clone() {
            Self::Float(tensor) => Self::Float(first_keys(tensor, used)),
            Self::Coded(of) => Self::Coded(Codes { codes: first_codes(of.codes, used), ..of }),
        }
    }

    /// The given ranges of slots, empty ones left out.
    pub(super) fn parts(&self, ranges: &[Range<usize>]) -> Vec<Self> {
        let filled = ranges.iter().filter(|range| !range.is_empty());
        let part = |range: &Range<usize>| in_kind!(self.clone(), tensor => tensor.slice(s![.., .., range.clone(), ..]));
        filled.map(part).collect()
    }

    /// One behind the other.
    pub(super) fn joined(parts: Vec<Self>) -> Self {
        let mut parts = parts.into_iter().peekable();
        match parts.peek().cloned() {
            Some(Self::Coded(of)) => {
                let codes = parts.map(|part| match part {
                    Self::Coded(part) => part.codes,
                    Self::Float(_) => unreachable!("a cache keeps all in one form"),
                });
                Self::Coded(Codes { codes: Tensor::cat(codes.collect(), 2), ..of })
            }
            _ => {
                let floats = parts.map(|part| match part {
                    Self::Float(part) => part,
                    Self::Coded(_) => unreachable!("a cache keeps all in one form"),
                });
                Self::Float(Tensor::cat(floats.collect(), 2))
            }
        }
    }

    /// `slots` slots of zeros, all else like this.
    pub(super) fn empty_like(&self, slots: usize) -> Self {
        in_kind!(self.clone(), tensor => {
            let [batch, kv_heads, _, width] = tensor.dims();
            let shape = [batch, kv_heads, slots, width];
            Tensor::zeros(shape, (&tensor.device(), tensor.dtype()))
        })
    }

    /// Row `i` becomes what row `rows[i]` was.
    pub(super) fn select_rows(self, rows: &[usize]) -> Self {
        in_kind!(self, tensor => select(tensor, rows))
    }

    /// Number of bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Float(tensor) => tensor.shape().num_elements() * tensor.dtype().size(),
            Self::Coded(Codes { codes, .. }) => codes.shape().num_elements() * codes.dtype().size(),
        }
    }
}

/// Row `i` becomes what row `rows[i]` was.
pub(super) fn select<const D: usize, K: Basic>(
    tensor: Tensor<D, K>,
    rows: &[usize],
) -> Tensor<D, K> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &tensor.device());
    tensor.select(0, rows)
}
