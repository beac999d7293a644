//! Which threads the CPU's operations run on, and threads that stay awake through a run of short ones.
//!
//! A token's pass through a model is some hundred operations of a few microseconds. Between two of
//! them rayon's threads fall asleep, and waking one up takes longer than the operation. Handing parts
//! to a thread that is awake takes longer through its queues than by one number in memory: see `offer`.

use std::cell::RefCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rayon::Yield;
use serde::{Deserialize, Serialize};

use super::offer::Offer;

/// What rayon's threads do between two operations on the CPU.
///
/// Which threads these are is said by rayon: those of the pool that the call runs in, as within
/// [`ThreadPool::install`](https://docs.rs/rayon/1/rayon/struct.ThreadPool.html#method.install), or
/// else of its global pool. No result depends on this, nor on the number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Threads {
    /// They sleep while there is nothing to do: other work of the process and of the machine has
    /// their cores.
    #[default]
    Global,
    /// Up to so many of them, beside the one that works, do nothing but look for the next operation
    /// until all is done: a few are enough, since short operations have few parts. They take their
    /// cores from everything else. One run at a time has such threads; others beside it run as with
    /// [`Global`](Self::Global).
    Spinning(usize),
}

impl Threads {
    /// Runs `work` so: a loop of passes with a cache, or a beam search, for instance.
    ///
    /// ```
    /// use burn_decoder::generation::Threads;
    ///
    /// assert_eq!(Threads::Spinning(3).run(|| 6 * 7), 42);
    /// ```
    pub fn run<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Global => work(),
            Self::Spinning(helpers) => spinning(helpers, work),
        }
    }
}

/// How long the work waits for its helpers to wake up. Who comes later does not help at all.
const PATIENCE: Duration = Duration::from_micros(100);
/// How long for the first of them: a core that sleeps deeply, or is busy, takes so long.
const PATIENCE_FOR_ONE: Duration = Duration::from_millis(1);
/// Looks for work, some tens of nanoseconds each, before a helper gives its core to others.
const LOOKS: u32 = 2000;
/// Of so many looks one is at rayon's queues, which takes longer.
const LOOK_AT_QUEUES: u32 = 8;

/// Runs `work` on a thread of rayon's pool, while others look out for its parts.
///
/// They take no rest until it is done, so it should have parts for them most of the time. There is
/// one such work at a time; beside it `work` runs as it would without this.
fn spinning<R: Send>(helpers: usize, work: impl FnOnce() -> R + Send) -> R {
    let helpers = helpers.min(rayon::current_num_threads() - 1);
    if helpers == 0 || ACTIVE.swap(true, Ordering::Acquire) {
        return work();
    }
    let _end = Release;
    rayon::scope(|_| {
        let watch = Arc::new(Watch::default());
        let _end = End(watch.clone());
        for _ in 0..helpers {
            let watch = watch.clone();
            rayon::spawn(move || watch.help());
        }
        if watch.wait_for(helpers) > 0 {
            HELPED.set(Some(watch));
        }
        work()
    })
}

/// Whether helpers look out for the parts of what this thread does, so that small ones pay.
pub(crate) fn has_helpers() -> bool {
    HELPED.with(|watch| watch.borrow().is_some())
}

/// Runs `part` for every number below `parts`, started in that order, each by whichever thread is
/// free of so many.
pub(crate) fn for_each(parts: usize, threads: usize, part: impl Fn(usize) + Sync) {
    let threads = threads.min(parts).min(rayon::current_num_threads());
    if threads <= 1 {
        return (0..parts).for_each(part);
    }
    share_out(parts, threads, &part);
}

/// The same on several threads. It knows no types, so that what rayon makes of it is compiled once.
fn share_out(parts: usize, threads: usize, part: &(dyn Fn(usize) + Sync)) {
    let watch = HELPED.with(|watch| watch.borrow().clone());
    if watch.is_some_and(|watch| watch.offer.run(parts, part)) {
        return;
    }
    let next = AtomicUsize::new(0);
    let run = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= parts {
                break;
            }
            part(number);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| run());
        }
        run();
    });
}

