//! Wrong files: each gives the error that names what is wrong.

use std::path::PathBuf;

use burn_decoder::Error;
use burn_decoder::import::gguf::{self, Gguf};
use burn_decoder::import::{LoadOptions, hugging_face};
use tempfile::TempDir;

use super::file;
use crate::backends::any_device;

/// A copy of a file whose bytes were changed.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.gguf");
    let mut bytes = std::fs::read(file(name)).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The place behind `text` in the head of a file.
fn behind(bytes: &[u8], text: &str) -> usize {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    at.unwrap_or_else(|| panic!("no {text}")) + text.len()
}

/// The message about a file with `new` in the place of `old`, of the same length.
fn with_text(name: &str, old: &str, new: &str) -> String {
    assert_eq!(old.len(), new.len());
    let (_folder, path) = changed(name, |bytes| {
        let end = behind(bytes, old);
        bytes[end - old.len()..end].copy_from_slice(new.as_bytes());
    });
    load(path)
}

/// The message about a file whose u32 at `key` is another.
fn with_number(name: &str, key: &str, number: u32) -> String {
    let (_folder, path) = changed(name, |bytes| {
        let at = behind(bytes, key) + 4; // its type
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    });
    load(path)
}

/// The error of a load, without the path.
fn load(path: PathBuf) -> String {
    let error = gguf::load(&path, &any_device(), LoadOptions::new()).unwrap_err().to_string();
    error.replace(&path.display().to_string(), "file")
}

#[test]
fn what_this_crate_does_not_have_is_named() {
    let error = with_text("phi2", "\x04\0\0\0\0\0\0\0phi2", "\x04\0\0\0\0\0\0\0phi9");
    assert!(error.starts_with("file, general.architecture: expected one of gemma2, "), "{error}");
    assert!(error.ends_with("got \"phi9\""), "{error}");
    let error = with_text("llama", "llama.context_length", "llama.nothing_known_");
    let expected =
        "file, llama.nothing_known_: expected a key that this crate knows the meaning of";
    assert!(error.starts_with(expected) && error.ends_with("got 128"), "{error}");
    let error = with_number("llama", "general.quantization_version", 1);
    assert!(error.contains("general.quantization_version: expected 2"), "{error}");
    let error = with_text("gemma3", "linear", "spiral");
    let expected =
        "file, gemma3.rope.scaling.type: expected one of none, linear, yarn, got \"spiral\"";
    assert_eq!(error, expected);
    let opened = changed("llama", |bytes| {
        let at = behind(bytes, "tokenizer.ggml.model") + 4 + 8;
        bytes[at..at + 4].copy_from_slice(b"bert");
    });
    let error = Gguf::open(opened.1).unwrap().tokenizer().unwrap_err().to_string();
    assert!(error.ends_with("expected a tokenizer: gpt2, llama or t5, got \"bert\""), "{error}");
}

#[test]
fn tensors_that_do_not_fit_are_listed() {
    let error = with_text("llama", "blk.1.attn_k.weight", "blk.1.attn_x.weight");
    assert!(error.contains("blk.1.attn_k.weight") && error.contains("blk.1.attn_x.weight"));
    // IQ4_NL, of Q4_0's size.
    let (_folder, path) = changed("llama", |bytes| {
        let at = behind(bytes, "blk.0.attn_q.weight") + 4 + 2 * 8;
        bytes[at..at + 4].copy_from_slice(&20u32.to_le_bytes());
    });
    let Err(Error::Weights(mismatch)) = gguf::load(path, &any_device(), LoadOptions::new()) else {
        panic!("a type that is not known")
    };
    assert_eq!(mismatch.wrong_type, [("blk.0.attn_q.weight".to_string(), "IQ4_NL".to_string())]);
    let (_folder, path) = changed("llama", |bytes| {
        let at = behind(bytes, "llama.feed_forward_length") + 4;
        bytes[at..at + 4].copy_from_slice(&64u32.to_le_bytes());
    });
    let Err(Error::Weights(mismatch)) = gguf::load(path, &any_device(), LoadOptions::new()) else {
        panic!("another width")
    };
    let names: Vec<_> = mismatch.wrong_shape.iter().map(|wrong| wrong.name.as_str()).collect();
    assert!(names.contains(&"blk.1.ffn_up.weight") && names.contains(&"blk.0.ffn_down.weight"));
}

#[test]
fn settings_that_make_no_sense_name_their_key() {
    for (key, number, expected) in [
        ("llama.block_count", 0, "file, llama.block_count: expected a whole number from 1"),
        ("llama.block_count", 16_000, "file, llama.block_count: expected at most 35, since"),
        ("llama.embedding_length", u32::MAX, "file, llama.embedding_length: expected a whole"),
        ("llama.embedding_length", 1 << 20, "expected 32, the width of token_embd.weight"),
        ("llama.attention.head_count", 7, "file, llama.attention.head_count: expected a divisor"),
        ("llama.rope.dimension_count", 4, "file, llama.rope.dimension_count: expected 8"),
        ("llama.vocab_size", 7, "file, llama.vocab_size: expected 340, the rows of token_embd"),
        ("llama.attention.layer_norm_rms_epsilon", f32::NAN.to_bits(), "file, llama.attention"),
        ("llama.rope.freq_base", 0, "RotaryConfig"),
    ] {
        let error = with_number("llama", key, number);
        assert!(error.contains(expected), "{key} = {number}: {error}");
    }
    let error = with_number("qwen3", "qwen3.attention.key_length", 1 << 20);
    let expected =
        "qwen3.attention.key_length: expected at most 64, the rows of blk.0.attn_q.weight";
    assert!(error.contains(expected), "{error}");
    let (_folder, path) = changed("llama_rope", |bytes| {
        let at = bytes.windows(4).rposition(|window| window == 4f32.to_le_bytes()).unwrap();
        bytes[at..at + 4].copy_from_slice(&3f32.to_le_bytes());
    });
    let error = load(path);
    assert!(error.contains("factors in rope_freqs.weight that Llama 3's formula gives"), "{error}");
}

#[test]
fn files_that_are_none_are_called_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        load(path.clone())
    };
    assert!(said(b"").contains("a GGUF file, got 0 bytes"));
    assert!(said(b"<!DOCTYPE html>").contains("an HTML or XML page"));
    assert!(said(b"version https://git-lfs").contains("a Git LFS pointer"));
    assert!(said(b"lmgg----").contains("8 bytes that begin with [\"6c\", \"6d\", \"67\", \"67\"]"));
    assert!(said(b"GGUF\x03").contains("4 bytes of the version at byte 4, got 1 to the end"));
    assert!(load(folder.path().join("nothing.gguf")).contains("expected a GGUF file"));
    assert!(load(folder.path().into()).contains("a folder"));
    let whole = std::fs::read(file("llama")).unwrap();
    // More than what the last tensor is filled up with.
    let error = said(&whole[..whole.len() - 32]);
    assert!(error.contains("was it cut off?"), "{error}");
    // Without any tensor of the model.
    let error = with_text("llama", "token_embd.weight", "token_embd.weighs");
    assert!(error.contains("expected a tensor token_embd.weight, got none among 35"), "{error}");
    let error = hugging_face::load(file("llama"), &any_device(), LoadOptions::new()).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}
