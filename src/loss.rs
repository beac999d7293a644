//! The loss of a language model, without its logits.
//!
//! Logits of all tokens are the largest tensor of a training step: `tokens * vocab_size` numbers, and
//! as many again for their softmax and for their gradient. [`CrossEntropy`] computes them for some
//! tokens at a time, and what the gradients need of them in the same pass, so that they are never
//! there in full. The numbers are those of a cross-entropy on all logits.
//!
//! ```
//! # #[cfg(feature = "ndarray")] {
//! use burn::tensor::{Device, Int, Tensor};
//! use burn_decoder::loss::{CrossEntropyConfig, OutputHead};
//!
//! # #[allow(deprecated)]
//! let device = Device::ndarray();
//! let hidden = Tensor::<2>::ones([3, 8], &device); // [tokens, d_model]
//! let head = OutputHead::new(Tensor::zeros([8, 100], &device)); // [d_model, vocab_size]
//! let targets = Tensor::<1, Int>::from_ints([5, 99, 0], &device);
//! let loss = CrossEntropyConfig::new().with_ignored(Some(0)).init()?;
//! let mean = loss.forward(hidden, head, targets)?.into_scalar::<f32>();
//! assert!((mean - 100f32.ln()).abs() < 1e-6);
//! # }
//! # Ok::<(), burn_decoder::Error>(())
//! ```
//!
//! A [`LanguageModel`](crate::decoder::LanguageModel) gives its loss by
//! [`LanguageModel::loss`](crate::decoder::LanguageModel::loss).

use burn::config::Config;
use burn::tensor::{DType, Int, Tensor, assert_shape};

use crate::error::{check_nonzero, check_probability, fits_f32};
use crate::kernels::{self, TokenLoss};
use crate::{Error, Result};

/// What becomes of the losses of all tokens.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Their mean over the targets that are not ignored; 0 if there is none, where Burn's own loss
    /// and PyTorch's have NaN.
    Mean,
    /// Their sum: for losses over several batches, divided by all their tokens in the end.
    Sum,
}

/// Configuration of a [`CrossEntropy`].
#[derive(Config, Debug, Copy, PartialEq)]
pub struct CrossEntropyConfig {
    /// The target that does not count: that of padding.
    pub ignored: Option<i64>,
    /// Mean or sum.
    #[config(default = "Reduction::Mean")]
    pub reduction: Reduction,
    /// Label smoothing, in `[0, 1)`: the share of the target's probability that is spread evenly over
    /// the vocabulary (Szegedy et al. 2016, section 7).
    #[config(default = 0.0)]
    pub smoothing: f64,
    /// The most tokens whose logits are held at a time. If not given, as many as have 2^24 logits
    /// (64 MiB in f32), but at least 64; always in chunks of about equal length. Another number
    /// changes memory, time and the last bits of the weight's gradient.
    pub chunk: Option<usize>,
}

impl CrossEntropyConfig {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a smoothing outside of `[0, 1)` or a chunk of no tokens.
    pub fn init(&self) -> Result<CrossEntropy> {
        check_probability("CrossEntropyConfig::smoothing", self.smoothing)?;
        if let Some(chunk) = self.chunk {
            check_nonzero("CrossEntropyConfig::chunk", chunk)?;
        }
        Ok(CrossEntropy { config: *self })
    }
}

/// From hidden states to logits: what a loss needs of a model behind its last layer.
#[derive(Clone, Debug)]
pub struct OutputHead {
    /// `[d_model, vocab_size]`
    pub weight: Tensor<2>,
    /// `[vocab_size]`
    pub bias: Option<Tensor<1>>,
    /// `cap` in `cap * tanh(logit / cap)`.
    pub softcap: Option<f64>,
}

