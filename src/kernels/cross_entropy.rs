//! The cross-entropy of an output head, without its logits for all tokens at once.
//!
//! ```text
//! z = softcap(x W + b)                                              [tokens, vocab_size]
//! loss of a token = ln Σ exp(z) - Σ q z,  q = (1 - s) onehot(target) + s / vocab_size
//! dz = (exp(z) / Σ exp(z) - q) · how much the token counts
//! ```
//!
//! `s` is the label smoothing. `dx = dz Wᵀ` and `dW = xᵀ dz` need nothing but `dz`, so that one pass
//! over the tokens in chunks gives the loss and all gradients, and the logits of one chunk are the
//! most that is ever held. Computing them again in the backward pass instead would cost a fourth
//! product beside three, and save no memory: the backward pass begins with this step, where the
//! gradient of the weight is needed anyway.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::cpu::cross_entropy::{TokenLosses, token_losses};
use super::cpu::runs_on;

/// What is asked of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenLoss {
    /// A target that does not count.
    pub(crate) ignored: Option<i64>,
    /// Whether the losses are divided by the number of targets that count.
    pub(crate) mean: bool,
    /// The label smoothing, in `[0, 1)`.
    pub(crate) smoothing: f64,
    /// `cap` in `cap * tanh(logit / cap)`.
    pub(crate) softcap: Option<f64>,
    /// The most tokens in a chunk; by [`chunk_of`] if not given.
    pub(crate) chunk: Option<usize>,
}

/// The most logits in a chunk: 64 MiB of f32.
const MOST_LOGITS: usize = 1 << 24;
/// The least tokens in one, for which it pays to read the weight.
const LEAST_TOKENS: usize = 64;

/// Tokens in a chunk: so many that they have at most [`MOST_LOGITS`] logits, but at least
/// [`LEAST_TOKENS`], in chunks of about equal length. By sizes alone, so that a result depends on
/// nothing else.
pub(crate) fn chunk_of(tokens: usize, vocab_size: usize, most: Option<usize>) -> usize {
    let most = most.unwrap_or((MOST_LOGITS / vocab_size.max(1)).max(LEAST_TOKENS)).max(1);
    let chunks = tokens.div_ceil(most).max(1);
    tokens.div_ceil(chunks).next_multiple_of(16).min(most).max(1)
}

/// The loss, `[1]`; 0 if no target counts.
///
/// # Shapes
///
/// - x: `[tokens, d_model]`
/// - weight: `[d_model, vocab_size]`, read as it lies
/// - bias: `[vocab_size]`
/// - targets: `[tokens]`, each in the vocabulary or the ignored one; another panics on a CPU, and makes
///   the loss NaN elsewhere
pub(crate) fn cross_entropy(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    asked: TokenLoss,
) -> Tensor<1> {
    if runs_on(&x) && runs_on(&weight) {
        let counted: Vec<Option<u32>> = targets
            .into_data()
            .iter::<i64>()
            .map(|target| {
                let counts = asked.ignored != Some(target);
                counts.then(|| u32::try_from(target).expect("a target in the vocabulary"))
            })
            .collect();
        return token_losses(x, weight, bias, TokenLosses::new(counted.into(), asked));
    }
    by_tensors(x, weight, bias, targets, asked)
}

/// By Burn's operations, on any device.
///
/// Autodiff would keep the logits of every chunk. So they are computed outside of it, with the
/// gradients, and these are attached to a zero: that of `Σ x dx + Σ W dW` less itself.
fn by_tensors(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    asked: TokenLoss,
) -> Tensor<1> {
    let tracked = x.device().is_autodiff();
    let (inner_x, inner_weight) = (untracked(x.clone()), untracked(weight.clone()));
    let inner_bias = bias.clone().map(untracked);
    let targets = if targets.device().is_autodiff() { targets.inner() } else { targets };
    let parts = chunks(inner_x, inner_weight, inner_bias, targets, asked, tracked);
    let Some([d_x, d_weight]) = parts.gradients else { return parts.loss };

    let strategy = x.gradient_checkpointing_strategy();
    let lift = |tensor: Tensor<1>| match strategy {
        Some(strategy) => Tensor::from_inner(tensor).with_gradient_checkpointing_strategy(strategy),
        None => Tensor::from_inner(tensor),
    };
    let attach = |tensor: Tensor<2>, gradient: Tensor<2>| -> Tensor<1> {
        let [rows, columns] = tensor.dims();
        let gradient = lift(gradient.reshape([rows * columns])).reshape([rows, columns]);
        let sum = (tensor * gradient).sum();
        sum.clone() - sum.detach()
    };
    let mut loss = lift(parts.loss) + attach(x, d_x) + attach(weight, d_weight);
    if let (Some(bias), Some(d_bias)) = (bias, parts.d_bias) {
        let sum = (bias * lift(d_bias)).sum();
        loss = loss + sum.clone() - sum.detach();
    }
    loss
}

