//! Strings as tensors: next-token prediction over rows that are padded on the right.
//!
//! ```text
//! string    a   b   c  SEP  a   b   c
//! input     a   b   c  SEP  a   b            what the model reads
//! target        b   c  SEP  a   b   c        what it must say at each place
//! scored        first  ---  copied half      SEP ends the source where the task says: not scored
//! ```

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::task::{Sample, Task};

/// Which targets count, and for which half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Half {
    First,
    Copied,
}

/// Rows of tokens, padded on the right.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[batch, queries]`
    pub tokens: Tensor<2, Int>,
    /// Number of tokens in each row that are not padding.
    pub lengths: Vec<usize>,
}

impl Rows {
    /// Pads the rows on the right to the longest of them.
    pub fn new(rows: &[Vec<usize>], pad: usize, device: &Device) -> Self {
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        Self { tokens: padded(rows, longest, pad, device), lengths }
    }
}

/// A batch of strings.
#[derive(Clone, Debug)]
pub struct Batch {
    pub input: Rows,
    /// The source, for a decoder with cross-attention.
    pub memory: Rows,
    /// The next token at each place of the input, `[batch, queries]`.
    pub targets: Tensor<2, Int>,
    /// The half to which each target belongs, row by row.
    pub halves: Vec<Vec<Option<Half>>>,
}

impl Batch {
    pub fn new(samples: &[Sample], task: &Task, device: &Device) -> Self {
        let (mut inputs, mut targets, mut halves) = (Vec::new(), Vec::new(), Vec::new());
        for sample in samples {
            let Sample { first, source } = sample;
            let input = input(sample, task);
            targets.push(input[1..].iter().chain(source.last()).copied().collect());
            inputs.push(input);

            let mut half = vec![Some(Half::First); first.len() - 1];
            half.push(None); // SEP
            half.resize(first.len() + source.len(), Some(Half::Copied));
            halves.push(half);
        }
        let sources: Vec<Vec<usize>> = samples.iter().map(|one| one.source.clone()).collect();
        Self {
            input: Rows::new(&inputs, task.pad(), device),
            memory: Rows::new(&sources, task.pad(), device),
            targets: Rows::new(&targets, task.pad(), device).tokens,
            halves,
        }
    }

    /// Number of targets that belong to the half.
    pub fn count(&self, half: Half) -> usize {
        self.halves.iter().flatten().filter(|&&one| one == Some(half)).count()
    }

    /// 1 over the number of the half's targets where a target belongs to the half, else 0:
    /// `[batch, queries]`. Multiplied with losses and summed, it gives the half's mean.
    pub fn mean_over(&self, half: Half) -> Tensor<2> {
        let [batch, queries] = self.targets.dims();
        let count = self.count(half);
        let mut weights = vec![0.0_f32; batch * queries];
        for (row, halves) in weights.chunks_mut(queries).zip(&self.halves) {
            for (weight, &one) in row.iter_mut().zip(halves) {
                if one == Some(half) {
                    *weight = 1.0 / count as f32;
                }
            }
        }
        Tensor::from_data(TensorData::new(weights, [batch, queries]), &self.targets.device())
    }
}

/// What the model reads of a string: all but its last token.
pub fn input(sample: &Sample, task: &Task) -> Vec<usize> {
    let mut input = prompt(&sample.first, task);
    input.extend(&sample.source[..sample.source.len() - 1]);
    input
}

/// `first | SEP`: what comes before the copy.
pub fn prompt(first: &[usize], task: &Task) -> Vec<usize> {
    let mut prompt = first.to_vec();
    prompt.push(task.sep());
    prompt
}

fn padded(rows: &[Vec<usize>], width: usize, pad: usize, device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i64> = rows
        .iter()
        .flat_map(|row| {
            let padding = std::iter::repeat_n(&pad, width - row.len());
            row.iter().chain(padding).map(|&token| token as i64)
        })
        .collect();
    Tensor::from_data(TensorData::new(tokens, [rows.len(), width]), device)
}
