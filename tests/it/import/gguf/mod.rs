//! GGUF files: every architecture and type of tensors against transformers on the numbers that the
//! files hold, what is wrong with files, and damaged ones.

mod mutations;
mod tokens;
mod wrong;

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use burn_decoder::generation::{Generation, GenerationConfig};
use burn_decoder::import::{LoadOptions, Precision, Progress, gguf, hugging_face, parity};

use super::{fixture, round_trip};
use crate::backends::{any_device, cpus};
use crate::fixtures::Fixtures;

/// Every file of tests/fixtures/gguf. Between them they have all types of tensors that are read.
const FILES: [&str; 12] = [
    "gemma2",
    "gemma3",
    "llama",
    "llama_k",
    "llama_rope",
    "llama_tied",
    "olmo2",
    "phi2",
    "phi2_packed",
    "phi3",
    "qwen2",
    "qwen3",
];

/// How close logits must be to the original's in f32: as for the folders of Hugging Face.
const TOLERANCE: f64 = 5e-5;

fn file(name: &str) -> std::path::PathBuf {
    fixture("gguf").join(format!("{name}.gguf"))
}

/// The rows of an int tensor.
fn rows(reference: &Fixtures, name: &str) -> Vec<Vec<u32>> {
    let data = reference.data(name);
    let ids: Vec<u32> = data.iter::<u32>().collect();
    ids.chunks(data.shape()[1]).map(<[u32]>::to_vec).collect()
}

/// Phi 3 as a folder of Hugging Face's, whose reader the file's architecture uses: its numbers, and
/// the way back, bit for bit.
#[test]
fn phi_3_in_a_folder() {
    let folder = fixture("gguf").join("phi3_tiny");
    let device = any_device();
    let loaded = hugging_face::load(&folder, &device, LoadOptions::new()).unwrap();
    for case in parity::read(folder.join("reference.safetensors"), &device).unwrap() {
        let parity = case.check(&loaded.model, TOLERANCE).unwrap();
        assert!(parity.agrees(), "{parity}");
    }
    let again = tempfile::tempdir().unwrap();
    loaded.checkpoint.save(&loaded.model, again.path()).unwrap();
    let tensors = |folder: &Path| round_trip::tensors(&folder.join("model.safetensors"));
    assert_eq!(tensors(again.path()), tensors(&folder));
}

fn assert_matches(name: &str, device: &Device) {
    let loaded = gguf::load(file(name), device, LoadOptions::new()).unwrap();
    let reference = fixture("gguf").join(format!("{name}.safetensors"));
    for case in parity::read(&reference, device).unwrap() {
        let parity = case.check(&loaded.model, TOLERANCE).unwrap();
        assert!(parity.agrees(), "{name}: {parity}");
    }
    let reference = Fixtures::open(&format!("gguf/{name}.safetensors"));
    let (prompts, expected) = (rows(&reference, "input_ids"), rows(&reference, "greedy_ids"));
    let config = GenerationConfig::new(expected[0].len());
    let generated = Generation::new(&loaded.model, &prompts, &config).unwrap().finish();
    let got: Vec<_> = generated.unwrap().into_iter().map(|row| row.tokens).collect();
    assert_eq!(got, expected, "{name}");
}

#[test]
fn logits_and_greedy_ids_match() {
    for device in cpus() {
        FILES.iter().for_each(|name| assert_matches(name, &device));
    }
}

/// Weights in memory are those of the file, and need it no longer: mapped ones would be cut off with it.
#[test]
fn weights_in_memory_outlive_their_file() {
    for name in ["llama", "llama_k", "phi2_packed", "phi3"] {
        let reference = fixture("gguf").join(format!("{name}.safetensors"));
        for device in cpus() {
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("copy.gguf");
            std::fs::copy(file(name), &copy).unwrap();
            let options = LoadOptions::new().with_precision(Precision::AsStored);
            let loaded = gguf::load(&copy, &device, options.with_weights_in_memory(true)).unwrap();
            std::fs::File::create(&copy).unwrap();
            for case in parity::read(&reference, &device).unwrap() {
                let parity = case.check(&loaded.model, TOLERANCE).unwrap();
                assert!(parity.agrees(), "{name}: {parity}");
            }
        }
    }
}

/// Progress counts bytes of the file, not those that blocks become.
#[test]
fn progress_is_counted_in_bytes_of_the_file() {
    for name in ["llama", "llama_k", "llama_tied"] {
        for precision in [Precision::AsStored, Precision::F32] {
            let told = Arc::new(Mutex::new(Vec::<Progress>::new()));
            let teller = told.clone();
            let options = LoadOptions::new().with_precision(precision);
            let options = options.with_progress(move |p| teller.lock().unwrap().push(p));
            gguf::load(file(name), &any_device(), options).unwrap();
            let told = told.lock().unwrap();
            let Some(&Progress { bytes, of_bytes, .. }) = told.last() else { panic!("{name}") };
            assert_eq!(bytes, of_bytes, "{name}");
            let whole = std::fs::read(file(name)).unwrap();
            let of_tensors = (whole.len() - mutations::head(&whole)) as u64;
            // Behind the last name its shape, type and place, then the tensors, each with padding.
            let between = 64 * (told.len() as u64 + 1);
            assert!(
                of_bytes <= of_tensors && of_bytes + between >= of_tensors,
                "{name}: {of_bytes} of {of_tensors}"
            );
        }
    }
}

on_each_backend! {
    fn a_file_of_all_types_matches(device: Device) {
        assert_matches("llama", &device);
    }
}
