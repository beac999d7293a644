//! The text: read, told apart from other texts, and turned into one stream of tokens.
//!
//! Documents stand one behind the other in the stream, each behind a separator token. A row of the
//! training is a window of it; see [`rows`](super::rows).

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use tokenizers::Tokenizer;

use super::failure::Failure;
use super::tokenizer::SEPARATOR;

/// The files, one document each unless a separator stands in it.
pub struct Texts {
    documents: Vec<String>,
    pub checksum: Checksum,
}

/// Tells whether a text is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Checksum {
    bytes: usize,
    crc32: u32,
}

impl Texts {
    pub fn read(files: &[PathBuf]) -> Result<Self, Failure> {
        let mut documents = Vec::new();
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = 0;
        for path in files {
            let refuse = |error: &dyn std::fmt::Display| Failure::file("text", path, error);
            let text = fs::read(path).map_err(|error| refuse(&error))?;
            let text = String::from_utf8(text)
                .map_err(|error| refuse(&format_args!("expected UTF-8, got {error}")))?;
            hasher.update(text.as_bytes());
            hasher.update(&[0xff]); // in no UTF-8: where the file ends is a part of the text
            bytes += text.len();
            documents.push(text);
        }
        Ok(Self { documents, checksum: Checksum { bytes, crc32: hasher.finalize() } })
    }

    pub fn documents(&self) -> impl Iterator<Item = &str> + Send {
        self.documents.iter().map(String::as_str)
    }

    /// All of it as tokens.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Stream, Failure> {
        let separator = separator(tokenizer)?;
        let mut stream = Stream { tokens: Vec::new(), bytes: Vec::new(), separator };
        for text in self.documents() {
            let encoding = tokenizer
                .encode(text, false)
                .map_err(|error| Failure::Input(format!("the tokenizer: {error}")))?;
            if encoding.get_ids().first() != Some(&separator) {
                stream.push(separator, 0);
            }
            // A token stands for what lies between its end and that of the one before: so all bytes
            // are counted once, however a tokenizer cuts its offsets.
            let mut end = 0;
            for (&token, &(_, token_end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
                let bytes = token_end.max(end) - end;
                end += bytes;
                stream.push(token, if token == separator { 0 } else { bytes });
            }
        }
        Ok(stream)
    }
}

/// The token between documents: this example's own, or what a tokenizer from elsewhere has for it.
pub fn separator(tokenizer: &Tokenizer) -> Result<u32, Failure> {
    let known = [SEPARATOR, "</s>", "<|end_of_text|>", "<eos>"];
    known.iter().find_map(|name| tokenizer.token_to_id(name)).ok_or_else(|| {
        Failure::Input(format!(
            "tokenizer.json: expected a token that ends a document, one of {}, got none",
            known.join(", ")
        ))
    })
}

/// Tokens, and the bytes of text that each stands for.
#[derive(Clone, Debug)]
pub struct Stream {
    pub tokens: Vec<u32>,
    pub bytes: Vec<u32>,
    pub separator: u32,
}

impl Stream {
    fn push(&mut self, token: u32, bytes: usize) {
        self.tokens.push(token);
        self.bytes.push(u32::try_from(bytes).expect("a token stands for less than 4 GiB"));
    }

    /// What is trained on, and the last `share` of it, which is not.
    pub fn split(mut self, share: f64, context: usize) -> Result<(Self, Self), Failure> {
        let length = self.tokens.len();
        let at = length - (length as f64 * share) as usize;
        for (part, length) in [("training", at), ("validation", length - at)] {
            if length <= context {
                return Err(Failure::Input(format!(
                    "text: expected more than --context {context} tokens for {part}, got {length}; \
                     take more text, a shorter context, or another --valid-share"
                )));
            }
        }
        let valid = Self {
            tokens: self.tokens.split_off(at),
            bytes: self.bytes.split_off(at),
            separator: self.separator,
        };
        Ok((self, valid))
    }

    /// The `most` commonest tokens, but for the separator.
    pub fn common_tokens(&self, most: usize) -> Vec<u32> {
        let mut counts = std::collections::HashMap::new();
        for token in &self.tokens {
            *counts.entry(*token).or_insert(0_usize) += 1;
        }
        counts.remove(&self.separator);
        let mut tokens: Vec<(u32, usize)> = counts.into_iter().collect();
        tokens.sort_by_key(|&(token, count)| (std::cmp::Reverse(count), token));
        tokens.into_iter().take(most).map(|(token, _)| token).collect()
    }
}
