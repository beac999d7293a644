//! The scores of one pass, on the host, and what is asked of them.

use burn::tensor::Tensor;

use super::hooks::{Hook, RowTokens};
use crate::{Error, Result};

/// What a pass gave for the next token of each row.
pub(super) struct PassLogits {
    /// `[rows, vocab_size]`, row-major
    logits: Vec<f32>,
    vocab_size: usize,
    /// Of each layer, `[rows, heads, queries, keys]`, if asked for.
    pub weights: Vec<Tensor<4>>,
}

impl PassLogits {
    /// `logits`: `[rows, 1, vocab_size]`
    pub fn new(logits: Tensor<3>, weights: Vec<Tensor<4>>) -> Self {
        let [_, _, vocab_size] = logits.dims();
        let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>();
        let logits = logits.expect("the data was converted to f32");
        Self { logits, vocab_size, weights }
    }

    /// The logits of a row of the pass, as the model gave them. `row`: its number among the prompts.
    ///
    /// # Errors
    ///
    /// Those of [`check`].
    pub fn row(&self, index: usize, row: usize, tokens: RowTokens) -> Result<&[f32]> {
        let logits = &self.logits[index * self.vocab_size..][..self.vocab_size];
        check(logits, row, tokens)?;
        Ok(logits)
    }

    /// The same behind the hooks.
    pub fn hooked_row(
        &self,
        index: usize,
        row: usize,
        tokens: RowTokens,
        hooks: &mut [Hook],
    ) -> Result<Vec<f32>> {
        let mut logits = self.row(index, row, tokens)?.to_vec();
        for hook in hooks.iter_mut() {
            hook(row, tokens, &mut logits);
        }
        check(&logits, row, tokens)?;
        Ok(logits)
    }
}

/// An error unless a token can be chosen: a logit is a number or -inf, which rules its token out,
/// and at least one token is not ruled out. A logit of +inf is an overflow, behind which the order
/// of the tokens is lost.
fn check(logits: &[f32], row: usize, tokens: RowTokens) -> Result<()> {
    let tokens = tokens.len();
    // Of NaN and of infinity this is false. Without a branch, so that many are looked at at once.
    let is_number = |x: f32| x < f32::INFINITY;
    if !logits.iter().fold(true, |all, &x| all & is_number(x)) {
        let got = logits.iter().copied().find(|&x| !is_number(x)).unwrap_or(f32::NAN);
        return Err(Error::NotANumber { row, tokens, got });
    }
    if logits.iter().all(|&x| x == f32::NEG_INFINITY) {
        return Err(Error::NoTokenLeft { row, tokens });
    }
    Ok(())
}
