//! Why a training ends early, and how a run tells its end: the exit codes.

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a run ends without a trained model.
#[derive(Debug, Error)]
pub enum Failure {
    /// Something that the user gave, a file or an argument, cannot be used.
    #[error("{0}")]
    Input(String),
    /// Training went wrong, or was interrupted.
    #[error("{0}")]
    Run(String),
    /// What was learned could not be written.
    #[error("{0}")]
    Output(String),
}

impl Failure {
    /// A file or folder of the user's that cannot be used.
    pub fn file(what: &str, path: &Path, error: impl Display) -> Self {
        Self::Input(format!("{what} {}: {error}", path.display()))
    }

    /// A file of the run that cannot be written.
    pub fn write(path: &Path, error: impl Display) -> Self {
        Self::Output(format!("{}: {error}", path.display()))
    }

    /// The exit code of the run.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Run(_) => 1,
            Failure::Input(_) => 2, // as clap has it for arguments that it cannot read
            Failure::Output(_) => 4,
        }
    }
}

/// What the user gave can be blamed for is found when files are read and models are built.
impl From<burn_decoder::Error> for Failure {
    fn from(error: burn_decoder::Error) -> Self {
        Self::Input(error.to_string())
    }
}

/// Standard output, full.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(format!("standard output: {error}"))
    }
}

/// How a training ended that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// With a model.
    Trained,
    /// The model sees the future: it was stopped, or found at the end.
    Leak,
}

impl Verdict {
    /// The exit code of the run.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Trained => 0,
            Verdict::Leak => 3,
        }
    }
}
