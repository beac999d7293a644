//! Tokens on their way into a model: each has a vector in its embedding, or is shown to have none.

use burn::tensor::{Bool, Device, Int, Tensor};

use crate::attention::TokenCheck;
use crate::{Error, Result, kernels};

/// Ids of the vocabulary, and which of them stand in for a token that has none.
pub(super) struct CheckedTokens {
    /// `[batch, queries]`
    pub ids: Tensor<2, Int>,
    /// `[batch, queries]`, where the device was asked.
    outside: Option<Tensor<2, Bool>>,
}

impl CheckedTokens {
    /// For a model on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for tokens on another device, [`Error::Token`] for the first token outside the
    /// vocabulary, where the host looks.
    pub fn new(
        tokens: Tensor<2, Int>,
        device: &Device,
        vocab_size: usize,
        check: TokenCheck,
    ) -> Result<Self> {
        if tokens.device() != *device {
            return Err(Error::Input {
                input: "tokens",
                expected: format!("a tensor on {device:?}, where the model is"),
                got: format!("one on {:?}", tokens.device()),
            });
        }
        let on_host = kernels::is_host(&tokens.device());
        match check {
            TokenCheck::Host => check_on_host(&tokens, vocab_size)?,
            TokenCheck::Auto if on_host => check_on_host(&tokens, vocab_size)?,
            TokenCheck::Auto | TokenCheck::Device if tokens.dims().contains(&0) => {}
            TokenCheck::Auto | TokenCheck::Device => {
                // A lookup beyond the table would read, and in training write, what is not its own.
                let ids = tokens.clone().clamp(0, vocab_size.saturating_sub(1) as i64);
                let outside = Some(ids.clone().not_equal(tokens));
                return Ok(Self { ids, outside });
            }
            TokenCheck::Off => {}
        }
        Ok(Self { ids: tokens, outside: None })
    }

    /// Makes the vectors of stand-ins NaN. `embedded`: `[batch, queries, d_model]`.
    pub fn marked(&self, embedded: Tensor<3>) -> Tensor<3> {
        match &self.outside {
            Some(outside) => embedded.mask_fill(outside.clone().unsqueeze_dim(2), f32::NAN),
            None => embedded,
        }
    }
}

fn check_on_host(tokens: &Tensor<2, Int>, vocab_size: usize) -> Result<()> {
    let [_, queries] = tokens.dims();
    let inside = 0..vocab_size as i64;
    let data = tokens.to_data();
    match data.iter::<i64>().enumerate().find(|(_, token)| !inside.contains(token)) {
        None => Ok(()),
        Some((at, token)) => {
            Err(Error::Token { token, row: at / queries, index: at % queries, vocab_size })
        }
    }
}
