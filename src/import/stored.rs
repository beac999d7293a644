//! Matrices as a file stores them: half precision, or numbers in blocks that share a scale.

use std::fmt;
use std::sync::Arc;

use burn::store::burn_pack;
use burn::tensor::{Bytes, DType};

use crate::weights::Format;

type Read = dyn Fn() -> Result<Bytes, burn_pack::Error> + Send + Sync;

/// A matrix whose rows are blocks of a format. Its bytes are read when they are asked for.
#[derive(Clone)]
pub struct Stored {
    pub format: Format,
    /// `[rows, columns]`: outputs and inputs of a projection, tokens and width of an embedding.
    pub shape: [usize; 2],
    read: Arc<Read>,
}

impl Stored {
    /// `read` gives the rows one behind the other: `rows` times `format.row_bytes(columns)`.
    pub fn new(
        format: Format,
        shape: [usize; 2],
        read: impl Fn() -> Result<Bytes, burn_pack::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { format, shape, read: Arc::new(read) }
    }

    /// How many bytes it has.
    pub fn byte_len(&self) -> usize {
        let [rows, columns] = self.shape;
        rows.saturating_mul(self.format.row_bytes(columns).unwrap_or_default())
    }

    /// All its bytes.
    pub fn read(&self) -> Result<Bytes, burn_pack::Error> {
        (self.read)()
    }

    /// Some of its rows, one behind the other; all of them without a copy.
    pub fn rows(&self, rows: &[usize]) -> Result<Bytes, burn_pack::Error> {
        let all = self.read()?;
        if rows.len() == self.shape[0] && rows.iter().enumerate().all(|(i, &row)| i == row) {
            return Ok(all);
        }
        let length = self.format.row_bytes(self.shape[1]).unwrap_or_default();
        let row = |&row: &usize| all.get(row * length..(row + 1) * length);
        let rows: Option<Vec<_>> = rows.iter().map(row).collect();
        match rows {
            Some(rows) => Ok(Bytes::from_elems(rows.concat())),
            None => {
                Err(burn_pack::Error::IoError("a matrix with fewer rows than it should".into()))
            }
        }
    }

    /// The same matrix as f32, which it becomes when it is read.
    pub fn numbers(&self, name: &str) -> burn_pack::Tensor {
        let Self { format, shape, .. } = *self;
        let read = self.read.clone();
        let numbers = move || {
            let numbers = format.dequantize(&read()?);
            let numbers = numbers.map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
            Ok(Bytes::from_elems(numbers))
        };
        let length = shape[0].saturating_mul(shape[1]).saturating_mul(4);
        burn_pack::Tensor::deferred(name.into(), DType::F32, shape.to_vec(), None, length, numbers)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.format, self.shape)
    }
}
