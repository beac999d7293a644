//! The tensors of a file, each read from the mapped file when it is asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use burn::store::burn_pack;
use burn::tensor::{Bytes, DType};

use super::header::TensorInfo;
use crate::import::source::TensorSource;
use crate::import::stored::{Place, Stored};
use crate::kernels::MappedFile;
use crate::weights::Format;

/// The tensors of `file`, those of the head `tensors`, none of them read yet. Matrices may stay as they
/// are stored; all others are f32, so that a model never has parameters of two types.
///
/// `pair_rows` says of a tensor whose rows stand pair by pair how wide its heads are.
pub fn tensors(
    path: &str,
    file: &Arc<MappedFile>,
    tensors: &BTreeMap<String, TensorInfo>,
    pair_rows: impl Fn(&str) -> Option<usize>,
) -> TensorSource {
    let mut source = TensorSource { path: path.into(), ..TensorSource::default() };
    for (name, info) in tensors {
        let Some(format) = Format::from_ggml(info.kind.number) else {
            source.foreign.insert(name.clone(), info.kind.name.into());
            continue;
        };
        let rows = PairedRows { file: file.clone(), info: info.clone(), head_dim: pair_rows(name) };
        match info.shape[..] {
            [outputs, inputs] => {
                let read = move |place: Place| {
                    Ok(match rows.head_dim {
                        None => place.bytes(&rows.file, rows.info.bytes.clone()),
                        Some(_) => {
                            let ordered = rows.bytes().into_owned();
                            rows.file.leave(rows.info.bytes.clone());
                            Bytes::from_bytes_vec(ordered)
                        }
                    })
                };
                source.insert_stored(name.clone(), Stored::new(format, [outputs, inputs], read));
            }
            _ => {
                source.tensors.insert(name.clone(), rows.numbers(name, format));
            }
        }
    }
    source
}

/// The values of a short tensor of f32.
pub fn f32s(file: &MappedFile, info: &TensorInfo) -> Option<Vec<f32>> {
    let bytes = &file[info.bytes.clone()];
    let numbers = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
    (info.kind.name == "F32").then(|| numbers.collect())
}

/// The rows of one tensor.
#[derive(Clone)]
struct PairedRows {
    file: Arc<MappedFile>,
    info: TensorInfo,
    /// How wide the heads are whose rows stand pair by pair, if they do.
    head_dim: Option<usize>,
}

impl PairedRows {
    /// The same in f32.
    fn numbers(&self, name: &str, format: Format) -> burn_pack::Tensor {
        let rows = self.clone();
        let read = move || {
            let numbers = format.dequantize(&rows.bytes());
            let numbers = numbers.map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
            Ok(Bytes::from_elems(numbers))
        };
        let shape = self.info.shape.clone();
        let length = shape.iter().product::<usize>().saturating_mul(4);
        burn_pack::Tensor::deferred(name.into(), DType::F32, shape, None, length, read)
    }

    /// Their bytes, those of each head in halves.
    fn bytes(&self) -> Cow<'_, [u8]> {
        let bytes = &self.file[self.info.bytes.clone()];
        match self.head_dim {
            None => Cow::Borrowed(bytes),
            Some(head_dim) => Cow::Owned(in_halves(bytes, head_dim, self.info.shape[0])),
        }
    }
}

/// Rows that stand pair by pair within each head, in the order of halves: first the first of each
/// pair, then the second.
///
/// Llama's first code turned neighbouring channels together; Hugging Face turns channel `i` with
/// channel `i + head_dim / 2`, and so does a model here. A row is whole blocks in every type, so that
/// rows change places as they are.
fn in_halves(bytes: &[u8], head_dim: usize, rows: usize) -> Vec<u8> {
    let length = bytes.len() / rows;
    let mut ordered = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        let (head, channel) = (row / head_dim, row % head_dim);
        let there = head * head_dim + channel % (head_dim / 2) * 2 + channel / (head_dim / 2);
        ordered.extend_from_slice(&bytes[there * length..][..length]);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        // Two heads of six channels; rows of two bytes that are called after what they are here.
        let pairs = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let bytes: Vec<u8> = pairs.iter().flat_map(|row| [*row, 100 + row]).collect();
        let halves: Vec<u8> = (0..12).flat_map(|row| [row, 100 + row]).collect();
        assert_eq!(in_halves(&bytes, 6, 12), halves);
    }
}
