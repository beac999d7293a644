//! Why a run ends without its proof, and how a run tells its end: the exit codes.

use std::fmt::Display;
use std::path::Path;

use thiserror::Error;

/// Why a run ends before its proof.
#[derive(Debug, Error)]
pub enum Failure {
    /// Something that the user gave, a file or an argument, cannot be used.
    #[error("{0}")]
    Input(String),
    /// Training went wrong, or a proof could not be carried out.
    #[error("{0}")]
    Run(String),
    /// What was learned or found could not be written.
    #[error("{0}")]
    Output(String),
}

impl Failure {
    /// A file or folder of the user's that cannot be used.
    pub fn file(what: &str, path: &Path, error: impl Display) -> Self {
        Self::Input(format!("{what} {}: {error}", path.display()))
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

/// Whatever the settings can be blamed for is found when the model is built.
impl From<burn_decoder::Error> for Failure {
    fn from(error: burn_decoder::Error) -> Self {
        Self::Run(error.to_string())
    }
}

/// Standard output, full.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(format!("standard output: {error}"))
    }
}

/// How a run that came to its proof ended.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All proofs hold.
    Proved,
    /// No leak, but something that was demanded does not hold: not learned well enough.
    NotProved,
    /// The future, the padding or another row was seen.
    Leak,
}

impl Verdict {
    /// The exit code of the run.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Proved => 0,
            Verdict::NotProved => 1,
            Verdict::Leak => 3,
        }
    }
}
