//! Files as memory: what is not looked at is not read, and the system may drop what was.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

/// The bytes of a file, as they lie on the disk.
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the whole of `file`.
    ///
    /// A file that another program changes meanwhile gives bytes of both states; one that it cuts off
    /// ends the process, as the system sends a signal for what is no longer there. Files that are
    /// written aside and moved to their place, as checkpoints are, do neither.
    pub(crate) fn open(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes are only ever read as bytes, for which every state of them is a valid one,
        // and no reference to them outlives the map; what another program may do is told above.
        unsafe { Mmap::map(file) }.map(Self)
    }

    /// Some of its bytes without a copy. They keep the file mapped.
    ///
    /// # Panics
    ///
    /// If the file ends before the range does.
    pub(crate) fn bytes(self: &Arc<Self>, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.len(), "a range beyond the file");
        let part = Part { file: self.clone(), range };
        Bytes::from_shared(bytes::Bytes::from_owner(part), AllocationProperty::Other)
    }

    /// A copy of some of its bytes, of which the file's own leave this process's memory again.
    ///
    /// # Panics
    ///
    /// If the file ends before the range does.
    pub(crate) fn copy(&self, range: Range<usize>) -> Bytes {
        let copy = self[range.clone()].to_vec();
        self.leave(range);
        Bytes::from_bytes_vec(copy)
    }

    /// Lets some of its bytes leave this process's memory, until they are read again.
    pub(crate) fn leave(&self, range: Range<usize>) {
        #[cfg(not(unix))]
        let _ = range;
        // SAFETY: pages of a file that nobody writes to come back as they were when they are read again.
        #[cfg(unix)]
        let _ = unsafe {
            let unneeded = UncheckedAdvice::DontNeed;
            self.0.unchecked_advise_range(unneeded, range.start, range.len())
        };
    }
}

/// A range of a mapped file.
struct Part {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
