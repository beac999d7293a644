//! Damaged files: bytes of a right one are changed, and reading it gives an error or what is right.
//! Never a panic, never an allocation that a number in the file asks for.

use std::path::Path;

use burn::module::Module;
use burn::nn::transformer::TransformerDecoderConfig;
use burn_decoder::Error;
use burn_decoder::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use burn_decoder::import::hugging_face::Checkpoint;
use burn_decoder::import::{LoadOptions, burn_nn, pytorch};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::SafeTensors;

use super::allocations::peak;
use super::{FOLDERS, copy_of, torch_file};
use crate::backends::any_device;

/// How often each kind of file is damaged.
const CASES: u32 = 10_000;

/// What a reader may hold for a file of so many bytes: the parsed text of it, names and lists of the
/// tensors, and buffers of a constant size.
pub fn allowed(bytes: usize) -> usize {
    64 * bytes + (2 << 20)
}

/// One change of a file.
#[derive(Clone, Debug)]
pub enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    /// Bytes over those that are there.
    Replace(Index, Vec<u8>),
    Remove(Index, usize),
    /// A stretch of the file again, elsewhere.
    Copy(Index, Index, usize),
    Cut(Index),
}

/// What a parser may trip over, as text and as numbers of eight bytes.
fn odd_bytes() -> impl Strategy<Value = Vec<u8>> {
    let texts: Vec<Vec<u8>> = [
        "-1",
        "0",
        "1e999",
        "18446744073709551615",
        "9223372036854775808",
        "16777216",
        "null",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\u0000",
        "true",
        "\"\"",
        "{}",
        "[[[[[[[[",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    prop_oneof![
        3 => proptest::sample::select(texts),
        1 => any::<u64>().prop_map(|number| number.to_le_bytes().to_vec()),
        1 => proptest::sample::select(vec![u64::MAX, 1 << 63, 1 << 40, 1 << 31])
            .prop_map(|number| number.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..8),
    ]
}

pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        3 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        3 => (any::<Index>(), odd_bytes()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<Index>(), odd_bytes()).prop_map(|(at, bytes)| Edit::Replace(at, bytes)),
        2 => (any::<Index>(), 1..16usize).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (any::<Index>(), any::<Index>(), 1..64usize)
            .prop_map(|(from, to, length)| Edit::Copy(from, to, length)),
        1 => any::<Index>().prop_map(Edit::Cut),
    ];
    proptest::collection::vec(edit, 1..4)
}

pub fn changed(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let length = bytes.len();
        let place = |index: &Index| index.index(length.max(1));
        match edit {
            Edit::Set(at, byte) if length > 0 => bytes[place(at)] = *byte,
            Edit::Flip(at, bit) if length > 0 => bytes[place(at)] ^= 1 << bit,
            Edit::Insert(at, odd) => {
                let at = place(at).min(length);
                bytes.splice(at..at, odd.iter().copied());
            }
            Edit::Replace(at, odd) => {
                let at = place(at).min(length);
                let end = (at + odd.len()).min(length);
                bytes[at..end].copy_from_slice(&odd[..end - at]);
            }
            Edit::Remove(at, many) => {
                let at = place(at).min(length);
                bytes.drain(at..(at + many).min(length));
            }
            Edit::Copy(from, to, many) => {
                let (from, to) = (place(from).min(length), place(to).min(length));
                let stretch = bytes[from..(from + many).min(length)].to_vec();
                bytes.splice(to..to, stretch);
            }
            Edit::Cut(at) => bytes.truncate(place(at)),
            Edit::Set(..) | Edit::Flip(..) => {}
        }
    }
    bytes
}

pub fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

const D_MODEL: usize = 6;

/// The tensors of an attention, as PyTorch has them.
fn attention() -> std::collections::BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut first = 0.0;
    let shapes: [(&str, &[usize]); 4] = [
        ("in_proj_bias", &[3 * D_MODEL]),
        ("in_proj_weight", &[3 * D_MODEL, D_MODEL]),
        ("out_proj.bias", &[D_MODEL]),
        ("out_proj.weight", &[D_MODEL, D_MODEL]),
    ];
    let tensor = shapes.map(|(name, shape)| {
        first += 1000.0;
        let values = (0..shape.iter().product()).map(|at: usize| first + at as f32).collect();
        (name.to_string(), (shape.to_vec(), values))
    });
    tensor.into()
}

fn load(path: &Path) -> (usize, Result<MultiHeadAttention, Error>) {
    let module = MultiHeadAttentionConfig::new(D_MODEL, 2).init(&any_device()).unwrap();
    peak(|| pytorch::load(module, path, LoadOptions::new()))
}

/// The bits of all biases, in PyTorch's order.
fn biases(attention: &MultiHeadAttention) -> Vec<u32> {
    let MultiHeadAttention { query, key, value, output, .. } = attention;
    let bias = |linear: &burn::nn::Linear| {
        let data = linear.bias.as_ref().unwrap().val().into_data();
        data.iter::<f32>().map(f32::to_bits).collect::<Vec<_>>()
    };
    [query, key, value, output].into_iter().flat_map(bias).collect()
}

