//! What is wrong with the bytes of a file, and where.

/// What stood in the place of what.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What should have been there, and where.
    pub expected: String,
    /// What is there.
    pub got: String,
}

impl Wrong {
    pub fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into() }
    }
}
