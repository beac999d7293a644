//! The scores of one pass, on the host, and what is asked of them.

use burn::tensor::{DType, FloatDType, Tensor};

use super::hooks::{Hook, RowTokens};
use crate::{Error, Result, kernels};

/// What is read of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedScores {
    /// All logits.
    All,
    /// The likeliest token of each row, which a device finds itself.
    Likeliest,
}

/// What a pass gave for the next token of each row.
pub(super) struct PassLogits {
    scores: Scores,
    vocab_size: usize,
    /// Of each layer, `[rows, heads, queries, keys]`, if asked for.
    pub weights: Vec<Tensor<4>>,
}

enum Scores {
    /// `[rows, vocab_size]`, row-major
    All(Vec<f32>),
    /// `[rows]`: the likeliest tokens, of rows whose scores are all numbers.
    Likeliest(Vec<u32>),
}

impl PassLogits {
    /// Reads once what is wanted of `logits`, `[rows, 1, vocab_size]`; and all of them behind that
    /// where not all are numbers, for [`check`] to say which.
    pub fn new(logits: Tensor<3>, weights: Vec<Tensor<4>>, wanted: WantedScores) -> Self {
        let [_, _, vocab_size] = logits.dims();
        let likeliest = match wanted {
            WantedScores::Likeliest => likeliest(&logits),
            WantedScores::All => None,
        };
        let scores = likeliest.map(Scores::Likeliest).unwrap_or_else(|| {
            let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>();
            Scores::All(logits.expect("the data was converted to f32"))
        });
        Self { scores, vocab_size, weights }
    }

    /// Whether all logits were read.
    pub fn are_all(&self) -> bool {
        matches!(self.scores, Scores::All(_))
    }

    /// The likeliest token of a row of the pass, if that is all that was read.
    pub fn likeliest(&self, index: usize) -> Option<u32> {
        match &self.scores {
            Scores::Likeliest(tokens) => Some(tokens[index]),
            Scores::All(_) => None,
        }
    }

    /// The logits of a row of the pass, as the model gave them. `row`: its number among the prompts.
    ///
    /// # Errors
    ///
    /// Those of [`check`].
    pub fn row(&self, index: usize, row: usize, tokens: RowTokens) -> Result<&[f32]> {
        let Scores::All(logits) = &self.scores else { unreachable!("all logits were wanted") };
        let logits = &logits[index * self.vocab_size..][..self.vocab_size];
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

/// The likeliest token of each row, found on the device and read alone: `[rows]` numbers instead of
/// `[rows, vocab_size]`. The one with the smallest id among equals, as on the host. None where the
/// host reads all at once anyway, and where some score is no number.
fn likeliest(logits: &Tensor<3>) -> Option<Vec<u32>> {
    let [rows, _, vocab_size] = logits.dims();
    // In f32 the ids are exact below 2^24.
    if kernels::is_host(&logits.device()) || vocab_size == 0 || vocab_size > 1 << 24 {
        return None;
    }
    let logits = logits.clone().reshape([rows, vocab_size]).cast(DType::F32); // [rows, vocab_size]
    let tokens = logits.clone().argmax(1).cast(FloatDType::F32); // [rows, 1]
    // A device may assume that no NaN or infinity comes, and then see none: they show in a sum.
    let sums = logits.sum_dim(1); // [rows, 1]
    let found = Tensor::cat(vec![tokens, sums], 1).into_data(); // [rows, 2]
    let found: Vec<f32> = found.iter::<f32>().collect();
    found.chunks(2).map(|row| row[1].is_finite().then_some(row[0] as u32)).collect()
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
