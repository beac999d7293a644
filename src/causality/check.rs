//! The checker: how a check is asked for, what it will cost, and its run.

use std::cell::Cell;

use burn::tensor::{Device, Int, Tensor};

use super::input::ModelInput;
use super::leaks::{CheckSettings, PathAnalysis};
use super::measure;
use super::perturb::{ModelOutput, PathRunner};
use super::receptive_field::ReceptiveFields;
use super::report::{Path, Report};
use super::weights;
use crate::mask::Mask;
use crate::{Error, Result};

/// Checks any Burn model for information that flows where the promised mask hides it. See the
/// [module](super) for how to use it.
pub struct CausalityCheck<'a, I: ModelInput> {
    paths: Vec<(Path, Forward<'a, I>)>,
    device: Device,
    /// Vocabulary or width.
    size: usize,
    length: usize,
    batch: usize,
    mask: Mask,
    seed: u64,
    gradients: bool,
    settings: CheckSettings,
    progress: Option<Box<dyn Fn(usize, usize) + 'a>>,
}

type Forward<'a, I> = Box<dyn Fn(I) -> ModelOutput + 'a>;

/// What a check will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Forward passes on each path. The passes by gradient, counted here too, go backward as well.
    ///
    /// A leak costs a few more, to name it, and so do equal runs that differ. Rows that turn out to be mixed are then looked at one
    /// by one, at up to `rows` times the passes.
    pub passes: usize,
    /// Paths.
    pub paths: usize,
    /// Rows of the batch in each pass.
    pub rows: usize,
    /// Positions in each row.
    pub length: usize,
}

impl<'a> CausalityCheck<'a, Tensor<2, Int>> {
    /// Checks a model from tokens `[batch, length]` to logits `[batch, length, vocabulary]` (the
    /// last axis may have any size). Ids are drawn from `0..vocabulary`, at least 2.
    pub fn tokens(
        vocabulary: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(Tensor<2, Int>) -> Tensor<3> + 'a,
    ) -> Self {
        Self::new(vocabulary, length, device, forward)
    }
}

impl<'a> CausalityCheck<'a, Tensor<3>> {
    /// Checks a model, or a layer, from embeddings `[batch, length, width]` to outputs
    /// `[batch, length, any]`. Looks by gradients and NaN too.
    pub fn embeddings(
        width: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(Tensor<3>) -> Tensor<3> + 'a,
    ) -> Self {
        Self::new(width, length, device, forward)
    }
}

impl<'a, I: ModelInput> CausalityCheck<'a, I> {
    fn new(
        size: usize,
        length: usize,
        device: &Device,
        forward: impl Fn(I) -> Tensor<3> + 'a,
    ) -> Self {
        let settings =
            CheckSettings { promise_given: false, layers: None, tolerance: None, agreement: 1e-4 };
        Self {
            paths: Vec::new(),
            device: device.clone(),
            size,
            length,
            batch: 8,
            mask: Mask::look_ahead(),
            seed: 0,
            gradients: true,
            settings,
            progress: None,
        }
        .with_any_path(Path::Plain, move |input| (forward(input), None))
    }

    fn with_any_path(mut self, path: Path, forward: impl Fn(I) -> ModelOutput + 'a) -> Self {
        self.paths.push((path, Box::new(forward)));
        self
    }

    /// Holds the model to this mask, on a square grid of the batch, instead of look-ahead. What the
    /// mask hides must not be seen, and what it shows must be.
    pub fn with_promise(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self.settings.promise_given = true;
        self
    }

    /// The number of attention layers. Without it a chain of any length is allowed, so that a
    /// window can't be told from look-ahead.
    pub fn with_layers(mut self, layers: usize) -> Self {
        self.settings.layers = Some(layers);
        self
    }

    /// Rows in each forward pass; default 8. More rows need fewer passes and more memory. A promise
    /// that speaks of rows (lengths, documents) needs exactly its own number.
    pub fn with_batch(mut self, rows: usize) -> Self {
        self.batch = rows;
        self
    }

    /// The seed of all inputs; default 0.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The largest move that does not count, in place of the measured one (0 where equal runs agree
    /// to the last bit).
    pub fn with_tolerance(mut self, tolerance: f32) -> Self {
        self.settings.tolerance = Some(tolerance);
        self
    }

    /// How far the outputs of another path may differ from the plain one's, as a part of the
    /// largest output; default 1e-4. Half precision needs more.
    pub fn with_agreement(mut self, agreement: f32) -> Self {
        self.settings.agreement = agreement;
        self
    }

    /// Whether to look by gradients where the input can be differentiated; default true.
    pub fn with_gradients(mut self, gradients: bool) -> Self {
        self.gradients = gradients;
        self
    }

