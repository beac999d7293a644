//! What the program says: the text on standard output, all else on standard error.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr};

use crate::failure::Failure;

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Write};

    use crate::failure::Failure;
    use crate::run;
    use crate::tests::{folder, generate, parse};

    /// Takes a number of writes, and refuses every one behind them.
    struct Ends {
        after: usize,
        with: io::ErrorKind,
        refused: usize,
    }

    impl Write for Ends {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.after == 0 {
                self.refused += 1;
                return Err(self.with.into());
            }
            self.after -= 1;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What comes of writing to it, and how often that was tried in vain.
    fn written(
        after: usize,
        with: io::ErrorKind,
        options: &[&str],
    ) -> (Result<bool, Failure>, usize) {
        let folder = folder();
        let mut out = Ends { after, with, refused: 0 };
        let result = run(&parse(folder.path(), options).unwrap(), &mut out);
        (result, out.refused)
    }

    const SPEAK: [&str; 4] = ["--prompt", "w1 w2", "--max-new-tokens", "9"];

    #[test]
    fn a_reader_who_leaves_ends_the_run_quietly() {
        for after in [0, 1, 3] {
            let (result, refused) = written(after, io::ErrorKind::BrokenPipe, &SPEAK);
            assert!(matches!(result, Ok(true)), "{result:?}");
            assert_eq!(refused, 1);
        }
    }

    /// Whoever reads no more of a comparison still gets its exit code.
    #[test]
    fn a_comparison_is_whole_without_a_reader() {
        let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
        for (of, agreed) in [("llama_tiny", true), ("qwen3_tiny", false)] {
            let dump = format!("{fixtures}/{of}/reference.safetensors");
            let (result, _) = written(0, io::ErrorKind::BrokenPipe, &["--parity", &dump]);
            assert_eq!(result.unwrap(), agreed);
        }
    }

    #[test]
    fn a_full_disk_is_no_bad_input() {
        for after in [0, 2] {
            let (result, _) = written(after, io::ErrorKind::StorageFull, &SPEAK);
            let failure = result.unwrap_err();
            assert!(failure.to_string().contains("standard output"), "{failure}");
            assert_eq!(failure.code(), 3);
        }
        let folder = folder();
        fs::remove_file(folder.path().join("model.safetensors")).unwrap();
        let args = parse(folder.path(), &SPEAK).unwrap();
        assert_eq!(run(&args, &mut Vec::new()).unwrap_err().code(), 2);
        assert!(generate(folder.path(), &SPEAK).is_err());
    }
}
