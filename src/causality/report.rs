//! The report: what was looked at, what was found, and what it most likely is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::diagnosis::Diagnosis;
use super::influence::Influence;
use super::schedule::Way;
use super::verdict::{Unproven, Verdict};
use crate::mask::Mask;

/// A way through the model: the same outputs, computed differently.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// The forward pass itself.
    Plain,
    /// With a cache, token by token or in pieces.
    Cached,
    /// Returning the attention weights.
    Weights,
    /// With dropout on.
    Dropout,
    /// Step by step, from a state that is carried along.
    Steps,
    /// With disturbed weights, so that paths that are dead at the given ones are open.
    Disturbed,
    /// Any other: fused, half precision, ...
    Named(String),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Cached => "cached",
            Self::Weights => "weights returned",
            Self::Dropout => "dropout on",
            Self::Steps => "step by step",
            Self::Disturbed => "weights disturbed",
            Self::Named(name) => name,
        })
    }
}

/// The first leak that one way of looking found on one path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// The path.
    pub path: Path,
    /// The way of looking.
    pub way: Way,
    /// Row of the batch whose output moved.
    pub row: usize,
    /// Position of the output that moved.
    pub query: usize,
    /// Row of the batch that was changed; another one than `row` only if rows are mixed.
    pub key_row: usize,
    /// Position that was changed.
    pub key: usize,
    /// Largest move of the output; for gradients, largest derivative; for weights, the weight.
    pub size: f32,
    /// What it most likely is.
    pub diagnosis: Diagnosis,
}

/// Promised influence that was never seen on a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// The path.
    pub path: Path,
    /// Row of the batch.
    pub row: usize,
    /// The first query that a promised key never moves.
    pub query: usize,
    /// The first such key.
    pub key: usize,
    /// Number of such cells in the row.
    pub cells: usize,
    /// What it most likely is.
    pub diagnosis: Diagnosis,
}

/// A path whose outputs are not those of the plain one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disagreement {
    /// The path.
    pub path: Path,
    /// Row of the batch.
    pub row: usize,
    /// The first query whose output differs.
    pub query: usize,
    /// Largest difference.
    pub size: f32,
    /// The largest difference that would have been rounding.
    pub tolerance: f32,
    /// What it most likely is.
    pub diagnosis: Diagnosis,
}

/// A hidden NaN that comes out as NaN or infinity: `0 * NaN` is NaN.
///
/// No information that training could use, so not counted as a leak; but garbage in hidden places
/// (an uninitialised cache, padding) reaches the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poisoned {
    /// Row of the batch.
    pub row: usize,
    /// Position of the output that is not finite.
    pub query: usize,
    /// The first position that held NaN.
    pub key: usize,
}

/// What was seen on one path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// The path.
    pub path: Path,
    /// The first leak of each way of looking that found one.
    pub leaks: Vec<Leak>,
    /// Why no leak would show nothing here, if that is so.
    #[serde(default)]
    pub unproven: Option<Unproven>,
    /// Of the path with disturbed weights: the weights that moved nothing.
    #[serde(default)]
    pub dead: Vec<String>,
    /// Promised influence that never appeared, of each kind of row.
    pub missing: Vec<Missing>,
    /// Whether its outputs differ from the plain path's.
    pub disagreement: Option<Disagreement>,
    /// Whether NaN in hidden places reaches outputs. `None` too where tokens are checked.
    pub poisoned: Option<Poisoned>,
    /// Largest difference between equal runs: 0 on a deterministic backend.
    pub noise: f32,
    /// Largest move that was not counted. 0: exact to the last bit.
    pub tolerance: f32,
    /// Whether gradients were looked at as well.
    pub by_gradient: bool,
    /// Who moves whom: for the whole batch, or for each row if the promise differs by row.
    pub influence: Vec<Influence>,
}

/// The outcome of a [`CausalityCheck`](super::CausalityCheck). `Display` prints it with the
/// influence matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The promise that the model was held to.
    pub promise: Mask,
    /// Rows of the batch.
    pub batch: usize,
    /// Positions.
    pub length: usize,
    /// Number of layers, if it was given.
    pub layers: Option<usize>,
    /// Forward passes that were run, on all paths.
    pub passes: usize,
    /// What was seen on each path, the plain one first.
    pub paths: Vec<PathReport>,
}

impl Report {
    /// What the check says: a leak on any path is one, and without one, each path must prove that.
    pub fn verdict(&self) -> Verdict {
        if self.leaks().next().is_some() {
            return Verdict::Leak;
        }
        let unproven = self.paths.iter().find_map(|path| path.unproven);
        unproven.map_or(Verdict::Causal, Verdict::NotProven)
    }

    /// True if it is proven that nothing moves an output that the promise hides it from, on any path.
    pub fn is_causal(&self) -> bool {
        self.verdict() == Verdict::Causal
    }

    /// True if it is proven that there is no leak, no promised influence is missing, and all paths
    /// agree.
    pub fn keeps_promise(&self) -> bool {
        let kept = |path: &PathReport| path.missing.is_empty() && path.disagreement.is_none();
        self.is_causal() && self.paths.iter().all(kept)
    }

