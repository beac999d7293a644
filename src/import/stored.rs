//! Matrices as a file stores them: half precision, or numbers in blocks that share a scale.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::store::burn_pack;
use burn::tensor::{Bytes, DType};

use crate::kernels::MappedFile;
use crate::weights::Format;

type Read = dyn Fn(Place) -> Result<Bytes, burn_pack::Error> + Send + Sync;

/// Where the bytes of a matrix are to be.
#[derive(Clone, Copy, Debug, Default)]
pub enum Place {
    /// In the mapped file.
    #[default]
    File,
    /// In memory of the process's own.
    Memory,
}

impl Place {
    /// A range of a file, there.
    pub fn bytes(self, file: &Arc<MappedFile>, range: Range<usize>) -> Bytes {
        match self {
            Self::File => file.bytes(range),
            Self::Memory => file.copy(range),
        }
    }
}

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
        read: impl Fn(Place) -> Result<Bytes, burn_pack::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { format, shape, read: Arc::new(read) }
    }

    /// How many bytes it has.
    pub fn byte_len(&self) -> usize {
        let [rows, columns] = self.shape;
        rows.saturating_mul(self.format.row_bytes(columns).unwrap_or_default())
    }

    /// All its bytes.
    pub fn read(&self, place: Place) -> Result<Bytes, burn_pack::Error> {
        (self.read)(place)
    }

    /// Some of its rows, one behind the other; all of them without another copy.
    pub fn rows(&self, rows: &[usize], place: Place) -> Result<Bytes, burn_pack::Error> {
        if rows.len() == self.shape[0] && rows.iter().enumerate().all(|(i, &row)| i == row) {
            return self.read(place);
        }
        let all = self.read(Place::File)?;
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
            let numbers = format.dequantize(&read(Place::File)?);
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
