//! Standard output that may be closed, and standard error that may be full.

use std::fmt::Display;
use std::io::{self, ErrorKind, StdoutLock, Write};

/// Writes on, and says nothing of it, when who reads has gone (`| head -1`). Any other error is one.
pub struct Output<W> {
    to: W,
    closed: bool,
}

impl Output<StdoutLock<'static>> {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout().lock())
    }
}

impl<W: Write> Output<W> {
    /// Writes to `to` as long as somebody reads there.
    pub fn new(to: W) -> Self {
        Self { to, closed: false }
    }

    fn or_closed<T>(&mut self, result: io::Result<T>, otherwise: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(otherwise)
            }
            result => result,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let written = self.to.write(bytes);
        self.or_closed(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.or_closed(flushed, ())
    }
}

/// Writes a line to standard error; where that can't be written there is nobody to tell.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