    /// All leaks, path by path.
    pub fn leaks(&self) -> impl Iterator<Item = &Leak> {
        self.paths.iter().flat_map(|path| &path.leaks)
    }

    /// The leak at the first query and key, on the first path that has any. A leak between rows comes
    /// before all others.
    pub fn first_leak(&self) -> Option<&Leak> {
        let path = self.paths.iter().find(|path| !path.leaks.is_empty())?;
        path.leaks.iter().min_by_key(|leak| (leak.way != Way::OtherRows, leak.query, leak.key))
    }

    /// What was found most likely is this: the diagnosis of the first leak, or else of the first
    /// disagreement or missing influence.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        let leak = self.leaks().map(|leak| &leak.diagnosis).next();
        let other = || {
            self.paths.iter().find_map(|path| {
                let missing = path.missing.first().map(|missing| &missing.diagnosis);
                path.disagreement.as_ref().map(|differs| &differs.diagnosis).or(missing)
            })
        };
        leak.or_else(other)
    }

    /// For tests.
    ///
    /// # Panics
    ///
    /// If there is a leak, or if it is not proven that there is none, with the report as message.
    #[track_caller]
    pub fn assert_causal(&self) {
        assert!(self.is_causal(), "{self}");
    }

    /// For tests: provenly no leak, nothing promised that is missing, and all paths alike.
    ///
    /// # Panics
    ///
    /// If one of them fails, with the report as message.
    #[track_caller]
    pub fn assert_keeps_promise(&self) {
        assert!(self.keeps_promise(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict() {
            Verdict::Leak => writeln!(f, "NOT CAUSAL: information flows where the mask hides it")?,
            Verdict::NotProven(why) => writeln!(f, "NOT PROVEN: no leak was seen, but {why}")?,
            Verdict::Causal if self.keeps_promise() => writeln!(f, "causal: no leak found")?,
            Verdict::Causal => writeln!(f, "causal, but the promise is not kept")?,
        }
        let Self { batch, length, passes, .. } = self;
        writeln!(f, "promise: {}, on {batch} row(s) of {length} positions", self.promise)?;
        writeln!(f, "cost: {passes} forward passes")?;
        for path in &self.paths {
            write!(f, "{path}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PathReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{} path: ", self.path)?;
        match self.noise {
            0.0 => write!(f, "equal runs agree to the last bit")?,
            noise => write!(f, "equal runs differ by up to {noise:e}")?,
        }
        match self.tolerance {
            0.0 => writeln!(f, ", so every move counts")?,
            tolerance => writeln!(f, ", so moves up to {tolerance:e} do not count")?,
        }
        for leak in &self.leaks {
            writeln!(f, "  leak: {leak}")?;
        }
        if let Some(why) = self.unproven {
            writeln!(f, "  not proven: {why}")?;
        }
        if !self.dead.is_empty() {
            writeln!(f, "  weights that move nothing: {}", self.dead.join(", "))?;
        }
        for Missing { row, query, key, cells, diagnosis, .. } in &self.missing {
            writeln!(
                f,
                "  missing: key {key} never moves query {query} in row {row} ({cells} such cells): \
                 {diagnosis}"
            )?;
        }
        if let Some(differs) = &self.disagreement {
            let Disagreement { row, query, size, tolerance, diagnosis, .. } = differs;
            writeln!(
                f,
                "  differs from the plain path from query {query} of row {row} on, by up to \
                 {size:e} (rounding: {tolerance:e}): {diagnosis}"
            )?;
        }
        if let Some(Poisoned { row, query, key }) = self.poisoned {
            writeln!(
                f,
                "  poisoned (not a leak): NaN from key {key} on reaches query {query} of row {row}, \
                 since 0 * NaN is NaN"
            )?;
        }
        for influence in &self.influence {
            write!(f, "{influence}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, query, key_row, key, size, diagnosis, .. } = self;
        match self.way {
            Way::OtherRows => write!(
                f,
                "changing row {key_row} (from position {key}) moves row {row} at {query} by {size:e}"
            )?,
            Way::OneKey => write!(f, "changing key {key} moves query {query} by {size:e}")?,
            Way::HiddenRandom | Way::HiddenExtreme | Way::HiddenNan => write!(
                f,
                "changing all that is hidden from query {query}, key {key} among it, moves it by \
                 {size:e}"
            )?,
            Way::Gradient => {
                write!(f, "the derivative of query {query} by key {key} is {size:e}, not 0")?
            }
            Way::Memory => write!(f, "changing key {key} moves the memory by {size:e}")?,
            Way::Length => write!(
                f,
                "cutting off what follows, from position {key} on, moves query {query} by {size:e}"
            )?,
            Way::Targets => write!(
                f,
                "the probabilities of all ids at position {query} sum to {size:e} more or less than 1"
            )?,
            Way::Weights => {
                write!(f, "query {query} gives the hidden key {key} the weight {size:e}")?
            }
        }
        write!(f, " (row {row}): {diagnosis}")
    }
}
