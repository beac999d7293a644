//! Logits hooks: what changes a row's scores before its next token is chosen.
//!
//! A hook is any `FnMut(row, tokens so far, &mut logits)`. It is called for each row and step, first
//! of all, before [`SamplingConfig`](super::SamplingConfig) acts; `row` is the number of the prompt
//! (the beams of a search share their prompt's), and there is one logit for each token of the
//! vocabulary. A logit of -inf rules its token out. If none is left, or a logit becomes NaN or +inf,
//! the generation ends with an error that names row and length.
//!
//! Whatever can say which tokens may come next fits in here: a grammar, a table of allowed
//! continuations, a second model.
//!
//! ```
//! use burn_decoder::attention::MultiHeadAttentionConfig;
//! use burn_decoder::decoder::*;
//! use burn_decoder::generation::{Generation, GenerationConfig, hooks};
//!
//! # #[cfg(feature = "ndarray")] {
//! # #[allow(deprecated)]
//! let device = burn::tensor::Device::ndarray();
//! let layer = DecoderLayerConfig::new(
//!     MultiHeadAttentionConfig::new(16, 2),
//!     FeedForwardConfig::new(16, 32),
//! );
//! let model = LanguageModelConfig::new(11, DecoderConfig::new(layer, 2)).init(&device)?;
//!
//! let rows = Generation::new(&model, &[vec![1, 2]], &GenerationConfig::new(6))?
//!     .with_hook(hooks::banned_tokens([7, 8]))
//!     .with_hook(hooks::no_repeated_ngrams(2)?)
//!     .with_hook(|_row, tokens, logits| {
//!         // An even token behind every odd one.
//!         let odd = tokens.last().is_some_and(|last| last % 2 == 1);
//!         for logit in logits.iter_mut().skip(1).step_by(2).filter(|_| odd) {
//!             *logit = f32::NEG_INFINITY;
//!         }
//!     })
//!     .finish()?;
//! assert!(rows[0].tokens.iter().all(|token| ![7, 8].contains(token)));
//! # }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! A search takes one hook, which may call others: see
//! [`beam_search_with_hook`](super::beam_search_with_hook).

use std::ops::Deref;

use crate::error::check_nonzero;
use crate::{Error, Result};

/// A hook on the heap.
pub(super) type Hook<'a> = Box<dyn FnMut(usize, RowTokens<'_>, &mut [f32]) + Send + 'a>;

/// The tokens that a row holds so far: a slice of all of them, which knows where the prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowTokens<'a> {
    all: &'a [u32],
    prompt: usize,
}

impl<'a> RowTokens<'a> {
    /// The first `prompt` of `all` are the prompt.
    pub(super) fn new(all: &'a [u32], prompt: usize) -> Self {
        Self { all, prompt }
    }

    /// The prompt.
    pub fn prompt(&self) -> &'a [u32] {
        &self.all[..self.prompt]
    }

    /// What was written behind it.
    pub fn written(&self) -> &'a [u32] {
        &self.all[self.prompt..]
    }
}

impl Deref for RowTokens<'_> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.all
    }
}

/// These tokens never come.
pub fn banned_tokens(
    tokens: impl IntoIterator<Item = u32>,
) -> impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send {
    let tokens: Vec<u32> = tokens.into_iter().collect();
    move |_, _, logits| ban(logits, &tokens)
}

/// Each row begins with these tokens behind its prompt.
pub fn forced_tokens(
    tokens: impl IntoIterator<Item = u32>,
) -> impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send {
    let tokens: Vec<u32> = tokens.into_iter().collect();
    move |_, so_far, logits| {
        if let Some(&token) = tokens.get(so_far.written().len()) {
            force(logits, token);
        }
    }
}

/// No stop token comes before a row has `least` new tokens.
pub fn minimum_new_tokens(
    least: usize,
    stop_tokens: impl IntoIterator<Item = u32>,
) -> impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send {
    let stop_tokens: Vec<u32> = stop_tokens.into_iter().collect();
    move |_, so_far, logits| {
        if so_far.written().len() < least {
            ban(logits, &stop_tokens);
        }
    }
}

/// No `n` tokens follow each other as they already did in the row, prompt included (Paulus et al.
/// 2017, section 2.5).
///
/// # Errors
///
/// [`Error::Config`] for an `n` of 0.
pub fn no_repeated_ngrams(n: usize) -> Result<impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send> {
    check_nonzero("hooks::no_repeated_ngrams: n", n)?;
    Ok(move |_: usize, so_far: RowTokens<'_>, logits: &mut [f32]| {
        let all: &[u32] = &so_far;
        let Some(begun) = all.len().checked_sub(n - 1).map(|start| &all[start..]) else { return };
        let repeats = all.windows(n).filter(|ngram| ngram[..n - 1] == *begun);
        let last: Vec<u32> = repeats.map(|ngram| ngram[n - 1]).collect();
        ban(logits, &last);
    })
}

