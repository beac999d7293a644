//! What the program says: the text on standard output, all else on standard error.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr};

use super::failure::Failure;

/// Standard output. Whoever reads it may leave early, as `head` does: what comes then is dropped.
pub struct Output<'a> {
    to: &'a mut dyn Write,
    closed: bool,
}

impl<'a> Output<'a> {
    /// Writes to `to`.
    pub fn new(to: &'a mut dyn Write) -> Self {
        Self { to, closed: false }
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a part of the text, at once.
    pub fn print(&mut self, part: Arguments<'_>) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        match self.to.write_fmt(part).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(Failure::Output),
        }
    }
}

/// Writes a line to standard error, if anybody reads that.
pub fn tell(line: Arguments<'_>) {
    let _ = writeln!(stderr(), "{line}");
}