struct Parts {
    /// `[1]`
    loss: Tensor<1>,
    /// `[tokens, d_model]` and `[d_model, vocab_size]`
    gradients: Option<[Tensor<2>; 2]>,
    /// `[vocab_size]`
    d_bias: Option<Tensor<1>>,
}

fn untracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.inner() } else { tensor }
}

/// Loss and gradients, chunk by chunk.
fn chunks(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    asked: TokenLoss,
    differentiated: bool,
) -> Parts {
    let ([tokens, _], [_, vocab_size]) = (x.dims(), weight.dims());
    let ignored = asked.ignored.map(|ignored| targets.clone().equal_scalar(ignored));
    // How much each token counts, [tokens, 1].
    let mut counts = Tensor::<2>::ones([tokens, 1], (&x.device(), x.dtype()));
    let mut targets = targets.unsqueeze_dim::<2>(1); // [tokens, 1]
    if let Some(ignored) = ignored {
        let ignored = ignored.unsqueeze_dim::<2>(1); // [tokens, 1]
        counts = counts.mask_fill(ignored.clone(), 0.0);
        targets = targets.mask_fill(ignored, 0);
    }
    if asked.mean {
        let number = counts.clone().sum().clamp_min(1.0); // [1]
        counts = counts / number.unsqueeze();
    }
    // A lookup beyond the logits would read what is not its own.
    let inside = targets.clone().clamp(0, vocab_size.saturating_sub(1) as i64);
    counts = counts.mask_fill(inside.clone().not_equal(targets), f32::NAN);
    let targets = inside;

    let smoothing = asked.smoothing;
    let even = smoothing / vocab_size.max(1) as f64;
    let mut loss = Tensor::<1>::zeros([1], (&x.device(), x.dtype()));
    let (mut d_x, mut d_weight, mut d_bias) = (Vec::new(), None::<Tensor<2>>, None::<Tensor<1>>);
    let size = chunk_of(tokens, vocab_size, asked.chunk);
    for start in (0..tokens).step_by(size) {
        let len = size.min(tokens - start);
        let x = x.clone().narrow(0, start, len); // [len, d_model]
        let target = targets.clone().narrow(0, start, len); // [len, 1]
        let counts = counts.clone().narrow(0, start, len); // [len, 1]
        let mut z = x.clone().matmul(weight.clone()); // [len, vocab_size]
        if let Some(bias) = &bias {
            z = z + bias.clone().unsqueeze();
        }
        if let Some(cap) = asked.softcap {
            z = (z / cap).tanh() * cap;
        }
        let max = z.clone().max_dim(1); // [len, 1]
        let exp = (z.clone() - max.clone()).exp();
        let sum = exp.clone().sum_dim(1); // [len, 1]
        let log_sum = sum.clone().log() + max;
        let mut expected = z.clone().gather(1, target.clone()) * (1.0 - smoothing); // [len, 1]
        if smoothing > 0.0 {
            expected = expected + z.clone().mean_dim(1) * smoothing;
        }
        loss = loss + ((log_sum - expected) * counts.clone()).sum();
        if !differentiated {
            continue;
        }
        let hit = counts.clone() * (smoothing - 1.0); // [len, 1]
        let mut d_z = (exp / sum - even) * counts;
        d_z = d_z.scatter(1, target, hit, IndexingUpdateOp::Add);
        if let Some(cap) = asked.softcap {
            let tanh = z / cap;
            d_z = d_z * (tanh.clone() * tanh * -1.0 + 1.0);
        }
        d_x.push(d_z.clone().matmul(weight.clone().transpose()));
        let part = x.transpose().matmul(d_z.clone());
        d_weight = Some(d_weight.map_or(part.clone(), |sum| sum + part));
        if bias.is_some() {
            let part = d_z.sum_dim(0).squeeze_dim::<1>(0); // [vocab_size]
            d_bias = Some(d_bias.map_or(part.clone(), |sum| sum + part));
        }
    }
    let gradients = d_weight.map(|d_weight| [Tensor::cat(d_x, 0), d_weight]);
    Parts { loss, gradients, d_bias }
}
