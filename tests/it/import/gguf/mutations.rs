//! Damaged files: bytes of a right one are changed, and reading it gives an error or a model. Never a
//! panic, never an allocation that a number in the file asks for.

use burn_decoder::import::LoadOptions;
use burn_decoder::import::gguf::Gguf;
use proptest::prelude::*;

use super::file;
use crate::backends::any_device;
use crate::import::allocations::peak;
use crate::import::mutations::{allowed, changed, config, edits, is_known};

/// The head of a file: that is where a reader can go wrong.
pub fn head(bytes: &[u8]) -> usize {
    let last = b"output_norm.weight";
    let at = bytes.windows(last.len()).rposition(|window| window == last).unwrap();
    at + last.len()
}

/// Reads everything that a file has.
fn read(path: &std::path::Path) -> Result<(), burn_decoder::Error> {
    let file = Gguf::open(path)?;
    let tokenizer = file.tokenizer().map(drop);
    file.load(&any_device(), LoadOptions::new())?;
    tokenizer
}

fn damaged(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let whole = std::fs::read(file(name)).unwrap();
    let head = head(&whole);
    proptest!(config(), |(edits in edits(), aligned in any::<bool>())| {
        let mut bytes = changed(whole[..head].to_vec(), &edits);
        if aligned {
            // The tensors where they were, so that more is read.
            bytes.resize(head.max(bytes.len()), 0);
        }
        bytes.extend_from_slice(&whole[head..]);
        std::fs::write(&path, &bytes).unwrap();
        let (held, result) = peak(|| read(&path));
        prop_assert!(held <= allowed(bytes.len()), "{held} bytes for {}", bytes.len());
        if let Err(error) = result {
            prop_assert!(is_known(&error), "{error}");
        }
    });
}

#[test]
fn damaged_heads() {
    damaged("qwen3");
}

#[test]
fn damaged_tokenizers() {
    damaged("olmo2");
}
