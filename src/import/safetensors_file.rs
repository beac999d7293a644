//! Files in the safetensors format, read and written tensor by tensor.
//!
//! A tensor's bytes are read into a buffer of their own when they are asked for, so that a load
//! holds no more of the file than one tensor. A matrix that stays as it is stored is a part of the
//! mapped file.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::burn_pack;
use burn::tensor::{Bytes, DType, TensorData};
use safetensors::tensor::{Dtype, Metadata, View};

use super::files::{not_this_file, show, write_whole};
use super::source::TensorSource;
use super::stored::{Place, Stored};
use crate::Result;
use crate::file::Links;
use crate::kernels::MappedFile;
use crate::weights::Format;

/// Length of the field that tells the header's length.
const LENGTH: u64 = 8;

/// The longest header that is believed: as the safetensors crate has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// The tensors of a file, none of them read yet.
pub fn open(path: &Path) -> Result<TensorSource> {
    let (file, start, metadata) =
        header(path).map_err(|got| not_this_file(path, "a file in the safetensors format", got))?;
    let not_mapped = |error: std::io::Error| {
        not_this_file(path, "a file that can be mapped into memory", error.to_string())
    };
    let mapped = Arc::new(MappedFile::open(&file).map_err(not_mapped)?);
    let file = Arc::new(Mutex::new(file));
    let mut source = TensorSource { path: show(path), ..TensorSource::default() };
    for (name, info) in metadata.tensors() {
        let Some(dtype) = dtype_here(info.dtype) else {
            source.foreign.insert(name, info.dtype.to_string());
            continue;
        };
        let (from, to) = info.data_offsets;
        let (file, length) = (file.clone(), to - from);
        let read = move || read(&file, start + from as u64, length, dtype);
        let shape = info.shape.clone();
        let format = match dtype {
            DType::F16 => Some(Format::F16),
            DType::BF16 => Some(Format::Bf16),
            DType::F32 => Some(Format::F32),
            _ => None,
        };
        if let (Some(format), &[rows, columns]) = (format, &shape[..]) {
            let mapped = mapped.clone();
            let range = start as usize + from..start as usize + to;
            let bytes = move |place: Place| Ok(place.bytes(&mapped, range.clone()));
            let matrix = Stored::new(format, [rows, columns], bytes);
            source.stored.insert(name.clone(), matrix);
        }
        let tensor = burn_pack::Tensor::deferred(name.clone(), dtype, shape, None, length, read);
        source.tensors.insert(name, tensor);
    }
    Ok(source)
}

/// The file, where its tensors begin, and what they are.
fn header(path: &Path) -> Result<(File, u64, Metadata), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut file = File::open(path).map_err(text)?;
    let held = file.metadata().map_err(text)?.len();
    let mut length = [0; LENGTH as usize];
    let too_short = |_| format!("{held} bytes, too few for a header");
    file.read_exact(&mut length).map_err(too_short)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || LENGTH + length > held {
        return Err(format!("{held} bytes that tell of a header of {length}"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(text)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("a header with {error}"))?;
    let start = LENGTH + length;
    let told = start.saturating_add(metadata.data_len() as u64);
    if told != held {
        return Err(format!("{held} bytes where the header tells of {told}: was it cut off?"));
    }
    Ok((file, start, metadata))
}

/// The bytes of one tensor, aligned for its type.
fn read(
    file: &Mutex<File>,
    start: u64,
    length: usize,
    dtype: DType,
) -> Result<Bytes, burn_pack::Error> {
    // Backends take the buffer as it is if its alignment is that of the values.
    let mut bytes = match dtype.size() {
        8 => Bytes::from_elems(vec![0u64; length / 8]),
        4 => Bytes::from_elems(vec![0u32; length / 4]),
        2 => Bytes::from_elems(vec![0u16; length / 2]),
        _ => Bytes::from_elems(vec![0u8; length]),
    };
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
    Ok(bytes)
}

fn dtype_here(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(burn::tensor::BoolStore::Native),
        _ => return None,
    })
}

/// One tensor of a file to be written: what it is now, its values when they are needed.
pub struct Writable<'a> {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub values: Box<dyn Fn() -> Result<TensorData, String> + 'a>,
}

/// Writes a file, tensor by tensor. It appears under its name once it is whole.
pub fn write(path: &Path, links: Links, tensors: BTreeMap<String, Writable>) -> Result<()> {
    let failure = RefCell::new(None);
    let views = tensors.into_iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype {
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => Dtype::F32,
        };
        (name, Written { dtype, tensor, failure: &failure })
    });
    // What Hugging Face's loaders ask of a file that PyTorch could have written.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_whole(path, links, |unfinished| {
        let written = safetensors::serialize_to_file(views, Some(metadata), unfinished);
        match failure.take() {
            Some(error) => Err(error),
            None => written.map_err(|error| error.to_string()),
        }
    })
}

struct Written<'a> {
    dtype: Dtype,
    tensor: Writable<'a>,
    /// The first error of any tensor: the writer's interface has no place for one.
    failure: &'a RefCell<Option<String>>,
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        let failed = |error| {
            self.failure.borrow_mut().get_or_insert(error);
            vec![0; self.data_len()]
        };
        let bytes = (self.tensor.values)().map(|data| data.as_bytes().to_vec());
        bytes.unwrap_or_else(failed).into()
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * self.tensor.dtype.size()
    }
}
