//! The cross-entropy of an output head in f32, with its gradients in the same pass: see
//! `kernels::cross_entropy` for the formulas.
//!
//! Tokens that do not count are left out of every product.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::arithmetic::{BLOCK, add_to, exp, long_sum, maximum, tanh, vectorized};
use super::host::{Flat, Host, read, readable};
use super::linear::column_sums;
use super::matrix::Matrix;
use super::memory::zeros;
use super::operation::HostOperation;
use super::product::{Start, product_to};
use crate::kernels::TokenLoss;
use crate::kernels::autodiff::{Operation, OperationInputs};
use crate::kernels::cross_entropy::chunk_of;

/// The loss of f32 tensors on a CPU, `[1]`.
pub(crate) fn token_losses(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    losses: TokenLosses,
) -> Tensor<1> {
    let loss = HostOperation::CrossEntropy(losses).run(x, Some(weight), bias); // [1, 1]
    loss.reshape([1])
}

/// The operation of hidden states, weight and perhaps bias.
#[derive(Clone, Debug)]
pub(crate) struct TokenLosses {
    /// The target of each token that counts.
    targets: Arc<[Option<u32>]>,
    asked: TokenLoss,
    /// How much each of them counts.
    share: f64,
}

/// The loss and the gradients that are wanted, `dW` as its weight lies.
struct Parts {
    loss: f64,
    d_x: Option<Vec<f32>>,
    d_weight: Option<Vec<f32>>,
    d_bias: Option<Vec<f32>>,
}

impl<B: Host> Operation<B, 3> for TokenLosses {
    const CHEAP: bool = false;

    fn forward(&self, inputs: OperationInputs<B, 3>) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        Operation::<B, 3>::forward_tracked(self, inputs, [false; 3])
    }

    /// Saves the gradients for a loss that counts once.
    fn forward_tracked(
        &self,
        inputs: OperationInputs<B, 3>,
        wanted: [bool; 3],
    ) -> (FloatTensor<B>, Vec<FloatTensor<B>>) {
        let [Some(x), Some(weight), bias] = inputs else {
            unreachable!("a loss without hidden states or weight")
        };
        let x = Flat::<B>::new(x);
        let weight = readable::<B, f32, 2>(weight);
        let bias = bias.map(Flat::<B>::new);
        let weight = Matrix::of(read::<B, f32, 2>(&weight));
        let parts = self.chunks(x.data(), weight, bias.as_ref().map(Flat::data), wanted);
        let d_weight = parts.d_weight.map(|d_weight| match weight.is_transposed() {
            true => B::float_transpose(B::tensor(d_weight, [weight.columns, weight.rows])),
            false => B::tensor(d_weight, [weight.rows, weight.columns]),
        });
        let d_bias = parts.d_bias.map(|d_bias| B::tensor(d_bias, [weight.columns]));
        let saved = [parts.d_x.map(|d_x| x.like(d_x)), d_weight, d_bias];
        (B::tensor(vec![parts.loss as f32], [1, 1]), saved.into_iter().flatten().collect())
    }

    fn backward(
        &self,
        _: OperationInputs<B, 3>,
        saved: Vec<FloatTensor<B>>,
        d_output: FloatTensor<B>,
        wanted: [bool; 3],
    ) -> OperationInputs<B, 3> {
        let factor = Flat::<B>::new(d_output).data()[0];
        let mut saved = saved.into_iter();
        wanted.map(|wanted| {
            let gradient = wanted.then(|| saved.next().expect("what forward saved"))?;
            // A loss that is differentiated by itself, as losses are.
            Some(match factor {
                1.0 => gradient,
                _ => B::float_mul_scalar(gradient, factor.into()),
            })
        })
    }
}

impl TokenLosses {
    pub(crate) fn new(targets: Arc<[Option<u32>]>, asked: TokenLoss) -> Self {
        let counted = targets.iter().flatten().count();
        let share = if asked.mean { 1.0 / counted.max(1) as f64 } else { 1.0 };
        Self { targets, asked, share }
    }

