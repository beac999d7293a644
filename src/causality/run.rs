//! What a check will cost, and its run.

use std::cell::Cell;

use super::check::CausalityCheck;
use super::input::ModelInput;
use super::leaks::PathAnalysis;
use super::measure;
use super::perturb::PathRunner;
use super::receptive_field::ReceptiveFields;
use super::report::{Path, PathReport, Report};
use super::verdict::Unproven;
use super::weights;
use super::{memory, prefixes, targets};
use crate::{Error, Result};

/// What a check will cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Forward passes on each path. The passes by gradient, counted here too, go backward as well.
    ///
    /// A leak costs a few more, to name it, and so do equal runs that differ. Rows that turn out to be
    /// mixed are then looked at one by one, at up to `rows` times the passes.
    pub passes: usize,
    /// Paths.
    pub paths: usize,
    /// Rows of the batch in each pass.
    pub rows: usize,
    /// Positions in each row.
    pub length: usize,
}

impl Cost {
    /// Forward passes on all paths together.
    pub fn total(&self) -> usize {
        self.passes * self.paths
    }
}

impl<I: ModelInput> CausalityCheck<'_, I> {
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
        let layers = self.settings.layers;
        ReceptiveFields::new(&self.mask, self.batch, self.length, layers, self.own_hidden)
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
        let mut paths = analyses
            .iter()
            .enumerate()
            .map(|(index, analysis)| {
                analysis.report((index > 0).then(|| &analyses[0]), findings.as_ref())
            })
            .collect::<Result<Vec<_>>>()?;
        self.look_beyond(&analyses, &mut paths)?;
        Ok(Report {
            promise: self.mask.clone(),
            batch: self.batch,
            length: self.length,
            layers: self.settings.layers,
            passes: done.get(),
            paths,
        })
    }

    /// What only some models are asked: their memory, prefixes, targets and weights.
    fn look_beyond(
        &self,
        analyses: &[PathAnalysis<'_, I>],
        paths: &mut [PathReport],
    ) -> Result<()> {
        let (Some(plain), Some(report)) = (analyses.first(), paths.first_mut()) else {
            return Ok(());
        };
        if let Some(memory) = &self.memory
            && let Some(leak) = memory::leak(plain, memory)?
        {
            // Whoever reads the memory sees all of it: that is what the others are made of.
            report.leaks.iter_mut().for_each(|other| other.diagnosis = leak.diagnosis.clone());
            report.leaks.insert(0, leak);
        }
        if self.prefixes
            && let Some(mut leak) = prefixes::leak(plain)?
        {
            if let Some(known) = report.leaks.first() {
                leak.diagnosis = known.diagnosis.clone();
            }
            report.leaks.push(leak);
        }
        if self.settings.losses && report.leaks.is_empty() && report.unproven.is_none() {
            let found = targets::look(plain)?;
            report.leaks.extend(found.leak);
            report.unproven = found.unproven;
        }
        let disturbed = paths.iter_mut().find(|path| path.path == Path::Disturbed);
        if let (Some(find), Some(report)) = (&self.dead, disturbed) {
            let device = self.device.clone().autodiff();
            let inputs: Vec<I> = plain
                .measured
                .bases
                .iter()
                .map(|(base, _)| {
                    I::tensor(base.clone(), self.batch, self.length, self.size, &device)
                })
                .collect();
            report.dead = find(&inputs).unwrap_or_default();
            if !report.dead.is_empty() && report.unproven.is_none() {
                report.unproven = Some(Unproven::DeadWeights { tensors: report.dead.len() });
            }
        }
        Ok(())
    }
}