    /// Checks the cached path too: the same tokens, fed in pieces through a fresh cache, with the
    /// outputs of all pieces put together again as `[batch, length, any]`.
    pub fn with_cached(self, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Cached, move |input| (forward(input), None))
    }

    /// Checks the path that returns attention weights too: outputs, and weights
    /// `[batch, heads, length, length]` before dropout (the heads of several layers side by side).
    pub fn with_weights(self, forward: impl Fn(I) -> (Tensor<3>, Tensor<4>) + 'a) -> Self {
        self.with_any_path(Path::Weights, move |input| {
            let (output, weights) = forward(input);
            (output, Some(weights))
        })
    }

    /// Checks the path with dropout on too. Its inputs stand on the autodiff device, where Burn's
    /// dropout acts. Since its outputs are random, gradients are what finds leaks here.
    pub fn with_dropout(self, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Dropout, move |input| (forward(input), None))
    }

    /// Checks any other path that should give the plain one's outputs (fused, another precision).
    pub fn with_path(self, name: impl Into<String>, forward: impl Fn(I) -> Tensor<3> + 'a) -> Self {
        self.with_any_path(Path::Named(name.into()), move |input| (forward(input), None))
    }

    /// Calls `progress(done, expected)` after each forward pass.
    pub fn with_progress(mut self, progress: impl Fn(usize, usize) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// What [`CausalityCheck::run`] will cost, without running anything.
    ///
    /// # Errors
    ///
    /// As [`CausalityCheck::run`], for the promise and the sizes.
    pub fn cost(&self) -> Result<Cost> {
        self.cost_under(&self.promise()?)
    }

    fn cost_under(&self, promise: &ReceptiveFields) -> Result<Cost> {
        Ok(Cost {
            passes: measure::cost::<I>(promise, self.looks_by_gradient()),
            paths: self.paths.len(),
            rows: self.batch,
            length: self.length,
        })
    }

    fn looks_by_gradient(&self) -> bool {
        self.gradients && I::can_be_differentiated()
    }

    fn promise(&self) -> Result<ReceptiveFields> {
        let at_least = |field, least: usize, got: usize| match got >= least {
            true => Ok(()),
            false => Err(Error::Config {
                field,
                expected: format!("at least {least}"),
                got: got.to_string(),
            }),
        };
        let sizes = I::sizes();
        if !sizes.contains(&self.size) {
            return Err(Error::Config {
                field: "CausalityCheck: vocabulary or width",
                expected: format!("{} to {}", sizes.start(), sizes.end()),
                got: self.size.to_string(),
            });
        }
        for (field, bound) in [
            ("CausalityCheck::tolerance", self.settings.tolerance.unwrap_or(0.0)),
            ("CausalityCheck::agreement", self.settings.agreement),
        ] {
            if !(bound.is_finite() && bound >= 0.0) {
                let expected = "a finite number of at least 0".into();
                return Err(Error::Config { field, expected, got: bound.to_string() });
            }
        }
        at_least("CausalityCheck: length", 1, self.length)?;
        at_least("CausalityCheck: batch", 1, self.batch)?;
        ReceptiveFields::new(&self.mask, self.batch, self.length, self.settings.layers)
    }

    /// Looks at every path in every way, and reports.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if the promise does not fit the batch and length; [`Error::Config`] for a
    /// size that is too small, a tolerance or an agreement that is no number; [`Error::ModelOutput`]
    /// if the model returns another shape than it should.
    pub fn run(&self) -> Result<Report> {
        let promise = self.promise()?;
        let expected = self.cost_under(&promise)?.total();
        let done = Cell::new(0);
        let tick = || {
            done.set(done.get() + 1);
            if let Some(progress) = &self.progress {
                progress(done.get(), expected.max(done.get()));
            }
        };

        let with_dropout = self.device.clone().autodiff();
        let runners: Vec<_> = self
            .paths
            .iter()
            .map(|(path, run)| PathRunner {
                run,
                device: if *path == Path::Dropout { &with_dropout } else { &self.device },
                promise: &promise,
                size: self.size,
                seed: self.seed,
                passes_run: Cell::new(0),
                width: Cell::new(None),
                progress: &tick,
            })
            .collect();
        let measured = runners
            .iter()
            .map(|runner| {
                measure::measure(runner, self.settings.tolerance, self.looks_by_gradient())
            })
            .collect::<Result<Vec<_>>>()?;

        let findings = measured.iter().find_map(|seen| weights::read::<I>(&promise, seen));
        let analyses: Vec<_> = self
            .paths
            .iter()
            .zip(runners.iter().zip(&measured))
            .map(|((path, _), (runner, measured))| PathAnalysis {
                path,
                runner,
                measured,
                settings: self.settings,
            })
            .collect();
        let paths = analyses
            .iter()
            .enumerate()
            .map(|(index, analysis)| {
                analysis.report((index > 0).then(|| &analyses[0]), findings.as_ref())
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Report {
            promise: self.mask.clone(),
            batch: self.batch,
            length: self.length,
            layers: self.settings.layers,
            passes: done.get(),
            paths,
        })
    }
}

impl Cost {
    /// Forward passes on all paths together.
    pub fn total(&self) -> usize {
        self.passes * self.paths
    }
}