/// Whether some work has its helpers.
static ACTIVE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Who looks out for the parts of the work that this thread does.
    static HELPED: RefCell<Option<Arc<Watch>>> = const { RefCell::new(None) };
}

struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        ACTIVE.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Watch {
    /// Number of helpers that came in time.
    helpers: AtomicUsize,
    /// Whether the work has begun.
    begun: AtomicBool,
    over: AtomicBool,
    offer: Offer,
}

impl Watch {
    /// How many came in time.
    fn wait_for(&self, helpers: usize) -> usize {
        let start = Instant::now();
        let waits = |came: usize| {
            let patience = if came == 0 { PATIENCE_FOR_ONE } else { PATIENCE };
            came < helpers && start.elapsed() < patience
        };
        while waits(self.helpers.load(Ordering::Relaxed)) {
            spin_loop();
        }
        self.begun.store(true, Ordering::Relaxed);
        self.helpers.load(Ordering::Relaxed)
    }

    /// Runs parts of the work, and whatever else waits for a thread, until the work is over.
    fn help(&self) {
        // Who comes later may come from within a part of the work, which waits for parts of its
        // own; it would wait for the end of the work, and the work for it.
        if self.begun.load(Ordering::Relaxed) {
            return;
        }
        self.helpers.fetch_add(1, Ordering::Relaxed);
        let mut looks = 0;
        while !self.over.load(Ordering::Relaxed) {
            let has_worked = self.offer.help()
                || looks % LOOK_AT_QUEUES == 0 && rayon::yield_now() == Some(Yield::Executed);
            if has_worked {
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// Ends a watch, also where the work panics.
struct End(Arc<Watch>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        HELPED.set(None);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use rayon::prelude::*;

    use super::*;

    /// Held by each test with helpers: one work has them at a time.
    pub(in crate::kernels::cpu) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn work_has_helpers_and_leaves_none_behind() {
        let _alone = alone();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let nested = || {
            let sum = |n: u32| (0..n).into_par_iter().with_max_len(1).sum::<u32>();
            (0..50).into_par_iter().with_max_len(1).map(|i| sum(i) + sum(50 - i)).sum::<u32>()
        };
        let expected = nested();
        let threads = Threads::Spinning(7);
        let mut ever_helped = false;
        for _ in 0..200 {
            let (helped, inner) = pool.install(|| {
                threads.run(|| {
                    // Beside active work a second one runs without helpers.
                    let inner = threads.run(nested);
                    (has_helpers(), inner)
                })
            });
            ever_helped |= helped;
            assert_eq!(inner, expected);
            assert!(!has_helpers() && !ACTIVE.load(Ordering::Relaxed));
        }
        assert!(ever_helped, "the work knows of its helpers");

        let panics = || pool.install(|| threads.run(|| panic!("within the work")));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(!ACTIVE.load(Ordering::Relaxed), "a panic ends the watch");
        // Helpers of the broken work have left: all threads are there for the next one.
        assert_eq!(pool.install(|| threads.run(nested)), expected);
    }

    #[test]
    fn no_thread_looks_out_unasked() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for threads in [Threads::default(), Threads::Spinning(0)] {
            assert!(!pool.install(|| threads.run(has_helpers)), "{threads:?}");
        }
    }

    #[test]
    fn who_comes_late_does_not_stay() {
        let watch = Watch::default();
        assert_eq!(watch.wait_for(0), 0);
        watch.over.store(true, Ordering::Relaxed); // or a late helper would never return
        watch.help();
        assert_eq!(watch.helpers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pool_of_one_thread_does_the_work_itself() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(!pool.install(|| Threads::Spinning(7).run(has_helpers)));
    }
}
