//! The dense rest of a mask: flags for single cells.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A host array of flags that broadcasts to `[batch, heads, queries, keys]`: axes are full or 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SavedCells", into = "SavedCells")]
pub struct HiddenCells {
    /// `[batch or 1, heads or 1, queries or 1, keys or 1]`.
    pub shape: [usize; 4],
    /// Row-major, true = hidden.
    pub hidden: Arc<[bool]>,
}

impl HiddenCells {
    /// Whether the cell is hidden.
    pub fn is_hidden(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let index = [batch, head, query, key].into_iter().zip(self.shape);
        let offset = index
            .fold(0, |offset, (index, size)| offset * size + if size == 1 { 0 } else { index });
        self.hidden[offset]
    }
}

/// [`HiddenCells`] in a file, whose shape and flags may not fit.
#[derive(Serialize, Deserialize)]
struct SavedCells {
    shape: [usize; 4],
    hidden: Vec<bool>,
}

impl TryFrom<SavedCells> for HiddenCells {
    type Error = String;

    fn try_from(SavedCells { shape, hidden }: SavedCells) -> Result<Self, String> {
        let cells = shape.iter().try_fold(1_usize, |cells, &size| cells.checked_mul(size));
        if cells != Some(hidden.len()) {
            return Err(format!(
                "hidden: expected the flags of a shape {shape:?}, got {} flags",
                hidden.len()
            ));
        }
        Ok(Self { shape, hidden: hidden.into() })
    }
}

impl From<HiddenCells> for SavedCells {
    fn from(HiddenCells { shape, hidden }: HiddenCells) -> Self {
        Self { shape, hidden: hidden.to_vec() }
    }
}