/// A row in whose new text one of the `strings` stands ends with `stop_token`, which is to be among
/// the configuration's stop tokens. The text may go on behind the string by the rest of a token.
///
/// `decode` makes text of tokens, as a tokenizer does; it is given all new tokens of a row at once,
/// since the text of a part need not be that part of the text.
///
/// # Errors
///
/// [`Error::Config`] for an empty string, which stands in every text.
pub fn stop_strings<'a>(
    decode: impl Fn(&[u32]) -> String + Send + 'a,
    strings: impl IntoIterator<Item: Into<String>>,
    stop_token: u32,
) -> Result<impl FnMut(usize, RowTokens<'_>, &mut [f32]) + Send + 'a> {
    let strings: Vec<String> = strings.into_iter().map(Into::into).collect();
    if strings.iter().any(String::is_empty) {
        return Err(Error::Config {
            field: "hooks::stop_strings: strings",
            expected: "strings of at least one character".into(),
            got: "an empty one".into(),
        });
    }
    Ok(move |_: usize, so_far: RowTokens<'_>, logits: &mut [f32]| {
        if so_far.written().is_empty() {
            return;
        }
        let text = decode(so_far.written());
        if strings.iter().any(|string| text.contains(string)) {
            force(logits, stop_token);
        }
    })
}

/// Rules tokens out. One that is not in the vocabulary never comes anyway.
fn ban(logits: &mut [f32], tokens: &[u32]) {
    for &token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Rules all other tokens out.
fn force(logits: &mut [f32], token: u32) {
    for (other, logit) in logits.iter_mut().enumerate() {
        if other != token as usize {
            *logit = f32::NEG_INFINITY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of 7 that the hook leaves for a row of `prompt` and `written`.
    fn left(
        mut hook: impl FnMut(usize, RowTokens<'_>, &mut [f32]),
        prompt: &[u32],
        written: &[u32],
    ) -> Vec<usize> {
        let mut logits = [0.5; 7];
        hook(0, RowTokens::new(&[prompt, written].concat(), prompt.len()), &mut logits);
        (0..7).filter(|&token| logits[token] == 0.5).collect()
    }

    #[test]
    fn each_rules_out_what_it_says() {
        assert_eq!(left(banned_tokens([2, 5, 99]), &[2], &[]), [0, 1, 3, 4, 6]);
        assert_eq!(left(forced_tokens([4, 2]), &[1], &[]), [4]);
        assert_eq!(left(forced_tokens([4, 2]), &[1], &[4]), [2]);
        assert_eq!(left(forced_tokens([4, 2]), &[1], &[4, 2]).len(), 7);
        assert_eq!(left(minimum_new_tokens(2, [0, 6]), &[1, 1, 1], &[3]), [1, 2, 3, 4, 5]);
        assert_eq!(left(minimum_new_tokens(2, [0, 6]), &[1], &[3, 3]).len(), 7);
        // Behind 1, 2 came 3 in the prompt and 5 across its end.
        let twos = [1, 2, 3, 1, 2];
        assert_eq!(left(no_repeated_ngrams(3).unwrap(), &twos, &[5, 1, 2]), [0, 1, 2, 4, 6]);
        assert_eq!(left(no_repeated_ngrams(1).unwrap(), &twos, &[5]), [0, 4, 6]);
        assert_eq!(left(no_repeated_ngrams(9).unwrap(), &twos, &[]).len(), 7);
        assert!(no_repeated_ngrams(0).is_err());
    }

    #[test]
    fn stop_strings_are_looked_for_in_the_new_text() {
        let letters = |tokens: &[u32]| {
            tokens.iter().map(|&token| char::from(b'a' + token as u8)).collect::<String>()
        };
        let hook = || stop_strings(letters, ["bc", "f"], 6).unwrap();
        assert_eq!(left(hook(), &[1, 2], &[]).len(), 7);
        assert_eq!(left(hook(), &[1], &[2]).len(), 7, "across the end of the prompt");
        assert_eq!(left(hook(), &[0], &[0, 1, 2]), [6]);
        assert_eq!(left(hook(), &[0], &[5]), [6]);
        assert!(stop_strings(letters, [""], 6).is_err());
    }
}