impl OutputHead {
    /// A weight of `[d_model, vocab_size]`, without bias and softcap.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight, bias: None, softcap: None }
    }

    /// A token embedding, `[vocab_size, d_model]`, that is the head, too. It is read as it lies.
    pub fn tied(embedding: Tensor<2>) -> Self {
        Self::new(embedding.transpose())
    }

    /// Adds a bias, `[vocab_size]`.
    #[must_use]
    pub fn with_bias(mut self, bias: Option<Tensor<1>>) -> Self {
        self.bias = bias;
        self
    }

    /// Caps the logits, smoothly, to within `±softcap`.
    #[must_use]
    pub fn with_softcap(mut self, softcap: Option<f64>) -> Self {
        self.softcap = softcap;
        self
    }
}

/// The cross-entropy in nats between a head's softmax and the targets. Built by
/// [`CrossEntropyConfig`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    config: CrossEntropyConfig,
}

impl CrossEntropy {
    /// The settings that it was built from.
    pub fn config(&self) -> &CrossEntropyConfig {
        &self.config
    }

    /// The loss. In f32 for half precision, whose gradients are sums in f32, too.
    ///
    /// On an autodiff device the gradients are computed with it, and held until the backward pass; on
    /// the CPU backends of this crate those that are asked for, so that a frozen head costs nothing.
    ///
    /// # Shapes
    ///
    /// - hidden: `[..., d_model]`, for example `[tokens, d_model]` or `[batch, tokens, d_model]`
    /// - targets: the same without its last axis
    /// - output: `[1]`
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a target that is neither in the vocabulary nor the ignored one, where the
    /// targets lie in the host's memory (ndarray and flex); elsewhere, since nobody waits for a look at
    /// them, such a target makes the loss NaN. [`Error::Config`] for a softcap that is not above 0.
    ///
    /// # Panics
    ///
    /// If a shape does not fit, or `T` is not `D - 1`.
    pub fn forward<const D: usize, const T: usize>(
        &self,
        hidden: Tensor<D>,
        head: OutputHead,
        targets: Tensor<T, Int>,
    ) -> Result<Tensor<1>> {
        let OutputHead { weight, bias, softcap } = head;
        let [d_model, vocab_size] = weight.dims();
        assert_shape!(hidden, [.., d_model]);
        if let Some(bias) = &bias {
            assert_shape!(bias, [vocab_size]);
        }
        let (shape, of_targets) = (hidden.dims(), targets.dims());
        assert_eq!(shape[..D - 1], of_targets[..], "targets: expected one for each hidden state");
        if let Some(softcap) = softcap
            && !(fits_f32(softcap) && softcap > 0.0)
        {
            return Err(Error::Config {
                field: "OutputHead::softcap",
                expected: "a number above 0, in the range of f32".into(),
                got: softcap.to_string(),
            });
        }
        let CrossEntropyConfig { ignored, reduction, smoothing, chunk } = self.config;
        let tokens = of_targets.iter().product();
        if kernels::is_host(&targets.device()) {
            let row = of_targets.last().copied().unwrap_or(1);
            check_targets(&targets, ignored, vocab_size, row)?;
        }
        let dtype = if hidden.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let hidden = hidden.reshape([tokens, d_model]).cast(dtype);
        let targets = targets.reshape([tokens]);
        let mean = reduction == Reduction::Mean;
        let asked = TokenLoss { ignored, mean, smoothing, softcap, chunk };
        let bias = bias.map(|bias| bias.cast(dtype));
        Ok(kernels::cross_entropy(hidden, weight.cast(dtype), bias, targets, asked))
    }
}

/// An error for the first target that is none; `row` of them belong together.
fn check_targets<const T: usize>(
    targets: &Tensor<T, Int>,
    ignored: Option<i64>,
    vocab_size: usize,
    row: usize,
) -> Result<()> {
    let fits = |target: i64| ignored == Some(target) || (0..vocab_size as i64).contains(&target);
    let data = targets.to_data();
    match data.iter::<i64>().enumerate().find(|&(_, target)| !fits(target)) {
        None => Ok(()),
        Some((at, token)) => {
            Err(Error::Token { token, row: at / row, index: at % row, vocab_size })
        }
    }
}
