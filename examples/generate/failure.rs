//! Why the program ends early, and with which exit code.

use std::io;

use thiserror::Error;

/// What the user is told when something is wrong.
#[derive(Debug, Error)]
pub enum Failure {
    /// An argument or a file of the model can't be used.
    #[error("{0}")]
    Input(String),
    /// What was written can't be kept: a full disk, for one.
    #[error("standard output: expected room for the text, got: {0}")]
    Output(io::Error),
}

impl Failure {
    /// The exit code. That of bad input is clap's for arguments that it can't read.
    pub fn code(&self) -> u8 {
        match self {
            Self::Input(_) => 2,
            Self::Output(_) => 3,
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Input(message)
    }
}

impl From<burn_decoder::Error> for Failure {
    fn from(error: burn_decoder::Error) -> Self {
        Self::Input(error.to_string())
    }
}
