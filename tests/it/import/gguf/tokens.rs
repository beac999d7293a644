//! The tokenizer of a file, as plain values.

use burn_decoder::import::LoadOptions;
use burn_decoder::import::gguf::{self, Gguf, TokenKind, TokenizerKind};

use super::file;
use crate::backends::any_device;

#[test]
fn byte_pairs() {
    let file = Gguf::open(file("llama")).unwrap();
    let tokenizer = file.tokenizer().unwrap();
    let TokenizerKind::ByteLevel { pre_tokenizer, merges } = &tokenizer.kind else {
        panic!("{:?}", tokenizer.kind)
    };
    assert_eq!(pre_tokenizer, "llama-bpe");
    assert_eq!(tokenizer.tokens.len(), file.config().vocab_size);
    // Three special tokens and 256 bytes; every other token is a pair of earlier ones.
    assert_eq!(merges.len(), tokenizer.tokens.len() - 3 - 256);
    assert_eq!(tokenizer.text(1), Some("<|im_start|>"));
    assert_eq!(tokenizer.text(tokenizer.tokens.len() as u32), None);
    let kinds: Vec<_> = tokenizer.tokens[..4].iter().map(|token| token.kind).collect();
    assert_eq!(kinds, [[TokenKind::Control; 3].as_slice(), &[TokenKind::Normal]].concat());
    assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.padding), (Some(1), Some(2), Some(0)));
    assert_eq!((tokenizer.add_bos, tokenizer.add_space_prefix), (Some(false), None));
    assert!(file.chat_template().unwrap().contains("<|im_start|>assistant"));
    assert_eq!(file.text("general.name"), Some("llama"));
    assert_eq!(file.text("llama.block_count"), None);
}

#[test]
fn scored_pieces() {
    let tokenizer = Gguf::open(file("gemma2")).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.kind, TokenizerKind::SentencePiece);
    assert_eq!((tokenizer.add_bos, tokenizer.add_space_prefix), (Some(true), Some(false)));
    let of = |kind| tokenizer.tokens.iter().filter(|token| token.kind == kind).count();
    assert_eq!((of(TokenKind::Byte), of(TokenKind::Unknown), of(TokenKind::Control)), (256, 1, 2));
    // Pieces by their rank.
    let pieces = tokenizer.tokens.iter().filter(|token| token.kind == TokenKind::Normal);
    assert!(pieces.is_sorted_by(|a, b| a.score >= b.score));
    let tokenizer = Gguf::open(file("olmo2")).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.kind, TokenizerKind::Unigram);
    assert_eq!(tokenizer.remove_extra_whitespaces, Some(false));
    let missing = Gguf::open(file("qwen3")).unwrap().tokenizer().unwrap_err().to_string();
    assert!(
        missing.ends_with(
            "tokenizer.ggml.model: expected a tokenizer: gpt2, llama or t5, got nothing"
        )
    );
}

/// Answers end with a turn, which files tell by the texts of control tokens alone.
#[test]
fn stop_tokens() {
    let load = |name| gguf::load(file(name), &any_device(), LoadOptions::new()).unwrap();
    let loaded = load("llama_tied");
    assert_eq!((loaded.bos_token, loaded.pad_token), (Some(1), Some(0)));
    assert_eq!(loaded.eos_tokens, [2, 0]); // <|im_end|>, <|endoftext|>
    assert_eq!(load("llama_rope").eos_tokens, [2]);
    assert!(load("qwen3").eos_tokens.is_empty());
}
