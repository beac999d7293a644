//! The leak checker: it catches and names mutants, and leaves right models alone.

mod alarm;
mod alone;
mod beyond;
mod kinds;
mod mutants;
mod naming;
mod report;
mod right;
mod tiny;
mod verdict;
