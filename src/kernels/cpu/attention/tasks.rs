//! Work shared out over rayon's threads, the memory each thread works in, and the results that all
//! of them write to.
//!
//! What a task computes depends on its number alone, never on the thread that happens to run it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    let next = AtomicUsize::new(0);
    let run = || {
        // Kept by the thread: fresh memory from the system costs more than a small attention.
        let mut workspace = Workspace { buffer: T::buffer().take() };
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            task(&mut workspace, number);
        }
        T::buffer().set(workspace.buffer);
    };
    let least = if threads::is_awake() { WORTH_CALLING } else { WORTH_WAKING };
    let threads = count.min(1 + work / least).min(rayon::current_num_threads());
    if threads <= 1 {
        return run();
    }
    rayon::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|_| run());
        }
    });
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

/// A result of which every task writes its own part.
pub(super) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are only reached through `slice`, whose caller answers for parts not overlapping.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(super) fn new(result: &'a mut [T]) -> Self {
        Self { start: result.as_mut_ptr(), len: result.len(), owner: PhantomData }
    }

    /// Part of the result.
    ///
    /// # Safety
    ///
    /// While the slice lives, nobody else may hold one that overlaps it.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(super) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.len);
        // SAFETY: within the slice borrowed for 'a, as just asserted; not aliased, by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
