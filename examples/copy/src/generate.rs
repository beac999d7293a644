//! Copying with nothing to look at but the prompt: each token is the model's own best guess.

use burn::tensor::Device;
use burn_decoder::Error;
use burn_decoder::generation::{Generation, GenerationConfig};

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
        let prompts: Vec<Vec<u32>> = samples
            .iter()
            .map(|one| prompt(&one.first, task).into_iter().map(|token| token as u32).collect())
            .collect();
        let sources: Vec<Vec<usize>> = samples.iter().map(|one| one.source.clone()).collect();
        let longest = sources.iter().map(Vec::len).max().unwrap_or(0);

        let input = model.input(&Rows::new(&sources, task.pad(), device))?;
        let config = GenerationConfig::new(longest);
        let generation = Generation::with_input(&model.language, &prompts, input, &config)?;
        let rows = generation.finish().map_err(Error::from)?;
        copies.extend(rows.iter().zip(&sources).map(|(row, source)| {
            row.tokens[..source.len()].iter().map(|&token| token as usize).collect::<Vec<_>>()
        }));
    }
    Ok(copies)
}