    /// Loss and gradients, chunk by chunk of the tokens that count.
    fn chunks(&self, x: &[f32], weight: Matrix, bias: Option<&[f32]>, wanted: [bool; 3]) -> Parts {
        let (d_model, vocab_size) = (weight.rows, weight.columns);
        let tokens = self.targets.len();
        assert!(x.len() == tokens * d_model, "hidden states and targets that do not fit");
        let counted: Vec<(usize, u32)> = self
            .targets
            .iter()
            .enumerate()
            .filter_map(|(token, target)| target.map(|target| (token, target)))
            .collect();
        let mut parts = Parts {
            loss: 0.0,
            d_x: wanted[0].then(|| zeros(x.len())),
            d_weight: wanted[1].then(|| zeros(d_model * vocab_size)),
            d_bias: wanted[2].then(|| vec![0.0; vocab_size]),
        };
        let differentiated = wanted.contains(&true);
        let size = chunk_of(counted.len(), vocab_size, self.asked.chunk);
        let mut logits = zeros(size.min(counted.len()) * vocab_size);
        let (mut gathered, mut d_rows) = (Vec::new(), Vec::new());
        for chunk in counted.chunks(size) {
            let whole = chunk[chunk.len() - 1].0 - chunk[0].0 == chunk.len() - 1;
            let range = chunk[0].0 * d_model..(chunk[chunk.len() - 1].0 + 1) * d_model;
            let rows = if whole {
                &x[range.clone()]
            } else {
                gathered.clear();
                for &(token, _) in chunk {
                    gathered.extend_from_slice(&x[token * d_model..][..d_model]);
                }
                &gathered
            };
            let rows = Matrix { rows: chunk.len(), ..Matrix::rows(rows, d_model) };
            let logits = &mut logits[..chunk.len() * vocab_size];
            product_to(rows, weight, bias.map_or(Start::Zero, Start::Bias), logits);
            parts.loss += self.rows(logits, chunk, differentiated);

            let d_z = Matrix { rows: chunk.len(), ..Matrix::rows(logits, vocab_size) };
            if let Some(d_x) = &mut parts.d_x {
                if whole {
                    product_to(d_z, weight.transposed(), Start::Zero, &mut d_x[range]);
                } else {
                    d_rows.resize(chunk.len() * d_model, 0.0);
                    product_to(d_z, weight.transposed(), Start::Zero, &mut d_rows);
                    for (row, &(token, _)) in d_rows.chunks_exact(d_model.max(1)).zip(chunk) {
                        d_x[token * d_model..][..d_model].copy_from_slice(row);
                    }
                }
            }
            match &mut parts.d_weight {
                Some(sum) if weight.is_transposed() => {
                    product_to(d_z.transposed(), rows, Start::Sum, sum);
                }
                Some(sum) => product_to(rows.transposed(), d_z, Start::Sum, sum),
                None => {}
            }
            if let Some(sum) = &mut parts.d_bias {
                add_to(sum, &column_sums(logits, vocab_size));
            }
        }
        parts.loss *= self.share;
        parts
    }

    /// The losses of a chunk, not yet divided by how many count. Its logits become their gradients.
    fn rows(&self, logits: &mut [f32], chunk: &[(usize, u32)], differentiated: bool) -> f64 {
        let vocab_size = logits.len() / chunk.len();
        let least = (BLOCK / vocab_size.max(1)).max(1);
        let rows = logits.par_chunks_mut(vocab_size).zip(chunk).with_min_len(least);
        let losses: Vec<f64> = rows
            .map(|(row, &(_, target))| {
                let mut loss = 0.0;
                vectorized(
                    #[inline(always)]
                    || loss = self.row(row, target as usize, differentiated),
                );
                loss
            })
            .collect();
        // In the order of the tokens, whoever computed them.
        losses.iter().sum()
    }

