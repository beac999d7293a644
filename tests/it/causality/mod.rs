//! The leak checker: it catches and names mutants, and leaves right models alone.

mod alarm;
mod mutants;
mod report;
mod right;
mod tiny;
