//! A case, and how a model does on it.

use std::fmt;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::decoder::{LanguageModel, LanguageModelInput};
use crate::{Error, Result};

/// An input and the logits that the original computed from it.
#[derive(Clone, Debug)]
#[must_use]
pub struct ParityCase {
    name: String,
    /// `[batch, queries]`, row-major
    tokens: Vec<i64>,
    shape: [usize; 2],
    input: LanguageModelInput,
    /// `[batch, queries, vocab_size]`, row-major
    logits: Vec<f32>,
    vocab_size: usize,
    /// Of each token, whether its logits count.
    compared: Vec<bool>,
}

impl ParityCase {
    /// A case called `name` of rows of equal length, with the original's logits,
    /// `[batch, queries, vocab_size]`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the rows differ in length, or if the logits are not floats of that shape.
    pub fn new(name: impl Into<String>, tokens: &[Vec<u32>], logits: TensorData) -> Result<Self> {
        let queries = tokens.first().map_or(0, Vec::len);
        if tokens.iter().any(|row| row.len() != queries) {
            return Err(Error::Input {
                input: "parity case",
                expected: "rows of one length; pad them and hide the padding".into(),
                got: format!("{:?}", tokens.iter().map(Vec::len).collect::<Vec<_>>()),
            });
        }
        let flat = tokens.iter().flatten().map(|&token| token.into()).collect();
        Self::from_flat(name.into(), flat, [tokens.len(), queries], logits)
    }

    pub(super) fn from_flat(
        name: String,
        tokens: Vec<i64>,
        shape: [usize; 2],
        logits: TensorData,
    ) -> Result<Self> {
        let refuse = |got: String| Error::Input {
            input: "logits of a parity case",
            expected: format!("floats [{}, {}, vocab_size]", shape[0], shape[1]),
            got,
        };
        let fits =
            logits.dtype().is_float() && matches!(logits.shape()[..], [b, q, _] if [b, q] == shape);
        if !fits {
            return Err(refuse(format!("{} {:?}", logits.dtype().name(), logits.shape().to_vec())));
        }
        let vocab_size = logits.shape()[2];
        let logits = logits.convert::<f32>().try_into_vec::<f32>();
        let logits = logits.map_err(|error| refuse(error.to_string()))?;
        let compared = vec![true; tokens.len()];
        let input = LanguageModelInput::default();
        Ok(Self { name, tokens, shape, input, logits, vocab_size, compared })
    }

    /// Masks, positions and memory that the model is told.
    pub fn with_input(mut self, input: impl Into<LanguageModelInput>) -> Self {
        self.input = input.into();
        self
    }

    /// Compares the logits of those tokens only whose flag is true, `[batch, queries]` row-major:
    /// what the original computes in padded places means nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] unless there is a flag for each token.
    pub fn with_compared(mut self, compared: Vec<bool>) -> Result<Self> {
        if compared.len() != self.tokens.len() {
            return Err(Error::Input {
                input: "compared tokens of a parity case",
                expected: format!("{} flags, one for each token", self.tokens.len()),
                got: compared.len().to_string(),
            });
        }
        self.compared = compared;
        Ok(self)
    }

    /// What the case is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the model on the case and compares.
    ///
    /// # Errors
    ///
    /// Those of [`LanguageModel::forward`], and [`Error::Input`] if the model has another vocabulary.
    pub fn check(&self, model: &LanguageModel, tolerance: f64) -> Result<Parity> {
        if model.vocab_size() != self.vocab_size {
            return Err(Error::Input {
                input: "logits of a parity case",
                expected: format!("those of the {} tokens of the model", model.vocab_size()),
                got: format!("{} a row", self.vocab_size),
            });
        }
        let tokens = self.tokens(&model.embedding.weight.device());
        let logits = model.forward(tokens, self.input.clone())?.logits;
        let got: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let mut parity = Parity {
            name: self.name.clone(),
            tolerance,
            compared: 0,
            difference: 0.0,
            at: [0; 3],
            got: 0.0,
            expected: 0.0,
        };
        let pairs = got.iter().zip(&self.logits).enumerate();
        for (index, (&got, &expected)) in pairs.filter(|(i, _)| self.compared[i / self.vocab_size])
        {
            let difference = difference(got.into(), expected.into());
            if parity.compared == 0 || difference > parity.difference {
                let (token, entry) = (index / self.vocab_size, index % self.vocab_size);
                parity.at = [token / self.shape[1], token % self.shape[1], entry];
                (parity.difference, parity.got, parity.expected) =
                    (difference, got.into(), expected.into());
            }
            parity.compared += 1;
        }
        Ok(parity)
    }

    fn tokens(&self, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(self.tokens.clone(), self.shape), device)
    }
}

/// How far apart two numbers are: infinitely if one of them is NaN or infinite alone.
fn difference(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let difference = (a - b).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// How a model's logits compare with the original's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Parity {
    /// The case.
    pub name: String,
    /// The difference that was allowed.
    pub tolerance: f64,
    /// How many logits were compared.
    pub compared: usize,
    /// The largest difference of two logits; infinite if one of them is not a number.
    pub difference: f64,
    /// Where it is: the row of the batch, the token in it, the entry of the vocabulary.
    pub at: [usize; 3],
    /// The model's logit there.
    pub got: f64,
    /// The original's.
    pub expected: f64,
}

impl Parity {
    /// Whether something was compared and nothing strayed further than the tolerance.
    pub fn agrees(&self) -> bool {
        self.compared > 0 && self.difference <= self.tolerance
    }
}

impl fmt::Display for Parity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.compared, self.agrees()) {
            (0, _) => return write!(f, "{}: nothing was compared", self.name),
            (_, true) => "agrees",
            (_, false) => "does not agree",
        };
        let Self { name, tolerance, compared, difference, at: [row, token, entry], got, expected } =
            self;
        write!(
            f,
            "{name} {verdict}: of {compared} logits, the one of entry {entry} at token {token} of \
             row {row} is {got}, expected {expected} (difference {difference:.1e}, tolerance \
             {tolerance:.1e})"
        )
    }
}