    #[inline(always)]
    fn row(&self, row: &mut [f32], target: usize, differentiated: bool) -> f64 {
        let softcap = self.asked.softcap.map(|cap| cap as f32);
        if let Some(cap) = softcap {
            let inverse = 1.0 / cap;
            row.iter_mut().for_each(|z| *z = cap * tanh(*z * inverse));
        }
        let at_target = row[target] as f64;
        let max = maximum(row);
        let sum = long_sum(row, |z| exp(z - max));
        let log_sum = max as f64 + sum.ln();
        let smoothing = self.asked.smoothing;
        let mut loss = log_sum - at_target;
        if smoothing > 0.0 {
            let mean = long_sum(row, |z| z) / row.len() as f64;
            loss = (1.0 - smoothing) * loss + smoothing * (log_sum - mean);
        }
        if differentiated {
            let even = smoothing / row.len() as f64;
            let (factor, less) = ((self.share / sum) as f32, (self.share * even) as f32);
            let slope = |z: f32| match softcap {
                Some(cap) => (1.0 - z / cap) * (1.0 + z / cap),
                None => 1.0,
            };
            // The one entry in which the target cancels most of the probability.
            let hit = (at_target - log_sum).exp() - even - (1.0 - smoothing);
            let hit = (self.share * hit) as f32 * slope(row[target]);
            row.iter_mut().for_each(|z| *z = (exp(*z - max) * factor - less) * slope(*z));
            row[target] = hit;
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;
    use burn::tensor::{DType, Device, Int, TensorData};

    use super::*;
    use crate::kernels::cpu::tests::{cpus, numbers, scattered};
    use crate::kernels::cross_entropy;

    const PLAIN: TokenLoss =
        TokenLoss { ignored: None, mean: true, smoothing: 0.0, softcap: None, chunk: None };
    const PAD: i64 = 3;

    /// Every target of the vocabulary, and some padding.
    fn targets(tokens: usize, vocab_size: usize, device: &Device) -> Tensor<1, Int> {
        let target = |i: usize| if i % 5 == 4 { PAD } else { (7 * i % vocab_size) as i64 };
        let targets: Vec<i64> = (0..tokens).map(target).collect();
        Tensor::from_data(TensorData::new(targets, [tokens]), device)
    }

    /// Loss, and gradients of hidden states, weight and bias.
    fn run(
        [tokens, d_model, vocab_size]: [usize; 3],
        dtype: DType,
        tied: bool,
        loss: impl Fn(Tensor<2>, Tensor<2>, Tensor<1>, Tensor<1, Int>) -> Tensor<1>,
        device: &Device,
    ) -> Vec<Vec<f64>> {
        let device = &device.clone().autodiff();
        let leaf = |shape: [usize; 2], factor: f64| {
            (scattered(shape, device).cast(dtype) * factor).detach().require_grad()
        };
        let x = leaf([tokens, d_model], 2.0);
        let shape = if tied { [vocab_size, d_model] } else { [d_model, vocab_size] };
        let parameter = leaf(shape, 1.0);
        let weight = if tied { parameter.clone().transpose() } else { parameter.clone() };
        let bias = (scattered::<1>([vocab_size], device) * 0.5).cast(dtype).detach().require_grad();
        let targets = targets(tokens, vocab_size, device);
        // Twice, so that the gradient of the loss is not 1.
        let loss = loss(x.clone(), weight, bias.clone(), targets);
        let gradients = (loss.clone() * 2.0).backward();
        vec![
            numbers(loss),
            numbers(x.grad(&gradients).unwrap()),
            numbers(parameter.grad(&gradients).unwrap()),
            numbers(bias.grad(&gradients).unwrap()),
        ]
    }

    /// By Burn's softmax over all logits: Burn's own loss smooths in f32 alone.
    fn on_all_logits(
        asked: TokenLoss,
    ) -> impl Fn(Tensor<2>, Tensor<2>, Tensor<1>, Tensor<1, Int>) -> Tensor<1> {
        move |x, weight, bias, targets| {
            let mut logits = x.matmul(weight) + bias.unsqueeze();
            if let Some(cap) = asked.softcap {
                // The gradient of Burn's division rounds 1 / cap to f32.
                logits = (logits * (1.0 / cap)).tanh() * cap;
            }
            let counted = targets.clone().not_equal_scalar(asked.ignored.unwrap_or(-1));
            let counted = counted.float().cast(logits.dtype());
            let log_probabilities = log_softmax(logits, 1);
            let even = log_probabilities.clone().mean_dim(1).squeeze_dim::<1>(1); // [tokens]
            let hit = log_probabilities.gather(1, targets.unsqueeze_dim(1)); // [tokens, 1]
            let hit = hit.squeeze_dim::<1>(1); // [tokens]
            let losses = hit * (asked.smoothing - 1.0) - even * asked.smoothing;
            let loss = (losses * counted.clone()).sum();
            if asked.mean { loss / counted.sum() } else { loss }
        }
    }

    fn assert_close(got: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, case: &str) {
        assert_eq!(got.len(), expected.len());
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_eq!(got.len(), expected.len());
            let largest = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            let farthest = got.iter().zip(expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(farthest <= tolerance * largest, "{case}, result {i}: {farthest} of {largest}");
        }
    }

    fn cases() -> Vec<TokenLoss> {
        let some = TokenLoss { ignored: Some(PAD), ..PLAIN };
        vec![
            PLAIN,
            some,
            TokenLoss { mean: false, chunk: Some(16), ..some },
            TokenLoss { smoothing: 0.1, chunk: Some(7), ..some },
            TokenLoss { softcap: Some(3.0), chunk: Some(1), ..PLAIN },
            TokenLoss { softcap: Some(30.0), smoothing: 0.25, mean: false, ..some },
        ]
    }

    /// Loss and gradients against those of all logits in f64, to 3e-6 of the largest:
    /// f32 rounds a logit of ten by 1e-6, and a probability by the same share. Burn's own loss in f32
    /// is as far from that in f64.
    #[test]
    fn a_loss_in_chunks_is_that_of_all_logits() {
        for (device, asked) in cpus().into_iter().flat_map(|d| cases().map_with(&d)) {
            for sizes in [[1, 5, 7], [37, 16, 67], [131, 67, 1031]] {
                for tied in [false, true] {
                    let case = format!("{asked:?}, {sizes:?}, tied: {tied}");
                    let expected = run(sizes, DType::F64, tied, on_all_logits(asked), &device);
                    let by_kernel = |x, weight, bias, targets| {
                        cross_entropy(x, weight, Some(bias), targets, asked)
                    };
                    let got = run(sizes, DType::F32, tied, by_kernel, &device);
                    assert_close(&got, &expected, 3e-6, &case);
                    // In f64 it goes by tensors, with nothing lost.
                    let got = run(sizes, DType::F64, tied, by_kernel, &device);
                    assert_close(&got, &expected, 1e-12, &case);
                }
            }
        }
    }

    trait MapWith<T> {
        fn map_with(self, device: &Device) -> Vec<(Device, T)>;
    }

    impl<T> MapWith<T> for Vec<T> {
        fn map_with(self, device: &Device) -> Vec<(Device, T)> {
            self.into_iter().map(|case| (device.clone(), case)).collect()
        }
    }

    #[test]
    fn without_a_target_that_counts_the_loss_is_0() {
        for device in cpus() {
            for dtype in [DType::F32, DType::F64] {
                let asked = TokenLoss { ignored: Some(PAD), ..PLAIN };
                let none = |x, weight, bias: Tensor<1>, targets: Tensor<1, Int>| {
                    cross_entropy(x, weight, Some(bias), targets.full_like(PAD), asked)
                };
                for numbers in run([11, 5, 7], dtype, false, none, &device) {
                    assert!(numbers.iter().all(|&x| x == 0.0), "{dtype:?}: {numbers:?}");
                }
            }
        }
    }

    /// A NaN in a token that does not count reaches nothing.
    #[test]
    fn a_token_that_does_not_count_is_not_read() {
        for device in cpus() {
            let asked = TokenLoss { ignored: Some(PAD), ..PLAIN };
            let loss =
                |x, weight, bias, targets| cross_entropy(x, weight, Some(bias), targets, asked);
            let poisoned = |x: Tensor<2>, weight, bias, targets: Tensor<1, Int>| {
                let pad = targets.clone().equal_scalar(PAD).unsqueeze_dim::<2>(1);
                let pad = pad.expand(x.dims());
                loss(x.mask_fill(pad, f32::NAN), weight, bias, targets)
            };
            let clean = run([37, 16, 67], DType::F32, false, loss, &device);
            assert_eq!(run([37, 16, 67], DType::F32, false, poisoned, &device), clean);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for device in cpus() {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let asked = TokenLoss { chunk: Some(48), ..PLAIN };
                let loss =
                    |x, weight, bias, targets| cross_entropy(x, weight, Some(bias), targets, asked);
                pool.install(|| run([131, 67, 1031], DType::F32, true, loss, &device))
            };
            assert_eq!(with(1), with(2));
        }
    }

    /// Chunks are about equal, none above the most, all tokens covered.
    #[test]
    fn chunks_hold_so_many_logits() {
        assert_eq!(chunk_of(1024, 50_257, None), 256);
        assert_eq!(chunk_of(1536, 32, None), 1536);
        assert_eq!(chunk_of(100, 1 << 24, None), 64);
        assert_eq!(chunk_of(100, 7, Some(40)), 40);
        assert_eq!(chunk_of(0, 7, None), 1);
    }
}
