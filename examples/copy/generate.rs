//! Copying with nothing to look at but the prompt: each token is the model's own best guess.

use burn::tensor::Device;

use super::batch::{Rows, prompt};
use super::failure::Failure;
use super::model::CopyModel;
use super::task::{Sample, Task};

/// Strings that are copied at once.
const BATCH: usize = 250;

/// What the model says behind `first | SEP`, as many tokens as each source has.
pub fn greedy_copies(
    model: &CopyModel,
    samples: &[Sample],
    task: &Task,
    device: &Device,
) -> Result<Vec<Vec<usize>>, Failure> {
    let mut copies = Vec::with_capacity(samples.len());
    for samples in samples.chunks(BATCH) {
        let prompts: Vec<Vec<usize>> = samples.iter().map(|one| prompt(&one.first, task)).collect();
        let sources: Vec<Vec<usize>> = samples.iter().map(|one| one.source.clone()).collect();
        let memory = Rows::new(&sources, task.pad(), device);
        let longest = memory.lengths.iter().copied().max().unwrap_or(0);

        let mut rows = prompts.clone();
        for _ in 0..longest {
            let input = Rows::new(&rows, task.pad(), device);
            let [_, queries] = input.tokens.dims();
            let best = model.logits(&input, &memory)?.argmax(2).into_data(); // [batch, queries, 1]
            let best: Vec<i64> = best.iter::<i64>().collect();
            for (row, best) in rows.iter_mut().zip(best.chunks(queries)) {
                row.push(best[row.len() - 1] as usize);
            }
        }
        copies.extend(rows.iter().zip(&prompts).zip(&sources).map(|((row, prompt), source)| {
            row[prompt.len()..prompt.len() + source.len()].to_vec()
        }));
    }
    Ok(copies)
}
