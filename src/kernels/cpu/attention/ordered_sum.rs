//! Sums that many tasks add to, one after the other: the order is that of the tasks' numbers, so the
//! result does not depend on which thread was faster.
//!
//! Every task visits tiles of keys in ascending order. It may add to tile `j` once every earlier
//! task that visits `j`, too, is through with it. Tasks are started in the order of their numbers,
//! so the earliest unfinished one never waits and the others get on behind it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far each task has come.
pub(super) struct TaskOrder {
    /// One past the last tile that the task is through with.
    done: Vec<AtomicUsize>,
}

/// One task's place in the order. When it goes, also by a panic, the task is through with all.
pub(super) struct TaskPlace<'a> {
    order: &'a TaskOrder,
    task: usize,
    /// All tasks before this one are through with everything.
    finished: Cell<usize>,
}

impl TaskOrder {
    pub(super) fn new(tasks: usize) -> Self {
        Self { done: (0..tasks).map(|_| AtomicUsize::new(0)).collect() }
    }

    pub(super) fn place(&self, task: usize) -> TaskPlace<'_> {
        TaskPlace { order: self, task, finished: Cell::new(0) }
    }
}

impl TaskPlace<'_> {
    /// Waits until all earlier tasks that visit the tile, as `visits` says, are through with it.
    pub(super) fn wait(&self, tile: usize, visits: impl Fn(usize) -> bool) {
        let done = &self.order.done;
        let finished = |task: usize| done[task].load(Ordering::Acquire) == usize::MAX;
        let mut first = self.finished.get();
        while first < self.task && finished(first) {
            first += 1;
        }
        self.finished.set(first);
        for earlier in first..self.task {
            let done = &done[earlier];
            let mut spins = 0;
            while done.load(Ordering::Acquire) <= tile && visits(earlier) {
                spins += 1;
                if spins % 64 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
    }

    /// The task is through with `tile` and all before it.
    pub(super) fn pass(&self, tile: usize) {
        self.order.done[self.task].store(tile + 1, Ordering::Release);
    }
}

impl Drop for TaskPlace<'_> {
    fn drop(&mut self) {
        self.order.done[self.task].store(usize::MAX, Ordering::Release);
    }
}
