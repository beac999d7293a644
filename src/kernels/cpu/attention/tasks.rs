//! Work shared out over rayon's threads, the memory each thread works in, and the results that all
//! of them write to.
//!
//! What a task computes depends on its number alone, never on the thread that happens to run it.

use super::Real;
use crate::kernels::cpu::threads;

/// Multiply-adds below which another thread is not worth waking up (some 10 microseconds).
const WORTH_WAKING: usize = 1 << 19;
/// Multiply-adds below which a thread that is awake is not worth calling.
const WORTH_CALLING: usize = 1 << 15;

/// Runs `task` for every number below `count`, started in that order. `work` is the number of
/// multiply-adds in all, roughly.
pub(super) fn for_each<T: Real>(
    count: usize,
    work: usize,
    task: impl Fn(&mut Workspace<T>, usize) + Sync,
) {
    let run = |number: usize| {
        // Kept by the thread: fresh memory from the system costs more than a small attention.
        let mut workspace = Workspace { buffer: T::buffer().take() };
        task(&mut workspace, number);
        T::buffer().set(workspace.buffer);
    };
    let least = if threads::has_helpers() { WORTH_CALLING } else { WORTH_WAKING };
    threads::for_each(count, 1 + work / least, run);
}

/// Memory that a thread works in, task after task.
pub(super) struct Workspace<T> {
    buffer: Vec<T>,
}

impl<T: Real> Workspace<T> {
    /// Slices of these lengths, each at the start of a cache line; what they hold is left over.
    pub(super) fn slices<const K: usize>(&mut self, lens: [usize; K]) -> [&mut [T]; K] {
        let line = 64 / size_of::<T>();
        let total: usize = lens.iter().map(|len| len.next_multiple_of(line)).sum();
        if self.buffer.len() < total + line {
            self.buffer = vec![T::ZERO; total + line];
        }
        let start = self.buffer.as_ptr().align_offset(64).min(line);
        let mut rest = &mut self.buffer[start..];
        lens.map(|len| {
            let (slice, tail) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(line));
            rest = tail;
            &mut slice[..len]
        })
    }
}