/// Whether an error is one that a damaged file may give.
pub fn is_known(error: &Error) -> bool {
    matches!(
        error,
        Error::File { .. } | Error::Weights(_) | Error::ConfigFile { .. } | Error::Config { .. }
    ) && !error.to_string().is_empty()
}

#[test]
fn damaged_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attention.safetensors");
    let tensors = attention().into_iter().map(|(name, (shape, values))| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name, (safetensors::Dtype::F32, shape, bytes))
    });
    super::round_trip::write(&path, &tensors.collect());
    let whole = std::fs::read(&path).unwrap();
    assert!(load(&path).1.is_ok());
    proptest!(config(), |(edits in edits(), keep in any::<bool>())| {
        let mut bytes = changed(whole.clone(), &edits);
        if keep && bytes.len() >= 8 {
            // The length of the header as it is now, so that more of it is read.
            let header = bytes.len().saturating_sub(8 + 4 * 4 * D_MODEL * (D_MODEL + 1));
            bytes[..8].copy_from_slice(&(header as u64).to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let (held, loaded) = load(&path);
        prop_assert!(held <= allowed(bytes.len()), "{held} bytes for {}", bytes.len());
        match loaded {
            Err(error) => prop_assert!(is_known(&error), "{error}"),
            Ok(module) => {
                // Right is what the format's own reader finds.
                let file = SafeTensors::deserialize(&bytes).unwrap();
                let bits = ["in_proj_bias", "out_proj.bias"].into_iter().flat_map(|name| {
                    let data = file.tensor(name).unwrap().data().to_vec();
                    data.chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
                });
                prop_assert_eq!(biases(&module), bits.collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn damaged_state_dicts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attention.pt");
    let tensors = attention();
    let whole = torch_file::write(&tensors);
    std::fs::write(&path, &whole).unwrap();
    let right = biases(&load(&path).1.unwrap());
    let pickle = torch_file::pickle(&tensors);
    proptest!(config(), |(edits in edits(), place in 0..4u8)| {
        let bytes = match place {
            // Anywhere in the file; its checksums find most of it.
            0 => changed(whole.clone(), &edits),
            // A pickle alone, without the storages.
            1 => changed(pickle.clone(), &edits),
            // In the pickle, with checksums that are right.
            _ => torch_file::archive(&torch_file::entries(&tensors, changed(pickle.clone(), &edits))),
        };
        std::fs::write(&path, &bytes).unwrap();
        let (held, loaded) = load(&path);
        prop_assert!(held <= allowed(bytes.len()), "{held} bytes for {}", bytes.len());
        match loaded {
            Err(error) => prop_assert!(is_known(&error), "{error}"),
            // A pickle that says other strides or offsets is another right file.
            Ok(module) if place == 0 => prop_assert_eq!(biases(&module), right.clone()),
            Ok(module) => prop_assert_eq!(biases(&module).len(), right.len()),
        }
    });
}

#[test]
fn damaged_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.bpk");
    let device = any_device();
    let config_of = TransformerDecoderConfig::new(D_MODEL, 8, 2, 1);
    config_of.init(&device).save_file(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let load = || peak(|| burn_nn::load(&path, &config_of, &device, LoadOptions::new()));
    let (right, _) = load();
    proptest!(config(), |(edits in edits(), first in any::<bool>())| {
        // In the first bytes, which say how long the rest is, or anywhere.
        let bytes = match first {
            true => [changed(whole[..64].to_vec(), &edits), whole[64..].to_vec()].concat(),
            false => changed(whole.clone(), &edits),
        };
        std::fs::write(&path, &bytes).unwrap();
        let (held, loaded) = load();
        prop_assert!(held <= right + allowed(bytes.len()), "{held} bytes for {}", bytes.len());
        if let Err(error) = loaded {
            prop_assert!(is_known(&error), "{error}");
        }
    });
}

#[test]
fn damaged_configurations() {
    let folders = FOLDERS.map(|(folder, _)| copy_of(folder));
    let files = ["config.json", "generation_config.json"];
    let texts = folders
        .each_ref()
        .map(|folder| files.map(|file| std::fs::read(folder.path().join(file)).unwrap()));
    let device = any_device();
    proptest!(config(), |(edits in edits(), family in 0..FOLDERS.len(), file in 0..8usize, tensors in 0..16u8)| {
        // Seldom the second file, which is small.
        let file = usize::from(file == 0);
        let folder = folders[family].path();
        let bytes = changed(texts[family][file].clone(), &edits);
        std::fs::write(folder.join(files[file]), &bytes).unwrap();
        let (held, opened) = peak(|| Checkpoint::open(folder));
        let read = texts[family].iter().map(Vec::len).sum::<usize>() + bytes.len();
        prop_assert!(held <= allowed(read), "{held} bytes for {read}");
        let loaded = match opened {
            // The tensors too, now and then: they are the same all the time.
            Ok(checkpoint) if tensors == 0 => checkpoint.load(&device, LoadOptions::new()).map(drop),
            Ok(checkpoint) => checkpoint.config().init(&device).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = loaded {
            prop_assert!(is_known(&error), "{error}");
        }
        std::fs::write(folder.join(files[file]), &texts[family][file]).unwrap();
    });
}
