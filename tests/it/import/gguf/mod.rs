//! GGUF files: every architecture and type of tensors against transformers on the numbers that the
//! files hold, what is wrong with files, and damaged ones.

mod mutations;
mod tokens;
mod wrong;

use burn_decoder::generation::{Generation, GenerationConfig};
use burn_decoder::import::{LoadOptions, gguf, parity};

use super::fixture;
use crate::fixtures::Fixtures;

/// Every file of tests/fixtures/gguf. Between them they have all types of tensors that are read.
const FILES: [&str; 10] = [
    "gemma2",
    "gemma3",
    "llama",
    "llama_k",
    "llama_rope",
    "llama_tied",
    "olmo2",
    "phi2",
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

on_each_backend! {
    fn logits_and_greedy_ids_match(device: Device) {
        for name in FILES {
            let loaded = gguf::load(file(name), &device, LoadOptions::new()).unwrap();
            let reference = fixture("gguf").join(format!("{name}.safetensors"));
            for case in parity::read(&reference, &device).unwrap() {
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
    }
}
